"""Tokenizers inside GGUF files against the libraries they come from, and llama.cpp's own where it is installed."""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import CheckpointError
from sensorium.text import Tokenizer
from sensorium.text.gguf import BYTE, CONTROL, CUTS, NORMAL, UNKNOWN, USER_DEFINED, tokenizer_from_gguf
from sensorium.text.training import train_byte_level_bpe

WHERE = Path("model.gguf")
TEXTS = (
    "The quick brown fox jumps over the lazy dog's back 1234567 times; I'LL say so, they've said so.",
    "  two spaces\tand\ttabs\r\n\r\n\nlines   \n  (brackets), $5.00 + 10% = <b>5.5</b> ~|^ …",
    "今天天气很好，我们去公园玩。Ünïcödé, Straße, ελληνικά, русский, 日本語123、العربية",
    "emoji 😀👨‍👩‍👧 a\u0301 x² ½ ٣٤ \u00a0nbsp",
    "CamelCaseWORDS and HTTPServer2Go foo_bar2baz",
    "",
    " ",
)


def byte_level(pre: Any, **said: Any) -> dict[str, Any]:
    """Metadata of a vocabulary learnt on the spot."""
    learned = json.loads(train_byte_level_bpe(TEXTS * 3, 500).backend.to_str())["model"]
    tokens = ["<|start|>", "<|end|>", *[token for token in learned["vocab"] if token != "<|endoftext|>"], "<tool>"]
    types = [CONTROL, CONTROL, *[NORMAL] * (len(tokens) - 3), USER_DEFINED]
    merges = [" ".join(merge) for merge in learned["merges"]]
    own = {
        "model": "gpt2", "pre": pre, "tokens": tokens, "token_type": types, "merges": merges, "bos_token_id": 0,
        "eos_token_id": 1, **said,
    }  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in own.items() if value is not None}


def sentencepiece(**said: Any) -> tuple[dict[str, Any], Any]:
    """Metadata of a SentencePiece vocabulary learnt on the spot, and the library's own processor."""
    library = pytest.importorskip("sentencepiece")
    model = BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:5] * 3), model_writer=model, vocab_size=420, model_type="bpe",
        byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity", minloglevel=2,
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        user_defined_symbols=["<tool>"], hard_vocab_limit=False,
    )  # fmt: skip
    theirs = library.SentencePieceProcessor(model_proto=model.getvalue())
    count = theirs.get_piece_size()

    def kind(piece: int) -> int:
        if theirs.is_unknown(piece):
            return UNKNOWN
        if theirs.is_byte(piece):
            return BYTE
        return (
            CONTROL if theirs.is_control(piece) else USER_DEFINED if theirs.id_to_piece(piece) == "<tool>" else NORMAL
        )

    own = {
        "model": "llama", "tokens": [theirs.id_to_piece(piece) for piece in range(count)],
        "scores": [theirs.get_score(piece) for piece in range(count)], "token_type": [*map(kind, range(count))],
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **said,
    }  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in own.items()}, theirs


def opened(metadata: dict[str, Any]) -> Tokenizer:
    return tokenizer_from_gguf(metadata, where=WHERE)


@pytest.mark.parametrize("pre", CUTS)
def test_any_text_comes_back(pre: str) -> None:
    tokenizer = opened(byte_level(pre))
    for text in TEXTS:
        composed = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
        assert tokenizer.decode(tokenizer.encode_plain(text)) == composed


def test_gpt_2_is_cut_as_the_tokenizers_library_does() -> None:
    theirs = train_byte_level_bpe(TEXTS * 3, 500)
    ours = opened(byte_level("gpt-2"))
    for text in TEXTS:
        assert [ours.token(i) for i in ours.encode_plain(text)] == [theirs.token(i) for i in theirs.encode_plain(text)]


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "a 123", ["a", " ", "1", "2", "3"]),
        ("llama-bpe", "I'LL 12345 ok", ["I", "'LL", " ", "123", "45", " ok"]),
        ("qwen2", "I'll 12", ["I", "'ll", " ", "1", "2"]),
        ("gpt-2", "I'll 1234\n x", ["I", "'ll", " 1234", "\n", " x"]),
        ("default", "a+b 12345", ["a", "+", "b", " ", "123", "45"]),
    ],
)
def test_each_cut_is_its_own(pre: str, text: str, pieces: list[str]) -> None:
    cut = opened(byte_level(pre)).backend.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in cut] == pieces


def test_sentencepiece_pieces_are_the_librarys() -> None:
    metadata, theirs = sentencepiece()
    ours = opened(metadata)
    for text in TEXTS[:5]:
        assert ours.encode_plain(text) == theirs.encode(text), text
        assert ours.decode(ours.encode_plain(text)) == text


def test_a_byte_or_a_control_token_written_out_is_text() -> None:
    ours = opened(sentencepiece()[0])
    with ours.specials_as_text():
        for text in ("<0x0A>", "<s>", "</s>", "a</s>b"):
            assert not {1, 2} & set(ours.encode_plain(text))
            assert ours.decode(ours.encode_plain(text)) == text
    assert ours.id("<0x0A>") not in ours.encode_plain("<0x0A>")


def test_framing_is_what_the_file_says_or_its_kind() -> None:
    for metadata, before, after in (
        (byte_level("gpt-2"), [], []),
        (byte_level("llama-bpe"), [0], []),
        (byte_level("llama-bpe", add_bos_token=False), [], []),
        (byte_level("gpt-2", add_bos_token=True, add_eos_token=True), [0], [1]),
    ):
        tokenizer = opened(metadata)
        plain = tokenizer.encode_plain("fox")
        assert tokenizer.encode("fox").token_ids == [*before, *plain, *after]
        assert len(tokenizer.encode("fox", "dog")) == 2 * len(before + after) + len(plain) + len(
            tokenizer.encode_plain("dog")
        )


def test_special_and_own_tokens_are_tokens_and_keep_their_ids() -> None:
    metadata = byte_level("smollm")
    tokenizer = opened(metadata)
    last = len(metadata["tokenizer.ggml.tokens"]) - 1
    assert tokenizer.encode_plain("<|start|><tool><|end|>") == [0, last, 1]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocabulary_size) == (0, 1, last + 1)
    assert tokenizer.special_ids == {0, 1}
    with tokenizer.specials_as_text():
        assert not {0, 1} & set(tokenizer.encode_plain("<|start|><tool><|end|>"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"model": "t5"}, "tokenizer.ggml.model is 't5'; known are gpt2 and llama"),
    "another cut": ({"pre": "tomorrow"}, "tokenizer.ggml.pre is 'tomorrow'; known are default"),
    "a cut that is a list": ({"pre": ["smollm"]}, "tokenizer.ggml.pre is"),
    "a key of tomorrow": ({"lowercase": True}, "'tokenizer.ggml.lowercase' is not known"),
    "no tokens": ({"tokens": []}, "tokenizer.ggml.tokens is not a list of texts"),
    "numbers for tokens": ({"tokens": [1, 2]}, "tokenizer.ggml.tokens is not a list of texts"),
    "a token twice": ({"tokens": ["a", "b", "a"], "token_type": None}, "'a' stands 2 times"),
    "an endless token": ({"tokens": ["a" * 5000], "token_type": None}, "a token of 5,000 characters"),
    "fewer types": ({"token_type": [1]}, "does not say one type for each token"),
    "no merges": ({"merges": None}, "tokenizer.ggml.merges is not a list of texts"),
    "a merge of nothing": ({"merges": ["zzz qqq"]}, "'zzz qqq' does not join two tokens to a third"),
    "a merge of one": ({"merges": ["a"]}, "'a' does not join two tokens to a third"),
}


@pytest.mark.parametrize(("said", "message"), REFUSED.values(), ids=REFUSED)
def test_a_tokenizer_that_cannot_be_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        opened(byte_level(**{"pre": "smollm", **said}))


def test_scores_that_are_too_few_are_refused() -> None:
    metadata, _ = sentencepiece(scores=[1.0])
    with pytest.raises(CheckpointError, match="does not say one score for each token"):
        opened(metadata)


# --- against llama.cpp ---------------------------------------------------------------------------------------------


def their_tokens(path: Path, metadata: dict[str, Any], texts: Iterable[str]) -> list[list[int]]:
    """llama.cpp's tokens for texts, from a file that holds nothing but a vocabulary."""
    gguf, llama_cpp = pytest.importorskip("gguf"), pytest.importorskip("llama_cpp")
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
        add(32)
    writer.add_head_count(2)
    writer.add_block_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return [model.tokenize(text.encode(), add_bos=False, special=False) for text in texts]


@pytest.mark.parametrize("pre", [name for name in CUTS if name != "llama3"])
@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_byte_level_tokens_are_llama_cpps(pre: str, tmp_path: Path) -> None:
    metadata = byte_level(pre)
    ours = opened(metadata)
    composed = [unicodedata.normalize("NFC", text) for text in TEXTS]  # llama.cpp never composes
    expected = their_tokens(tmp_path / "vocabulary.gguf", metadata, composed)
    with ours.specials_as_text():
        for text, tokens in zip(composed, expected, strict=True):
            assert ours.encode_plain(text) == tokens, text


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_sentencepiece_tokens_are_llama_cpps(tmp_path: Path) -> None:
    metadata, _ = sentencepiece()
    ours = opened(metadata)
    texts = [text for text in TEXTS if text]
    for text, tokens in zip(texts, their_tokens(tmp_path / "vocabulary.gguf", metadata, texts), strict=True):
        assert ours.encode_plain(text) == tokens, text
