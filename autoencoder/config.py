"""The configuration of the autoencoder: diffusers' fields and two of our own."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from autoencoder.blocks import ACTIVATIONS

if TYPE_CHECKING:
    from autoencoder.vae import AutoencoderKL

DOWN_BLOCK, UP_BLOCK = "DownEncoderBlock2D", "UpDecoderBlock2D"
PLAIN_CLASS, PATCH_CLASS = "AutoencoderKL", "PatchAutoencoderKL"


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """What an `AutoencoderKL` is built from; the fields of diffusers' `AutoencoderKL`,
    then two of our own.

    Attributes:
        block_out_channels: width of each level; the grid is halved between two levels.
        layers_per_block: residual blocks a level in the encoder (one more in the decoder).
        latent_channels: channels of the latent.
        norm_num_groups: groups of every normalisation; must divide every width.
        act_fn: one of silu, swish (the same), mish, gelu, relu.
        sample_size: side of the pictures that it was trained on, in pixels; informative.
        mid_block_add_attention: self-attention at the coarsest grid of encoder and decoder.
        scaling_factor, shift_factor: latents of published weights are normalised as
            (z - shift) * scaling; used by the codec when no statistics are stored.
        latents_mean, latents_std: measured statistics of each latent channel.
        force_upcast: diffusers' note that the weights overflow in half precision; carried along.
        patch_size: side of the square of pixels that becomes channels before the first
            convolution, and pixels again after the last; 1 is diffusers' network.
        linear_path: a linear map of whole squares of `factor` pixels beside encoder and decoder
            (`autoencoder.linear`), so that the networks only learn what linear algebra cannot.
    """

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 32
    scaling_factor: float = 1.0
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True
    patch_size: int = 1
    linear_path: bool = False

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "layers_per_block", "latent_channels"):
            _check_positive(name, getattr(self, name))
        _check_positive("patch_size", self.patch_size)
        _check_positive("norm_num_groups", self.norm_num_groups)
        if not isinstance(self.block_out_channels, tuple) or not self.block_out_channels:
            raise ValueError(
                f"block_out_channels = {self.block_out_channels!r} must be a tuple with the width "
                "of each level, at least one"
            )
        for width in self.block_out_channels:
            _check_positive("a width in block_out_channels", width)
            if width % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels {self.block_out_channels}: every width must be a "
                    f"multiple of norm_num_groups = {self.norm_num_groups}"
                )
        if self.act_fn not in ACTIVATIONS:
            raise ValueError(f"act_fn {self.act_fn!r} is unknown; choose from {list(ACTIVATIONS)}")
        self._check_statistics()

    def _check_statistics(self) -> None:
        if (self.latents_mean is None) != (self.latents_std is None):
            raise ValueError("latents_mean and latents_std must be given together or not at all")
        if not self.scaling_factor > 0:
            raise ValueError(f"scaling_factor = {self.scaling_factor} must be positive")
        for name in ("latents_mean", "latents_std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(values)} values; it needs one for each of the "
                    f"{self.latent_channels} latent channels"
                )
        if self.latents_std is not None and not all(s > 0 for s in self.latents_std):
            raise ValueError("latents_std must be positive in every channel")

    def build(self) -> AutoencoderKL:
        """The KL autoencoder with fresh weights."""
        from autoencoder.vae import AutoencoderKL

        return AutoencoderKL(self)

    @property
    def factor(self) -> int:
        """Pixels a side for one latent position: patch_size times 2 for each halving."""
        return self.patch_size * 2 ** (len(self.block_out_channels) - 1)

    @property
    def is_diffusers(self) -> bool:
        """Whether this is a network of diffusers: no field of our own is used."""
        return self.patch_size == 1 and not self.linear_path

    def to_json(self) -> dict[str, Any]:
        """The contents of config.json; for a network of diffusers, exactly the keys of its file."""
        out: dict[str, Any] = {
            "_class_name": PLAIN_CLASS if self.is_diffusers else PATCH_CLASS,
            "down_block_types": [DOWN_BLOCK] * len(self.block_out_channels),
            "up_block_types": [UP_BLOCK] * len(self.block_out_channels),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            out[field.name] = list(value) if isinstance(value, tuple) else value
        if self.is_diffusers:
            del out["patch_size"], out["linear_path"]
        return out

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> AutoencoderConfig:
        """Inverse of `to_json`; an unknown key is refused, with the nearest known one named.

        A diffusers file without `scaling_factor` means 0.18215, the default of that library.
        """
        values = {k: v for k, v in raw.items() if not k.startswith("_")}
        types = [values.pop(k, None) for k in ("down_block_types", "up_block_types")]
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {known}"
                raise ValueError(f"unknown key {key!r}{hint}")
        if raw.get("_class_name") == PLAIN_CLASS:
            values.setdefault("scaling_factor", 0.18215)
        plain: dict[str, Any] = {k: _tuple(v) for k, v in values.items()}
        config = cls(**plain)
        for given, kind in zip(types, (DOWN_BLOCK, UP_BLOCK), strict=True):
            if given is not None and list(given) != [kind] * len(config.block_out_channels):
                raise ValueError(
                    f"block types {list(given)} are not supported: every level must be {kind!r}, "
                    f"one for each of block_out_channels {config.block_out_channels}"
                )
        return config


def _tuple(value: Any) -> Any:
    """JSON has lists where the configuration has tuples."""
    return tuple(value) if isinstance(value, list) else value


def _check_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} = {value!r} must be an integer of at least 1")
