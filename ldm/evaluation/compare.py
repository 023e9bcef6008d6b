"""Two reports side by side, where they were made in the same way; refused otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ldm.errors import RequestError
from ldm.evaluation.cards import Card, load, table_line, told
from ldm.evaluation.figures import Figure

OPTIONS = {
    name: f"--{name}" for name in ("data", "precision", "pairs", "seed", "steps", "guidance")
} | {"seeds": "--seed", "solver": "--solver"}
"""The option of scripts/evaluate.py that a key of a protocol comes from."""
ABOUT = (
    "B − A is the difference of the values. The intervals are apart where neither value's "
    "bootstrap interval reaches the other's; where they overlap the difference may still be real, "
    "as both reports judge the same items."
)


def compare(first: Path, second: Path) -> str:
    """Two reports' figures as Markdown, their differences, and whether the intervals are apart.

    Raises:
        RequestError: a file is no report, they share no section, or a section that is in both was
            made under another protocol in each: every difference is named.
    """
    a, b = load(first), load(second)
    both = [name for name in a if name in b]
    if not both:
        raise RequestError(
            f"{first} ({_names(a)}) and {second} ({_names(b)}) have no section in common; evaluate "
            "both models with the same parts"
        )
    _refuse_differences(first, second, {name: (a[name], b[name]) for name in both})
    parts = [f"# Comparison\n\n- A: {first}\n- B: {second}\n"]
    for path, alone in (
        (first, [n for n in a if n not in b]),
        (second, [n for n in b if n not in a]),
    ):
        parts += [f"- only in {path}: {', '.join(alone)}\n"] if alone else []
    parts.append(f"\n{ABOUT}\n")
    parts += [_section(a[name], b[name]) for name in both]
    return "".join(parts)


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The values of two protocols under each key, dotted where nested, that are not equal."""
    mine, other = dict(_flat(a)), dict(_flat(b))
    return {
        key: (_value(mine, key), _value(other, key))
        for key in dict.fromkeys([*mine, *other])
        if key not in mine or key not in other or mine[key] != other[key]
    }


def _refuse_differences(first: Path, second: Path, pairs: Mapping[str, tuple[Card, Card]]) -> None:
    """One line for each difference, with all the sections that have it."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, (a, b) in pairs.items():
        for key, values in differences(_protocol(a), _protocol(b)).items():
            found.setdefault((key, *values), []).append(name)
    if found:
        lines = [
            f"- {', '.join(names)}: {key} is {x} in the first and {y} in the second; {_remedy(key)}"
            for (key, x, y), names in found.items()
        ]
        raise RequestError(
            f"{first} and {second} were not made in the same way, so their figures do not "
            "compare:\n" + "\n".join(lines)
        )


def _protocol(card: Card) -> dict[str, Any]:
    """A card's protocol, with the pairs asked and their seed where it does not say them."""
    return {k: card.options[k] for k in ("pairs", "seed") if k in card.options} | card.protocol


def _remedy(key: str) -> str:
    """What to do about a difference."""
    parts = key.split(".")
    option = next((OPTIONS[part] for part in parts if part in OPTIONS), None)
    if "prior" in parts:
        prior = {"--steps": "--prior-steps", "--guidance": "--prior-guidance"}
        option = prior.get(option or "")
    if option is None:
        return "evaluate one of them anew, in the version of the code that made the other"
    return f"evaluate one of them anew with the other's {option}"


def _section(a: Card, b: Card) -> str:
    lines = [f"\n## {a.title}\n\n"]
    for key, (x, y) in differences(a.subject, b.subject).items():
        lines.append(f"- {key}: {x} (A), {y} (B)\n")
    lines.append("\n" if len(lines) > 1 else "")
    header = ["", "", "N", "A", "B", "B − A", "intervals"]
    lines += [table_line(header) + "\n", table_line(["---", "---", *["---:"] * 4, "---"]) + "\n"]
    lines += [table_line(cells) + "\n" for cells in _rows(a, b)]
    for label, mine, other in (("A", a, b), ("B", b, a)):
        alone = sorted(_cells(mine) - _cells(other))
        lines += [f"\nOnly in {label}: {row}, {column}\n" for row, column in alone]
    return "".join(lines)


def _rows(a: Card, b: Card) -> Iterator[list[str]]:
    """A line for each figure that both have."""
    for row, figures in a.rows.items():
        for column, x in figures.items():
            y = b.rows.get(row, {}).get(column)
            if y is None:
                continue
            n = str(x.n) if x.n == y.n else f"{x.n}, {y.n}"
            yield [row, column, n, str(x), str(y), difference(x, y), apart(x, y)]


def difference(a: Figure, b: Figure) -> str:
    """b - a with its sign, none where it rounds to 0; shares differ by points of a hundred."""
    gap = Figure(b.value - a.value, None, None, 0, b.unit).text.replace("%", "points")
    if not any(digit in gap for digit in "123456789"):
        return gap.lstrip("-")
    return gap if gap.startswith("-") else f"+{gap}"


def apart(a: Figure, b: Figure) -> str:
    """Whether two intervals have nothing in common; a figure without one is a point."""
    if a.low is None and b.low is None:
        return "exact"
    low_a, high_a, low_b, high_b = (*_ends(a), *_ends(b))
    return "apart" if high_a < low_b or high_b < low_a else "overlap"


def _ends(figure: Figure) -> tuple[float, float]:
    if figure.low is None or figure.high is None:
        return figure.value, figure.value
    return figure.low, figure.high


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _value(flat: Mapping[str, Any], key: str) -> str:
    """Lists and plain values as text; that a key is not there is a value too."""
    return (told(flat[key]) or "empty") if key in flat else "not said"


def _cells(card: Card) -> set[tuple[str, str]]:
    return {(row, column) for row, figures in card.rows.items() for column in figures}


def _names(cards: Mapping[str, Card]) -> str:
    return ", ".join(cards) or "empty"
