"""Weights as files hold them: half precision, or bytes with a scale for each row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import PRIOR, stir

from ldm import storage
from ldm.errors import CheckpointError, ConfigError
from ldm.stage import Stage


def test_bytes_are_within_half_a_step_of_each_row() -> None:
    weight = torch.randn(6, 40) * torch.logspace(-3, 2, 6)[:, None]
    weight[2] = 0
    back = storage.unpack(storage.pack({"w": weight}, "int8"))["w"]
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((back - weight).abs() <= step / 2 + 1e-7).all())
    assert torch.equal(back[2], torch.zeros(40))


def test_kernels_are_bytes_and_vectors_stay_halves() -> None:
    packed = storage.pack({"kernel": torch.randn(4, 3, 2, 2), "bias": torch.randn(4)}, "int8")
    assert packed["kernel"].dtype == torch.int8 and packed["bias"].dtype == torch.float16
    assert packed["kernel.int8_scale"].shape == (4,)
    assert storage.unpack(packed).keys() == {"kernel", "bias"}


def test_packing_twice_changes_nothing_more() -> None:
    once = storage.unpack(storage.pack({"w": torch.randn(5, 7)}, "int8"))
    twice = storage.unpack(storage.pack(once, "int8"))
    assert torch.allclose(once["w"], twice["w"], atol=1e-6)


def test_a_stage_in_bytes_loads_and_is_half_as_large(tmp_path: Path) -> None:
    stage = stir(PRIOR.build())
    stage.save_pretrained(tmp_path / "half", {})
    stage.save_pretrained(tmp_path / "bytes", {}, "int8")
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("half", "bytes")]
    assert sizes[1] < 0.75 * sizes[0]  # scales and float32 buffers weigh much in a tiny model
    loaded = Stage.from_pretrained(tmp_path / "bytes")
    for (name, mine), theirs in zip(stage.named_parameters(), loaded.parameters(), strict=True):
        assert (mine - theirs).abs().max() <= mine.abs().max() / 200 + 1e-3, name


def test_bytes_without_scales_and_unknown_precisions_are_refused() -> None:
    packed = storage.pack({"w": torch.randn(5, 7)}, "int8")
    del packed["w.int8_scale"]
    with pytest.raises(CheckpointError, match=r"w is stored as bytes \[5, 7\] and needs 5 scales"):
        storage.unpack(packed)
    with pytest.raises(ConfigError, match="not 'int4'"):
        storage.pack({}, "int4")  # type: ignore[arg-type]
