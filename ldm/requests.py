"""What a caller asks of a pipeline, checked and brought into one form: prompts and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from ldm.errors import RequestError


def derived_seed(seed: int, purpose: str) -> int:
    """An independent seed for one purpose, so that no two parts share their noise."""
    digest = hashlib.sha256(f"{purpose}|{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def repeated(prompt: str | Sequence[str], times: int) -> list[str]:
    """Each prompt `times` times, prompt by prompt; an empty one is refused."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise RequestError("no prompt given")
    for i, text in enumerate(prompts):
        if not isinstance(text, str) or not text.strip():
            raise RequestError(f"prompt {i + 1} is empty ({text!r}); say what to draw")
    if times < 1:
        raise RequestError(f"num_images_per_prompt = {times}: ask for 1 or more")
    return [text for text in prompts for _ in range(times)]


def paired(negative: str | Sequence[str], prompts: Sequence[str]) -> list[str]:
    """A negative prompt for each picture: one for all, or one a prompt."""
    if isinstance(negative, str):
        return [negative] * len(prompts)
    if len(prompts) % max(len(negative), 1) or not negative:
        raise RequestError(
            f"{len(negative)} negative prompts do not go with {len(prompts)} pictures"
        )
    return [text for text in negative for _ in range(len(prompts) // len(negative))]


def seeds_of(
    seed: int | Sequence[int] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    pictures: int,
    per_prompt: int,
) -> list[int]:
    """One seed for each picture, from seeds, from generators, or drawn by torch's own."""
    if generator is not None:
        sources = [generator] * pictures if isinstance(generator, torch.Generator) else generator
        seeds = [int(torch.randint(2**62, (), generator=g, device=g.device)) for g in sources]
    elif seed is None:
        seeds = [int(torch.randint(2**62, ())) for _ in range(pictures)]
    elif isinstance(seed, int):
        seeds = [seed + i % per_prompt for i in range(pictures)]
    else:
        seeds = list(seed)
    if len(seeds) != pictures:
        raise RequestError(f"{len(seeds)} seeds or generators were given for {pictures} pictures")
    return seeds


def shortened(text: str, limit: int = 120) -> str:
    """The text, or its beginning and how long it is."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"
