"""Many prompts -> a folder of PNG files, by one process or by all that torchrun started.

    torchrun --nproc-per-node 8 SCRIPT

Every process draws its own batches and talks to no other. Batch k holds the same pictures whoever
draws it, so that the files are the same whatever the number of processes and however often the
drawing was broken off: pictures drawn together influence each other's last bits.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.errors import RequestError
from ldm.evaluation.cache import digest
from ldm.files import write_atomically

if TYPE_CHECKING:
    from ldm.pipeline import TextToImage

NAME = "drawing.json"


def draw_many(
    pipe: TextToImage,
    prompts: Sequence[str],
    folder: Path,
    *,
    seed: int = 0,
    batch_size: int = 32,
    rank: int | None = None,
    world: int | None = None,
    quiet: bool = False,
    **samplers: Any,
) -> list[Path]:
    """Draw prompt i with seed `seed` + i into FOLDER/i.png; files that are there stay.

    Args:
        rank, world: which of how many processes this is; by default what torchrun says, or 0 of 1.
        samplers: as `TextToImage.samplers` takes them.

    Returns:
        The files of all prompts that are still missing, those of other processes.

    Raises:
        RequestError: no prompts; the folder was begun with another model or other settings.
    """
    from tqdm import tqdm

    rank, world = _share(rank, world)
    if not prompts or batch_size < 1:
        raise RequestError(f"{len(prompts)} prompts in batches of {batch_size}: give 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / NAME, _settings(pipe, prompts, seed, batch_size, samplers))
    files = [folder / f"{i:06d}.png" for i in range(len(prompts))]
    starts = range(0, len(prompts), batch_size)
    for start in tqdm(starts[rank::world], desc="drawing", disable=quiet, leave=False):
        run = range(start, min(start + batch_size, len(prompts)))
        missing = [i for i in run if not files[i].exists()]
        if missing:
            images = pipe([prompts[i] for i in run], seed=[seed + i for i in run], **samplers)
            for i in missing:
                _save(images.images[i - start], files[i])
    return [path for path in files if not path.exists()]


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines are left out.

    Raises:
        RequestError: no such file, not UTF-8, or no prompt in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"prompts cannot be read from {path}: {error}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise RequestError(f"{path} holds no prompt: write one a line")
    return prompts


def _share(rank: int | None, world: int | None) -> tuple[int, int]:
    """Which of how many processes this is."""
    if rank is None or world is None:
        rank, world = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= rank < world:
        raise RequestError(f"process {rank} of {world}: give a rank from 0 to {world - 1}")
    return rank, world


def _settings(
    pipe: TextToImage, prompts: Sequence[str], seed: int, batch_size: int, samplers: dict[str, Any]
) -> dict[str, Any]:
    """All that the pictures depend on."""
    used = pipe.samplers(**samplers)
    return {
        "model": pipe.fingerprint,
        "precision": "bf16" if pipe.bf16 else "float32",
        "decoder": used.decoder.describe(),
        "prior": used.prior.describe(),
        "seed": seed,
        "batch_size": batch_size,
        "prompts": len(prompts),
        "prompts_sha256": digest(list(prompts)),
    }


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or find them there; processes may come at the same time."""
    told = json.loads(json.dumps(settings))
    if not path.exists():
        own = path.with_name(f"{path.name}.{os.getpid()}")
        write_atomically(own, (json.dumps(told, indent=1) + "\n").encode())
        own.replace(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [k for k in told if found.get(k) != told[k]]
    except (ValueError, AttributeError) as error:
        raise RequestError(f"{path} is no file of settings ({error}); remove it") from error
    if other:
        differences = "; ".join(f"{k}: {found.get(k)} there, {told[k]} asked" for k in other)
        raise RequestError(
            f"{path.parent} was begun with other settings ({differences}): name another folder, "
            "or remove this one"
        )


def _save(image: Any, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
