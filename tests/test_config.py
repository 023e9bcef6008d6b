"""The configuration codec: exact round trips, strict reading, overrides that speak plainly."""

from __future__ import annotations

import json

import pytest

from ldm import config
from ldm.diffusion.process import VPCosine, VPLinear
from ldm.errors import ConfigError
from ldm.samplers import Sampler
from ldm.training import LoopConfig, OptimConfig


def test_round_trip_through_json() -> None:
    for value in (OptimConfig(lr=1e-5, clip_norm=None), LoopConfig(images=7), Sampler(steps=3)):
        assert config.from_dict(json.loads(json.dumps(config.to_dict(value)))) == value


def test_unknown_field_is_refused_with_a_suggestion() -> None:
    with pytest.raises(
        ConfigError, match=r"no field 'warmup_image'\. Did you mean 'warmup_images'"
    ):
        config.from_dict({"kind": "OptimConfig", "warmup_image": 3})


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown kind 'VPCosin'\. Did you mean 'VPCosine'"):
        config.from_dict({"kind": "VPCosin"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", "fast"), ("lr", True), ("betas", [0.9]), ("decay", "cos"), ("warmup_images", 1.5)],
)
def test_wrong_types_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        config.from_dict({"kind": "OptimConfig", field: value})


def test_a_kind_of_the_wrong_sort_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot stand here"):
        config.from_dict({"kind": "Sampler", "solver": {"kind": "VPCosine"}})


def test_overrides() -> None:
    loop = config.override(LoopConfig(images=10), ["images=20", "precision=bf16"])
    assert loop == LoopConfig(images=20, precision="bf16")
    assert config.override(OptimConfig(), ["clip_norm=none", "lr=1e-5"]).clip_norm is None
    sampler = config.override(Sampler(), ["solver=Ddim", "solver.eta=0.5"])
    assert sampler.solver.eta == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("image=20", r"unknown setting 'image'.*Did you mean 'images'"),
        ("images", "not of the form path=value"),
        ("images.more=1", "nothing below it"),
        ("images=many", "expected int"),
    ],
)
def test_bad_overrides(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.override(LoopConfig(images=10), [assignment])


def test_invalid_values_name_their_place() -> None:
    with pytest.raises(ConfigError, match="process"):
        config.from_dict({"kind": "VPLinear", "t_min": -1.0}, VPLinear, "process")
    assert config.from_dict({"kind": "VPCosine"}, VPCosine) == VPCosine()
