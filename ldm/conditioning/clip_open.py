"""The part of the CLIP adapter that imports open_clip: pictures, and every other architecture."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ldm.conditioning import clip_folder
from ldm.conditioning.clip import (
    Clip,
    ImageEncoder,
    TextEncoder,
    Tokenizer,
    hash_tensors,
    real_tokens,
)
from ldm.conditioning.preprocess import Preprocess
from ldm.conditioning.tokenizer import BpeTokenizer, Truncation
from ldm.errors import CheckpointError, ConfigError, suggest

HUB = "hf-hub:"
_T = TypeVar("_T")


class OpenClip(NamedTuple):
    """An open_clip model with what belongs to it."""

    model: nn.Module
    tokenizer: Tokenizer
    preprocess: Preprocess
    device: torch.device | str


def open_clip_module() -> Any:
    """The open_clip package, or an error that says how to install it."""
    try:
        import open_clip
    except ImportError as error:
        raise CheckpointError(
            f"open_clip cannot be imported ({error}). Install it: pip install open_clip_torch"
        ) from error
    return open_clip


def load_named(name: str, pretrained: str | None, device: torch.device | str) -> OpenClip:
    """open_clip's own model with the weights of a tag, or of a hub (fetched once, by open_clip).

    Raises:
        ConfigError: no such model, or no tag.
        CheckpointError: the weights did not arrive or do not fit.
    """
    open_clip = open_clip_module()
    on_hub = name.startswith(HUB)
    if not on_hub and pretrained is None and ":" in name:
        name, pretrained = name.split(":", 1)
    if not on_hub and name not in open_clip.list_models():
        raise ConfigError(
            f"{name!r} is neither a folder nor one of open_clip's models."
            f"{suggest(name, open_clip.list_models())} open_clip.list_models() lists them."
        )
    if not on_hub and pretrained is None:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ConfigError(
            f"{name} needs the tag of its weights, as in '{name}:TAG'. It has: {tags}"
        )
    try:
        model = open_clip.create_model(name, pretrained, require_pretrained=True, device=device)
    except (RuntimeError, OSError) as error:
        raise CheckpointError(
            f"the weights {pretrained!r} of {name} did not load: {error}"
        ) from error
    preprocess = Preprocess.from_dict(model.visual.preprocess_cfg)
    return OpenClip(model, tokenizer_of(open_clip.get_tokenizer(name)), preprocess, device)


def load_folder(folder: clip_folder.Folder, device: torch.device | str) -> OpenClip:
    """The whole model of a local folder, image side included."""
    open_clip = open_clip_module()
    model = build(folder.model_cfg)
    clip_folder.load_strictly(model, folder.tensors(), folder.weights_path)
    sized = {"size": folder.model_cfg["vision_cfg"].get("image_size", 224)}
    preprocess = Preprocess.from_dict(sized | folder.preprocess_cfg)
    tokenizer: Tokenizer
    if folder.is_plain:
        tokenizer = folder.tokenizer()
    else:
        tokenizer = tokenizer_of(open_clip.get_tokenizer(f"local-dir:{folder.path}"))
    return OpenClip(model.to(device), tokenizer, preprocess, device)


def build(model_cfg: dict[str, Any]) -> nn.Module:
    """An untrained open_clip model; whoever calls this trains it or loads weights into it."""
    from open_clip import model as classes

    model_cfg = copy.deepcopy(model_cfg)
    custom = model_cfg.pop("custom_text", False) or "hf_model_name" in model_cfg["text_cfg"]
    if "multimodal_cfg" in model_cfg:
        raise ConfigError("CoCa models (multimodal_cfg) are not supported; use a CLIP model")
    model_class = classes.CustomTextCLIP if custom else classes.CLIP
    # Weights come from the caller: neither tower is to fetch its own.
    model_cfg["text_cfg"]["hf_model_pretrained"] = False
    model_cfg["vision_cfg"]["timm_model_pretrained"] = False
    model: nn.Module = model_class(**model_cfg)
    return model


def as_clip(parts: OpenClip, fingerprint: Callable[[], str] | None = None) -> Clip:
    """The adapter around a model that is in memory; it follows the model while that is trained."""
    model: Any = parts.model
    text = TextEncoder(parts.tokenizer, in_evaluation(model, text_encoder(model)))
    image = ImageEncoder(parts.preprocess, in_evaluation(model, model.encode_image))

    def hashed() -> str:
        settings = json.dumps([repr(parts.preprocess), parts.tokenizer.context_length])
        return hash_tensors(parts.model.state_dict() | {settings: torch.zeros(1)})[:16]

    return Clip(text, lambda: image, fingerprint or hashed, parts.device)


def in_evaluation(model: nn.Module, encode: Callable[[Tensor], _T]) -> Callable[[Tensor], _T]:
    """`encode` without dropout, even in the middle of training."""

    def evaluated(x: Tensor) -> _T:
        training = model.training
        model.eval()
        try:
            return encode(x)
        finally:
            model.train(training)

    return evaluated


def text_encoder(model: Any) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """ids `[b n]` -> tokens after ln_final `[b n d]`, pooled `[b e]`, mask `[b n]`, in one pass."""
    from open_clip.hf_model import HFTextEncoder

    tower = getattr(model, "text", None)
    if isinstance(tower, HFTextEncoder):
        return lambda ids: _encode_hf(tower, ids)
    return lambda ids: _encode_native(model, ids)


def _encode_native(model: Any, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out = model.forward_intermediates(
        text=ids, text_indices=1, normalize_intermediates=True, normalize=False
    )
    return out["text_intermediates"][-1], out["text_features"], real_tokens(ids)


def _encode_hf(tower: Any, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    asked, tower.output_tokens = tower.output_tokens, True
    try:
        pooled, tokens = tower(ids)
    finally:
        tower.output_tokens = asked
    return tokens, pooled, ids != tower.config.pad_token_id


def tokenizer_of(tokenizer: Any) -> Tokenizer:
    """One of open_clip's tokenizers behind our signature."""
    from open_clip import SimpleTokenizer

    if isinstance(tokenizer, SimpleTokenizer):
        return BpeTokenizer(context_length=tokenizer.context_length or 77)
    return ForeignTokenizer(tokenizer)


class ForeignTokenizer:
    """open_clip's wrapper of a Hugging Face or SigLIP tokenizer behind our signature."""

    def __init__(self, tokenizer: Any) -> None:
        self.context_length: int = tokenizer.context_length or 77
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> Tensor:
        ids: Tensor = self._tokenizer(list(texts), context_length=self.context_length)
        return ids

    def truncation(self, text: str, index: int = 0) -> Truncation | None:
        """Where `text` is cut, assuming one special token at the end; None where it fits."""
        inner, limit = self._tokenizer.tokenizer, self.context_length
        ids = inner(self._tokenizer.clean_fn(text)).input_ids
        if len(ids) <= limit:
            return None
        halves = (ids[: limit - 1], ids[limit - 1 :])
        kept, lost = (inner.decode(half, skip_special_tokens=True) for half in halves)
        return Truncation(index, kept, lost, len(ids), limit)
