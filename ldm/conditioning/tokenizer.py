"""CLIP's byte-pair tokenizer, without importing open_clip.

Sennrich et al. 2016 (arXiv 1508.07909): a word starts as its bytes, and the most frequent known
pair is merged until none is left. `import open_clip` costs seconds (torchvision, timm), so that
sampling reads the merge list itself: from the model's folder, else from the installed open_clip
package, which is located but not executed. Equal to `open_clip.SimpleTokenizer`, id for id.

Merges are sorted by frequency, so their first N make a smaller vocabulary by themselves:
256 bytes + 256 word-final bytes + N merges + start + end. Rarer words fall into more pieces, all
of which were trained, and the embedding table (most of a small CLIP's bytes) shrinks with N.
"""

from __future__ import annotations

import functools
import gzip
import html
import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ldm.errors import CheckpointError, ConfigError

MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
FULL_VOCABULARY = 49408
END_OF_WORD = "</w>"
_WORDS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Truncation:
    """A caption that is longer than the text tower's context, and where it is cut."""

    index: int
    kept: str
    lost: str
    num_tokens: int
    limit: int

    def __str__(self) -> str:
        return (
            f"caption {self.index} has {self.num_tokens} tokens, the model reads {self.limit}: "
            f"it ends at {self.kept[-40:]!r}, and {self.lost!r} is not seen"
        )


class BpeTokenizer:
    """Text to ids and back.

    Args:
        vocab_size: size of the id table, 514 (bytes alone) to 49,408 (all merges).
        context_length: n, start and end included; longer texts are cut, keeping the end id.
        merges_path: a merge list; None takes the one inside the installed open_clip package.
    """

    def __init__(
        self,
        *,
        vocab_size: int = FULL_VOCABULARY,
        context_length: int = 77,
        merges_path: Path | None = None,
    ) -> None:
        if not 514 <= vocab_size <= FULL_VOCABULARY:
            raise ConfigError(
                f"vocab_size is {vocab_size}; the tokenizer allows 514 to {FULL_VOCABULARY}"
            )
        import regex

        merges = read_merges(merges_path or packaged_merges())[: vocab_size - 514]
        if len(merges) < vocab_size - 514:
            raise CheckpointError(
                f"{merges_path} has {len(merges)} merges, but a vocabulary of {vocab_size} needs "
                f"{vocab_size - 514}. The file does not belong to this model."
            )
        letters = list(_byte_letters().values())
        vocabulary = letters + [letter + END_OF_WORD for letter in letters]
        vocabulary += [first + second for first, second in merges]
        vocabulary += ["<start_of_text>", "<end_of_text>"]
        self.context_length = context_length
        self.vocab_size = vocab_size
        self.merges = merges
        self._ids = {piece: i for i, piece in enumerate(vocabulary)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._start, self._end = vocab_size - 2, vocab_size - 1
        self._cache: dict[str, tuple[str, ...]] = {word: (word,) for word in vocabulary[-2:]}
        self._pattern = regex.compile(_WORDS, regex.IGNORECASE)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids `[b n]` int64: start, pieces, end, zeros."""
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            pieces = self.encode(text)[: self.context_length - 2]
            row[: len(pieces) + 2] = torch.tensor([self._start, *pieces, self._end])
        return ids

    def encode(self, text: str) -> list[int]:
        """Ids of the cleaned text, without start and end, of any length."""
        words = self._pattern.findall(clean(text))
        return [self._ids[piece] for word in words for piece in self._pieces(word)]

    def truncation(self, text: str, index: int = 0) -> Truncation | None:
        """Where `text` is cut; None where it fits."""
        text, room, count, cut = clean(text), self.context_length - 2, 0, -1
        for match in self._pattern.finditer(text):
            pieces = self._pieces(match.group())
            if cut < 0 and count + len(pieces) > room:
                cut = match.start() + _num_letters(match.group(), pieces[: room - count])
            count += len(pieces)
        if cut < 0:
            return None
        return Truncation(index, text[:cut].rstrip(), text[cut:], count + 2, self.context_length)

    def _pieces(self, word: str) -> tuple[str, ...]:
        if word not in self._cache:
            letters = [_byte_letters()[byte] for byte in word.encode()]
            letters[-1] += END_OF_WORD
            self._cache[word] = self._merge(letters)
        return self._cache[word]

    def _merge(self, pieces: list[str]) -> tuple[str, ...]:
        """Merge the pair of lowest rank, everywhere in the word, until no pair is known."""
        while len(pieces) > 1:
            pairs = set(itertools.pairwise(pieces))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            pieces = _join(pieces, best)
        return tuple(pieces)


def clean(text: str) -> str:
    """CLIP's cleaning: repaired unicode, HTML entities resolved, single spaces, lower case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@functools.cache
def read_merges(path: Path) -> tuple[tuple[str, str], ...]:
    """The pairs of a merge list, most frequent first."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CheckpointError(f"the merge list {path} cannot be read: {error}") from error
    pairs = (tuple(line.split()) for line in lines[1 : FULL_VOCABULARY - 513])
    return tuple((pair[0], pair[1]) for pair in pairs if len(pair) == 2)


def write_merges(path: Path, merges: Sequence[tuple[str, str]]) -> None:
    """A merge list that `open_clip.SimpleTokenizer(bpe_path=...)` reads as well.

    No newline at the end: open_clip would count it as one more merge.
    """
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def packaged_merges() -> Path:
    """The full merge list inside the installed open_clip package, which is not imported."""
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / MERGES_FILE).is_file():
            return path
    raise CheckpointError(
        f"no merge list: the model's folder has no {MERGES_FILE}, and open_clip is not installed. "
        "Install it: pip install open_clip_torch"
    )


def _join(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    i = 0
    while i < len(pieces):
        found = tuple(pieces[i : i + 2]) == pair
        joined.append("".join(pair) if found else pieces[i])
        i += 2 if found else 1
    return joined


def _num_letters(word: str, pieces: Sequence[str]) -> int:
    """How many whole characters of `word` its first pieces hold; a piece letter is one byte."""
    num_bytes = sum(len(piece.removesuffix(END_OF_WORD)) for piece in pieces)
    return len(word.encode()[:num_bytes].decode(errors="ignore"))


@functools.cache
def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte, in CLIP's order: printable ones stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + i) for i, byte in enumerate(others)}
