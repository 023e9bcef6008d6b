"""Cards: what they carry, which two compare, and the pages that are made of them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ldm.errors import ConfigError, RequestError
from ldm.evaluation import readme, report
from ldm.evaluation.cards import FORMAT, Card, load
from ldm.evaluation.compare import apart, compare, difference
from ldm.evaluation.figures import Figure
from ldm.evaluation.html import write_html
from ldm.evaluation.section import Options, Section

ROOT = Path(__file__).resolve().parents[1]
NASTY = '<script src="https://example.org/x.js">alert(1)</script> & "quoted" | `code`'
Write = Callable[..., Path]


def section(share: float = 0.4, **changes: Any) -> Section:
    figures = {"share": Figure(share, share - 0.05, share + 0.05, 96, "%")}
    chance = {"share": Figure(0.1, None, None, 96, "%")}
    made = Section(
        title="Pictures",
        notes=("What `all` means.",),
        protocol={"pairs": {"heldout": 96}, "settings": {"decoder": {"steps": 25, "grid": [1]}}},
        rows={"all": figures, "chance": chance},
        subject={"clip": "c1"},
        grids={"some": Image.new("RGB", (8, 4), "red")},
        shown={"some": ("a cat", "a dog")},
        details=({"seed": 1},),
    )
    return replace(made, **changes)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a report of sections into a folder; returns its JSON file."""

    def to(
        folder: str,
        asked: Options | None = None,
        model: str = "m1",
        data: str = "d1",
        **sections: Any,
    ) -> Path:
        common = {
            "command": f"evaluate {model}", "model": model, "data": data, "precision": "float32",
        }  # fmt: skip
        asked = asked or Options()
        order = ["first", "second", "third"]
        return report.write(
            tmp_path / folder, "emoji", sections, common, order, asked=asked.asked
        )[0]  # fmt: skip

    return to


def test_a_card_parts_what_is_judged_from_how(write: Write) -> None:
    card = json.loads(write("a", first=section()).read_text())["sections"]["first"]
    assert card["subject"] == {"command": "evaluate m1", "model": "m1", "clip": "c1"}
    assert {"data", "precision", "pairs", "settings", "bootstrap"} == card["protocol"].keys()
    assert card["protocol"]["bootstrap"]["resamples"] == 2000
    assert card["protocol"]["bootstrap"]["level"] == 0.95


def test_json_and_markdown_say_the_same_after_a_round_trip(write: Write) -> None:
    path = write("a", first=section(), second=section(grids={}, shown={}, title="a | b"))
    cards = load(path)
    assert report.markdown(cards) == path.with_suffix(".md").read_text()
    body = json.loads(path.read_text())["sections"]
    assert {name: card.to_json() for name, card in cards.items()} == body
    assert {name: Card.from_json(b) for name, b in body.items()} == cards
    text = path.with_suffix(".md").read_text()
    assert "| all | 96 | 40.0 % [35.0, 45.0] |" in text and "| chance | 96 | 10.0 % |" in text
    assert "- clip: `c1`" in text.partition("Protocol:")[0]
    assert "- pairs: heldout 96" in text.partition("Protocol:")[2]


def test_equal_protocols_give_the_table(write: Write) -> None:
    more = section(0.52, rows={**section(0.52).rows, "new": section().rows["all"]})
    a = write("a", first=section(0.4), second=section())
    b = write("b", model="m2", first=more)
    text = compare(a, b)
    assert (
        "| all | share | 96 | 40.0 % [35.0, 45.0] | 52.0 % [47.0, 57.0] | +12.0 points | apart |"
        in text
    )
    assert "| chance | share | 96 | 10.0 % | 10.0 % | 0.0 points | exact |" in text
    assert "- model: m1 (A), m2 (B)" in text and f"only in {a}: second" in text
    assert "Only in B: new, share" in text


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"settings": {"decoder": {"steps": 50, "grid": [1]}}},
         r"first: settings\.decoder\.steps is 25 in the first and 50 in the second.*--steps"),
        ({"settings": {"decoder": {"steps": 25, "grid": [2]}}},
         r"settings\.decoder\.grid is 1 in the first and 2 in the second.*anew, in the version"),
        ({"pairs": {"heldout": 256}}, r"pairs\.heldout is 96 .* and 256 .*other's --pairs"),
        ({"data": "d2"}, r"data is d1 .* and d2 .*--data"),
        ({"extractor": "CLIP"}, "extractor is not said in the first and CLIP in the second"),
        ({"prior": {"guidance": 2.0}}, r"prior\.guidance .*--prior-guidance"),
        ({"bootstrap": {"resamples": 100}}, r"bootstrap\.resamples is 2000 .* and 100 "),
    ],
)  # fmt: skip
def test_other_protocols_are_refused_by_name(
    write: Write, changed: dict[str, Any], told: str
) -> None:
    other = section(protocol={**section().protocol, **changed})
    with pytest.raises(RequestError, match=told):
        compare(write("a", first=section()), write("b", first=other))


def test_all_differences_are_named_once(write: Write) -> None:
    other = section(protocol={"pairs": {"heldout": 1}, "settings": {"decoder": {"steps": 9}}})
    first = write("a", first=section(), second=section())
    with pytest.raises(RequestError) as refused:
        compare(first, write("b", first=other, second=other))
    assert str(refused.value).count("first, second: ") == 3  # pairs, steps, grid


def test_sections_of_other_pairs_are_refused_where_their_protocol_does_not_tell(
    write: Write,
) -> None:
    silent = section(protocol={"pairs": "all", "split": "heldout"})
    a, b = (write(f"{seed}", Options(seed=seed), first=silent) for seed in (0, 1))
    with pytest.raises(RequestError, match=r"first: seed is 0 .* and 1 .*other's --seed"):
        compare(a, b)
    steady = replace(silent, depends=())
    compare(write("c", Options(seed=0), first=steady), write("d", Options(seed=1), first=steady))


def test_intervals_are_apart_or_not() -> None:
    a, b = Figure(0.4, 0.3, 0.5, 9), Figure(0.6, 0.5, 0.7, 9)
    assert apart(a, b) == apart(b, a) == "overlap"
    c = replace(b, low=0.51)
    assert apart(a, c) == apart(c, a) == "apart"
    assert apart(Figure(0.2, None, None, 1), a) == "apart"
    assert difference(b, a) == "-0.200" and difference(a, b) == "+0.200"
    assert difference(a, replace(a, value=0.39999)) == "0.000"


def test_what_is_no_report_is_told(write: Write, tmp_path: Path) -> None:
    good, bad = write("a", first=section()), tmp_path / "bad.json"
    with pytest.raises(RequestError, match=r"bad\.json cannot be read .*No such file"):
        compare(good, bad)
    body = json.loads(good.read_text())
    for text, told in (
        ("{", "damaged or no report"),
        ("[]", "damaged or no report"),
        (json.dumps({**body, "format": 1}), f"format 1, and only {FORMAT}"),
        (good.read_text().replace("0.35", '"<b>"'), "damaged"),
        (good.read_text().replace("emoji-some.png", "../secret.png"), "no PNG beside"),
    ):
        bad.write_text(text)
        with pytest.raises(RequestError, match=told):
            compare(good, bad)
    with pytest.raises(RequestError, match="no section in common"):
        compare(good, write("c", second=section()))


def test_sections_made_with_other_options_are_left_out(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Options(pairs=96, solver="ddim", batch_size=4)
    write("a", asked, first=section(), second=section(depends=("pairs",)), third=section())
    assert not caplog.text
    same = Options(pairs=96, solver="ddim", batch_size=8)
    assert load(write("a", same, first=section())).keys() == {"first", "second", "third"}
    assert load(write("a", Options(pairs=96), first=section())).keys() == {"first", "second"}
    assert "'third' is left out, it was made with solver ddim (now None)" in caplog.text
    assert "'first'" not in caplog.text  # it is made anew
    path = write("a", Options(pairs=96), "m2", third=section())
    assert load(path).keys() == {"third"} and "made with model m1 (now m2)" in caplog.text
    path = write("a", Options(pairs=96), "m2", "d2", first=section())
    assert load(path).keys() == {"first"} and "made with data d1 (now d2)" in caplog.text
    path.write_text(path.read_text().replace(f'"format": {FORMAT}', '"format": 1'))
    assert load(write("a", second=section())).keys() == {"second"}
    assert "replaced:" in caplog.text and "format 1" in caplog.text


def test_a_section_with_intervals_of_its_own_stays(write: Write) -> None:
    own = section().protocol | {"bootstrap": "halves"}
    write("a", first=section(protocol=own))
    body = json.loads(write("a", second=section()).read_text())
    assert body["sections"].keys() == {"first", "second"}
    assert body["sections"]["first"]["protocol"]["bootstrap"] == "halves"


class Page(HTMLParser):
    """The tags of a document with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_escaped_and_loads_nothing(write: Write) -> None:
    rows = {NASTY: {NASTY: Figure(0.5, 0.4, 0.6, 9, "%")}}
    nasty = section(
        title=NASTY, notes=(NASTY,), protocol={NASTY: {NASTY: NASTY}, "b": {"c": {"d": NASTY}}},
        subject={"clip": NASTY}, rows=rows, shown={"some": (NASTY,)},
    )  # fmt: skip
    path = write("a", model=NASTY, first=nasty, second=section())
    text = path.with_suffix(".html").read_text()
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    loaded = [a[k] or "" for _, a in page.tags for k in ("src", "href", "srcset") if k in a]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in loaded)
    assert not re.search(r"url\(|@import", text) and "default-src 'none'" in text
    shown = page.text.replace("`", "").count(NASTY.replace("`", ""))
    # Contents, heading, note, row, column, caption, four in the protocol, command, model, clip, and
    # the model at the top; once more command and model of the second section.
    assert shown == 16
    assert NASTY in [a.get("aria-label") for _, a in page.tags]
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {value[1:] for value in loaded if value.startswith("#")} <= ids
    picture = next(value for value in loaded if value.startswith("data:"))
    bytes_ = base64.b64decode(picture.partition(",")[2])
    assert bytes_ == (path.parent / "emoji-some.png").read_bytes()


def test_html_shows_figures_intervals_and_what_is_missing(write: Write) -> None:
    path = write("a", first=section())
    text = path.with_suffix(".html").read_text()
    assert "--low:35.0%;--high:45.0%" in text and "<small>[35.0, 45.0]</small>" in text
    assert "a cat</li>" in text and "<dt>decoder</dt><dd>steps 25, grid 1</dd>" in text
    (path.parent / "emoji-some.png").unlink()
    assert "emoji-some.png was not beside the report" in write_html(path).read_text()


@pytest.mark.parametrize("page", ["README.md", "ldm/weights/emoji/README.md"])
def test_the_pages_show_the_report(page: str) -> None:
    results = ROOT / "results" / "emoji.json"
    if json.loads(results.read_text())["format"] == 1:
        pytest.skip("results/emoji.json was written before reports had cards")
    text = (ROOT / page).read_text()
    shown = text.partition(readme.MARKS[0])[2].partition(readme.MARKS[1])[0].strip().splitlines()
    assert shown == readme.block(ROOT / page, results), "python scripts/evaluate.py readme"


MAIN = (
    readme.Main("first", "all", "share", "right", (readme.Beside("chance", "chance", "share"),)),
)


def test_the_main_figures_are_put_between_the_marks(write: Write, tmp_path: Path) -> None:
    path, page = write("results", first=section()), tmp_path / "README.md"
    page.write_text(f"above\n{readme.MARKS[0]}\nstale\n{readme.MARKS[1]}\nbelow\n")
    readme.update(page, path, MAIN)
    text = page.read_text()
    assert "| right | 40.0 % [35.0, 45.0] | 96 | chance 10.0 % |" in text.splitlines()
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "stale" not in text
    assert "](results/emoji.md)" in text
    readme.update(page, path, MAIN)
    assert page.read_text() == text


@pytest.mark.parametrize("text", ["none", readme.MARKS[0], "".join(reversed(readme.MARKS))])
def test_a_page_without_its_marks_is_left_alone(write: Write, tmp_path: Path, text: str) -> None:
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(ConfigError, match="once each"):
        readme.update(page, write("results", first=section()), MAIN)
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"section": "frist"}, "no section 'frist'. Did you mean 'first'"),
        ({"row": "al"}, "no row 'al' in 'first'. Did you mean 'all'"),
        ({"column": "shar"}, "no column 'shar' in 'first'. Did you mean 'share'"),
    ],
)
def test_a_missing_main_figure_is_told(write: Write, change: dict[str, str], told: str) -> None:
    with pytest.raises(RequestError, match=re.escape(told)):
        readme.figures(write("a", first=section()), [MAIN[0]._replace(**change)])
