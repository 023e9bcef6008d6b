"""The tokenizer and the text tower are open_clip's, to the id and to the last digits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm.conditioning.text_tower import TextTower, TextTowerConfig, is_plain, is_text_tensor
from ldm.conditioning.tokenizer import (
    MERGES_FILE,
    BpeTokenizer,
    clean,
    packaged_merges,
    read_merges,
    write_merges,
)
from ldm.errors import CheckpointError, ConfigError

open_clip = pytest.importorskip("open_clip")

CAPTIONS = [
    "",
    "   \n\t ",
    "a red apple",
    "A Red APPLE, noto style!!!  twice   spaced",
    "it's we've they'll I'd o'clock",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m \u0130stanbul stra\u00dfe",
    "\u732b\u3068\u72ac \u05d7\u05ea\u05d5\u05dc \u0642\u0637\u0629",
    "\U0001f469\U0001f3fd\u200d\U0001f680 \U0001f1eb\U0001f1ee \u2764\ufe0f",
    "fish &amp;amp; chips &lt;3 &eacute;",
    "\u00e2\u20ac\u0153mojibake\u00e2\u20ac\u009d",
    "1234567 x2 \u00bd \u2163",
    "<start_of_text> in the middle <END_OF_TEXT>",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "word " * 100,
]


@pytest.fixture(scope="module")
def short_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("merges") / MERGES_FILE
    write_merges(path, read_merges(packaged_merges())[: 3000 - 514])
    return path


def test_full_vocabulary_gives_open_clips_ids() -> None:
    ours, theirs = BpeTokenizer(context_length=77), open_clip.SimpleTokenizer()
    assert torch.equal(ours(CAPTIONS), theirs(CAPTIONS))


def test_short_vocabulary_gives_open_clips_ids(short_list: Path) -> None:
    from_prefix = BpeTokenizer(vocab_size=3000, context_length=20)
    from_file = BpeTokenizer(vocab_size=3000, context_length=20, merges_path=short_list)
    theirs = open_clip.SimpleTokenizer(bpe_path=str(short_list), context_length=20)
    assert theirs.vocab_size == 3000
    assert torch.equal(from_prefix(CAPTIONS), theirs(CAPTIONS))
    assert torch.equal(from_file(CAPTIONS), theirs(CAPTIONS))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_open_clips_ids(text: str) -> None:
    assert _ours().encode(text) == _theirs().encode(text)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([*CAPTIONS[2:8], "supercalifragilistic", ","]), max_size=6))
def test_what_is_cut_and_what_is_kept_are_the_whole_text(words: list[str]) -> None:
    text, tokenizer = " ".join(words), _ours()
    cut = tokenizer.truncation(text)
    fits = len(tokenizer.encode(text)) <= tokenizer.context_length - 2
    assert (cut is None) == fits
    if cut is not None:
        assert (cut.kept + cut.lost).replace(" ", "") == clean(text).replace(" ", "")
        assert cut.num_tokens == len(tokenizer.encode(text)) + 2


def test_a_cut_is_told_where_it_falls() -> None:
    tokenizer = BpeTokenizer(context_length=5)
    cut = tokenizer.truncation("A red apple  on a green table", index=7)
    assert cut is not None
    assert (cut.kept, cut.lost) == ("a red apple", "on a green table")
    assert "caption 7 has 9 tokens, the model reads 5" in str(cut)
    assert tokenizer.truncation("a red apple") is None


def test_a_cut_inside_a_word_falls_between_characters() -> None:
    tokenizer = BpeTokenizer(vocab_size=514, context_length=6)  # bytes only
    cut = tokenizer.truncation("\u00e9\u00e9\u00e9")
    assert cut is not None and (cut.kept, cut.lost) == ("\u00e9\u00e9", "\u00e9")


def test_wrong_vocabularies_are_refused(short_list: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="514 to 49408"):
        BpeTokenizer(vocab_size=50000)
    with pytest.raises(CheckpointError, match="does not belong"):
        BpeTokenizer(vocab_size=3001, merges_path=short_list)
    broken = tmp_path / MERGES_FILE
    broken.write_bytes(short_list.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        BpeTokenizer(vocab_size=3000, merges_path=broken)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_text_tower_equals_open_clip(quick_gelu: bool) -> None:
    torch.manual_seed(0)
    text = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 2, "layers": 3}
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    theirs = open_clip.model.CLIP(24, vision, text, quick_gelu=quick_gelu).eval()
    assert is_plain({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True})
    ours = TextTower(TextTowerConfig(**text), embed_dim=24, quick_gelu=quick_gelu)
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if is_text_tensor(k)})
    ids = BpeTokenizer(vocab_size=600, context_length=12)(["a cat", "", "long " * 20])
    tokens, pooled = ours(ids)
    hidden = []
    theirs.ln_final.register_forward_hook(lambda *args: hidden.append(args[2]))
    expected = theirs.encode_text(ids)
    assert (pooled - expected).abs().max() < 1e-5
    assert (tokens - hidden[0]).abs().max() < 1e-5


def test_other_architectures_are_not_taken_for_plain_ones() -> None:
    plain = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"width": 8}}
    assert is_plain(plain)
    assert not is_plain(plain | {"custom_text": True})
    assert not is_plain(plain | {"text_cfg": {"width": 8, "embed_cls": True}})
    assert not is_plain(plain | {"text_cfg": {"hf_model_name": "bert"}})


def test_text_needs_no_open_clip(tmp_path: Path) -> None:
    from ldm.conditioning.clip_training import ClipTaskConfig

    text = TextTowerConfig(context_length=8, vocab_size=600, width=16, heads=1, layers=1)
    sizes = {"embed_dim": 8, "image_size": 16, "vision_width": 16, "vision_layers": 1}
    ClipTaskConfig(**sizes, vision_head_width=16, text=text).build().save(tmp_path / "clip")
    code = (
        "import sys; from ldm.conditioning import Clip\n"
        f"clip = Clip.load({str(tmp_path / 'clip')!r}); clip.text(['a cat']); clip.fingerprint()\n"
        "assert not {'open_clip', 'torchvision', 'timm', 'transformers'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def _ours() -> BpeTokenizer:
    return _CACHE.setdefault("ours", BpeTokenizer(context_length=10))


def _theirs() -> open_clip.SimpleTokenizer:
    return _CACHE.setdefault("theirs", open_clip.SimpleTokenizer())


_CACHE: dict[str, object] = {}
