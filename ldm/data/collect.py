"""Pictures from a folder or a table -> samples: the work behind scripts/make_shards.py.

Every picture is decoded once before it is written, so that a shard holds none that cannot be
read; its file goes into the shard as it is.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldm.data.images import EXTENSIONS, PIXEL_LIMIT, decode_image
from ldm.data.manifest import Manifest, ShardEntry
from ldm.data.reader import read_shard
from ldm.data.writer import Sample, shuffled
from ldm.errors import DataError
from ldm.files import sha256_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """A picture that is to be read: `where` names it in errors."""

    path: Path
    caption: str
    where: str
    meta: dict[str, Any] = field(default_factory=dict)


def list_folder(folder: Path, *, caption_from_name: bool = False) -> list[Listed]:
    """The pictures under a folder; captions from NAME.txt beside them or from their names."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower()[1:] in EXTENSIONS)
    if not paths:
        raise DataError(f"no pictures ({', '.join(EXTENSIONS)}) under {folder}")
    return [Listed(p, _caption_of(p, caption_from_name), str(p)) for p in paths]


def list_table(table: Path) -> list[Listed]:
    """The rows of a .csv or .parquet with columns image and caption.

    Paths are relative to the table; other columns go into the samples' json, `label` as a number.
    """
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows}
    if table.suffix.lower() not in readers:
        raise DataError(f"{table} is neither .csv nor .parquet")
    if not table.is_file():
        raise DataError(f"{table} does not exist")
    listed = [_listed(table, n, row) for n, row in readers[table.suffix.lower()](table)]
    if not listed:
        raise DataError(f"{table} has no rows")
    return listed


def read_samples(
    listed: Iterable[Listed], *, skip_bad: bool = False, pixel_limit: int = PIXEL_LIMIT
) -> Iterator[Sample]:
    """The samples in an order by hash; one that cannot be used is an error, or is counted."""
    num_bad = 0
    for item in shuffled(listed, lambda i: f"{i.where}|{i.caption}".encode()):
        try:
            yield _sample(item, pixel_limit)
        except DataError as error:
            if not skip_bad:
                raise DataError(f"{error}; mend it, or leave such out with --skip-bad") from error
            num_bad += 1
            logger.warning("left out: %s", error)
    if num_bad:
        logger.warning("%d pictures left out", num_bad)


def scan(folder: Path, split: str) -> Manifest:
    """A manifest for shards that were written elsewhere; every shard must be readable to its end.

    It can only record what is found: samples lost before this are not noticed.
    """
    names = sorted(p.name for p in folder.glob("*.tar"))
    if not names:
        raise DataError(f"no .tar files in {folder}")
    entries = []
    for name in names:
        content = read_shard(str(folder), name, ())
        if content.fault:
            raise DataError(f"{folder / name} is damaged: {content.fault}")
        path = folder / name
        entries.append(ShardEntry(name, content.found, path.stat().st_size, sha256_of(path)))
    manifest = Manifest(split, tuple(entries))
    manifest.save(folder)
    return manifest


def _sample(item: Listed, pixel_limit: int) -> Sample:
    try:
        data = item.path.read_bytes()
    except OSError as error:
        raise DataError(f"{item.where}: cannot be read: {error.strerror}") from error
    try:
        decode_image(data, pixel_limit=pixel_limit)
    except DataError as error:
        raise DataError(f"{item.where}: {error}") from error
    if not item.caption.strip():
        raise DataError(f"{item.where}: no caption")
    meta = {"file": item.path.name, **item.meta}
    return Sample(data, item.path.suffix.lower()[1:], (item.caption.strip(),), meta)


def _caption_of(path: Path, from_name: bool) -> str:
    if from_name:
        return " ".join(path.stem.replace("_", " ").replace("-", " ").split())
    sidecar = path.with_suffix(".txt")
    try:
        return sidecar.read_text("utf-8") if sidecar.exists() else ""
    except UnicodeDecodeError as error:
        raise DataError(f"{sidecar} is not utf-8") from error


def _listed(table: Path, number: int, row: dict[str, Any]) -> Listed:
    where = f"{table}, row {number}"
    for column in ("image", "caption"):
        if not isinstance(row.get(column), str) or not row[column].strip():
            raise DataError(f"{where}: column {column!r} is empty")
    meta = {k: v for k, v in row.items() if k and k not in ("image", "caption")}
    if "label" in meta:
        try:
            meta["label"] = int(meta["label"])
        except (ValueError, TypeError) as error:
            raise DataError(f"{where}: label {meta['label']!r} is not a whole number") from error
    path = table.parent / row["image"]
    if path.suffix.lower()[1:] not in EXTENSIONS:
        raise DataError(f"{where}: {row['image']!r} is not one of {', '.join(EXTENSIONS)}")
    return Listed(path, row["caption"], f"{where} ({row['image']})", meta)


def _csv_rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, row); the header is row 1, as a spreadsheet counts."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(table, reader.fieldnames or ())
            for number, row in enumerate(reader, 2):
                if None in row:
                    raise DataError(f"{table}, row {number}: more cells than columns")
                yield number, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as utf-8 csv: {error}") from error


def _parquet_rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("a .parquet needs pyarrow: pip install 'ldm[data]'") from error
    try:
        content = pyarrow.parquet.read_table(table)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{table} cannot be read as parquet: {error}") from error
    _check_columns(table, content.column_names)
    yield from enumerate(content.to_pylist(), 1)


def _check_columns(table: Path, columns: Iterable[str]) -> None:
    columns = list(columns)
    for name in ("image", "caption"):
        if name not in columns:
            raise DataError(f"{table} has columns {columns}; it needs 'image' and 'caption'")
