"""Windows cut as they are read hold what the tokenizers library cuts from the whole text."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from sensorium.errors import DataError
from sensorium.infer import windows as module
from sensorium.infer.windows import frame, windows
from sensorium.text import Encoding, Tokenizer
from sensorium.text.training import train_byte_level_bpe, train_wordpiece

CORPUS = ["the unbelievable fox jumps, replaying and undoing; 今天天气很好。 Anna's naïve café!"] * 3
WORDS = st.sampled_from(
    ["the", "unbelievable", "fox", "jumps,", "undoing", "今天天气", "café!", "zzz", "\n\n", "[MASK]"]
)
TEXT = st.one_of(st.lists(WORDS, min_size=least, max_size=60) for least in (1, 30)).map(" ".join)


def framed(bpe: Tokenizer) -> Tokenizer:
    """RoBERTa's framing around a byte-level vocabulary."""
    backend = tokenizers.Tokenizer.from_str(bpe.backend.to_str())
    backend.add_special_tokens(["<s>", "</s>"])
    end, start = (("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>")))
    backend.post_processor = processors.RobertaProcessing(end, start)
    return Tokenizer(backend, {"cls_token": "<s>", "sep_token": "</s>"}, {})


BPE = train_byte_level_bpe(CORPUS, 400)
TOKENIZERS = {"bert": train_wordpiece(CORPUS, 120), "gpt2": BPE, "roberta": framed(BPE)}


@pytest.fixture(autouse=True)
def _small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECTION", 60)
    monkeypatch.setattr(module, "_LOOK_BACK", 40)


def words_from_zero(encoding: Encoding) -> list[int | None]:
    """Which tokens share a word, whatever the words are called."""
    names: dict[int, int] = {}
    return [None if word is None else names.setdefault(word, len(names)) for word in encoding.word_ids]


def same(ours: list[Encoding], expected: list[Encoding]) -> None:
    assert [w.token_ids for w in ours] == [w.token_ids for w in expected]
    assert [w.segment_ids for w in ours] == [w.segment_ids for w in expected]
    assert [w.sequence_ids for w in ours] == [w.sequence_ids for w in expected]


def body(encoding: Encoding, sequence: int) -> list[tuple[int, tuple[int, int]]]:
    """Token ids and characters of one of the texts."""
    rows = zip(encoding.token_ids, encoding.offsets, encoding.sequence_ids, strict=True)
    return [(token_id, span) for token_id, span, of in rows if of == sequence]


def joined(cut: list[Encoding], sequence: int, overlap: int) -> list[tuple[int, tuple[int, int]]]:
    """The body of a text, put together again from its windows."""
    first, *rest = [body(encoding, sequence) for encoding in cut]
    return [*first, *(token for later in rest for token in later[overlap:])]


@pytest.mark.parametrize("family", TOKENIZERS)
@given(text=TEXT, overlap=st.integers(0, 6))
def test_of_one_text(family: str, text: str, overlap: int) -> None:
    tokenizer = TOKENIZERS[family]
    ours = list(windows(tokenizer, text, frame(tokenizer), max_length=16, overlap=overlap))
    expected = tokenizer.windows(text, max_length=16, stride=overlap)
    same(ours, expected)
    assert [words_from_zero(w) for w in ours] == [words_from_zero(w) for w in expected]
    assert joined(ours, 0, overlap) == body(tokenizer.encode(text), 0)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@given(text=TEXT, overlap=st.integers(0, 4))
def test_of_a_text_that_follows_another(family: str, text: str, overlap: int) -> None:
    tokenizer = TOKENIZERS[family]
    ours = list(windows(tokenizer, text, frame(tokenizer, first="the fox"), max_length=24, overlap=overlap))
    same(ours, tokenizer.windows("the fox", text, max_length=24, stride=overlap))
    assert joined(ours, 1, overlap) == body(tokenizer.encode("the fox", text), 1)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@given(text=TEXT)
def test_of_a_text_that_another_follows(family: str, text: str) -> None:
    tokenizer = TOKENIZERS[family]
    whole = tokenizer.encode(text, "the fox")
    ours = list(windows(tokenizer, text, frame(tokenizer, second="the fox"), max_length=24))
    if len(whole) <= 24:
        same(ours, [whole])
    assert joined(ours, 0, 0) == body(whole, 0)
    assert all(len(window) <= 24 for window in ours)


def test_a_text_without_any_space_is_read_to_its_end() -> None:
    tokenizer = TOKENIZERS["bert"]
    text = "今天天气很好" * 100
    ours = windows(tokenizer, text, frame(tokenizer), max_length=20)
    assert [i for window in ours for i in window.token_ids[1:-1]] == tokenizer.encode_plain(text)


def test_windows_are_cut_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TOKENIZERS["bert"]
    around = frame(tokenizer)
    read = []
    encode = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda text: read.append(len(text)) or encode(text))
    first = next(windows(tokenizer, "the fox jumps, " * 10_000, around, max_length=20))
    assert len(first) == 20
    assert sum(read) < 1000


def test_a_frame_that_fills_the_window_is_refused() -> None:
    tokenizer = TOKENIZERS["bert"]
    with pytest.raises(DataError, match=r"special tokens take .* of the 16 tokens this model reads.*shorten"):
        list(windows(tokenizer, "the fox", frame(tokenizer, first="the fox " * 20), max_length=16))
