"""Pieces of a text are the text: no character is broken, nothing of a stop string gets out."""

from __future__ import annotations

from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from sensorium.infer.pieces import Pieces
from sensorium.text import Tokenizer
from sensorium.text.training import train_byte_level_bpe, train_wordpiece

TEXTS = (
    "The quick brown fox jumps over the lazy dog; don't ask why. It 's 3.5 km, isn't it?",
    "今天天气很好，我们去公园玩。这家酒店的房间很干净，服务也不错。",
    "Größe, naïve, 👩‍👩‍👧 and 🎈🎈 \n\n\tEnd.",
)


def sentencepiece() -> Tokenizer:
    """Pieces with a mark for spaces and single bytes for what is not in the vocabulary, as Llama's has."""
    words = ["▁The", "▁", "▁quick", "qu", "ick", "The", "▁br", "own", "天", "气", "T", "h", "e", "o", "n", "t", "."]
    pieces = [("<unk>", 0.0), *((f"<0x{n:02X}>", -20.0) for n in range(256)), *((word, -2.0) for word in words)]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))  # type: ignore[call-arg]
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend, {"unk_token": "<unk>"}, {})


TOKENIZERS = {
    "bytes": train_byte_level_bpe(TEXTS * 3, 300),
    "sentencepiece": sentencepiece(),
    "wordpiece": train_wordpiece(TEXTS * 3, 150),
}


def added(tokenizer: Tokenizer, before: list[int], after: list[int]) -> str:
    return tokenizer.decode(before + after)[len(tokenizer.decode(before)) :]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=st.text(st.sampled_from("".join(TEXTS)), max_size=40), cut=st.integers(0, 40), stops=st.data())
def test_pieces_of_a_text_make_the_text_up_to_the_first_stop_string(
    kind: str, text: str, cut: int, stops: st.DataObject
) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = tokenizer.encode_plain(text)
    before, after = tokens[:cut], tokens[cut:]
    while before and tokenizer.decode(before).endswith("\ufffd"):  # a prompt is a text: it ends with a character
        after.insert(0, before.pop())
    whole = added(tokenizer, before, after)
    parts = [whole[i:j] for i in range(len(whole)) for j in range(i + 1, min(i + 5, len(whole)) + 1)]
    chosen = tuple(stops.draw(st.lists(st.sampled_from(parts), max_size=3))) if parts else ()
    pieces = Pieces(tokenizer, before, chosen)
    given_out = []
    for token_id in after:
        stopped = pieces.add(token_id)
        given_out.append(pieces.take())
        if stopped:
            break
    pieces.end()
    given_out.append(pieces.take())
    found = [(whole.index(stop) + len(stop), whole.index(stop)) for stop in chosen]
    _, end = min(found, default=(0, len(whole)))  # the one that is complete first
    assert "".join(given_out) == pieces.text == whole[:end]
    assert pieces.stopped == bool(chosen)


@given(tokens=st.lists(st.integers(0, 255), max_size=12))
def test_bytes_that_make_no_character_come_out_as_the_tokenizer_decodes_them(tokens: list[int]) -> None:
    tokenizer = TOKENIZERS["bytes"]
    byte_ids = [token_id for token_id in range(256) if tokenizer.id(tokenizer.token(token_id)) == token_id]
    ids = [byte_ids[n] for n in tokens]
    pieces = Pieces(tokenizer, [])
    shown = ""
    for token_id in ids:
        pieces.add(token_id)
        shown += pieces.take()
    pieces.end()
    assert shown + pieces.take() == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_a_character_of_several_tokens_comes_whole(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = tokenizer.encode_plain("🦉")
    assert len(tokens) > 2
    pieces = Pieces(tokenizer, [])
    taken = []
    for token_id in tokens:
        pieces.add(token_id)
        taken.append(pieces.take())
    assert [piece.strip() for piece in taken if piece.strip()] == ["🦉"]


def test_what_a_stop_string_may_begin_with_is_kept_back_until_it_does_not() -> None:
    tokenizer = TOKENIZERS["bytes"]
    pieces = Pieces(tokenizer, [], ["qu!"])
    taken: list[Any] = []
    for letter in "quoqu":
        pieces.add(tokenizer.encode_plain(letter)[0])
        taken.append(pieces.take())
    pieces.end()
    assert [*taken, pieces.take()] == ["", "", "quo", "", "", "qu"]


def test_a_fork_goes_on_by_itself() -> None:
    tokenizer = TOKENIZERS["bytes"]
    first = Pieces(tokenizer, [], ["z"])
    first.add(tokenizer.encode_plain("a")[0])
    second = first.fork()
    assert second.add(tokenizer.encode_plain("z")[0])
    assert not first.add(tokenizer.encode_plain("b")[0])
    assert (first.text, second.text) == ("ab", "a")
