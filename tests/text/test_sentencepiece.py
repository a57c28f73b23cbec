"""SentencePiece models: the pieces of the library itself, and the ids of `transformers` for every published form."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.errors import CheckpointError, UsageError
from sensorium.storage import read_json, write_json, write_text
from sensorium.text import open_tokenizer
from sensorium.text.sentencepiece import backend_of, read_pieces

HAN = "今天气很好我们去公园吃饭看书学习中文翻译模型字语言机器"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Train = Callable[..., Path]


def sentences(seed: int, count: int) -> list[str]:
    """Made-up words of English syllables, and Chinese characters in any order."""
    chance = random.Random(seed)
    syllables = "the ing er over and ly un re ka to mi ren shu wor tion".split()
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(300)]
    signs = "<>/.,!?0123456789"
    return [
        " ".join(chance.choices(words, k=chance.randint(3, 12))) + chance.choice(signs)
        if chance.random() < 0.5
        else "".join(chance.choices(HAN, k=chance.randint(4, 15))) + "。" + chance.choice(LETTERS)
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """A function that learns a model once for each way to learn it."""
    learned: dict[str, Path] = {}

    def learn(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in learned:
            prefix = tmp_path_factory.mktemp("pieces") / "m"
            size = 500 + (256 if options.get("byte_fallback") else 0)
            sentencepiece.SentencePieceTrainer.train(
                **{
                    "sentence_iterator": iter(sentences(options.pop("seed", 0), 1500)), "model_prefix": str(prefix),
                    "vocab_size": size, "hard_vocab_limit": False, "character_coverage": 1.0, "num_threads": 1,
                    "minloglevel": 3, **options,
                }
            )  # fmt: skip
            learned[key] = prefix.with_suffix(".model")
        return learned[key]

    return learn


ODD = ["  ", "▁", "\n", "\t", "\u00e9", "e\u0301", "ﬁ", "Ａ", "\u3000", "\u00a0", "ß", "🦊", "ガ", "½", "Ⅳ", "'"]
ODD += ["<s", "</s", "XX", "<0x41"]
TEXTS = st.lists(st.sampled_from([*LETTERS, *HAN, *ODD, " ", " ", ".", "The", "over"]), max_size=30).map("".join)
WAYS: list[dict[str, Any]] = [
    {"model_type": algorithm, "normalization_rule_name": rule, **more}
    for algorithm in ("unigram", "bpe")
    for rule, more in (
        ("nmt_nfkc", {}),
        ("identity", {}),
        ("nmt_nfkc_cf", {"byte_fallback": True}),
        ("identity", {"byte_fallback": True, "remove_extra_whitespaces": False}),
        ("nmt_nfkc", {"add_dummy_prefix": False}),
        ("nmt_nfkc", {"user_defined_symbols": ["XX", "<X>"]}),
        ("identity", {"split_by_whitespace": False, "pad_id": 3}),
    )
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(str(value) for value in way.values()))
@given(text=TEXTS)
@example(text=" ".join(sentences(5, 40)))
@settings(max_examples=40)
def test_texts_become_the_pieces_of_the_library_and_texts_again(train: Train, way: dict[str, Any], text: str) -> None:
    path = train(**way)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ours = backend_of(read_pieces(path))
    expected = theirs.encode(text)
    assert ours.encode(text, add_special_tokens=False).ids == expected
    known = [piece for piece in expected if not theirs.is_unknown(piece)]
    assert ours.decode(known) == theirs.decode(known)


def folder(path: Path, model: Path, name: str, **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    shutil.copy(model, path / name)
    if config:
        write_json(path / "tokenizer_config.json", config)
    return path


PLAIN = [*sentences(7, 30), "今天天气很好，我们去公园。", "The overing, and  re-doing: 12!", "unreal 🦊 world", ""]
"""What both `transformers` and the library read alike."""


def same(ours: Any, theirs: Any, texts: list[str] = PLAIN) -> None:
    for text in texts:
        assert ours.encode(text).token_ids == theirs(text)["input_ids"], text
        ids = ours.encode(text).token_ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert ours.encode(texts[0], texts[1]).token_ids == theirs(texts[0], texts[1])["input_ids"]


def saved_opens_alike(ours: Any, path: Path, texts: list[str] = PLAIN) -> None:
    """In ours and in `transformers`."""
    path.mkdir()
    ours.save(path)
    again, theirs = open_tokenizer(path), transformers.AutoTokenizer.from_pretrained(path)
    for text in texts:
        assert again.encode(text).token_ids == ours.encode(text).token_ids == theirs(text)["input_ids"], text
        assert again.decode(again.encode(text).token_ids) == ours.decode(ours.encode(text).token_ids)
    assert again.special_tokens == ours.special_tokens
    assert again.languages == ours.languages


def test_t5_reads_spans_and_ends_its_texts(train: Train, tmp_path: Path) -> None:
    model = train(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    ours = open_tokenizer(folder(tmp_path / "t5", model, "spiece.model"))
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path / "t5")
    texts = [*PLAIN, "The <extra_id_0> over <extra_id_1>.", "<extra_id_99>"]
    same(ours, theirs, texts)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()
    assert (ours.id("<extra_id_99>"), ours.id("<extra_id_0>")) == (pieces, pieces + 99)
    assert (ours.pad_id, ours.eos_id, ours.unk_id, ours.bos_id) == (0, 1, 2, None)
    saved_opens_alike(ours, tmp_path / "saved", texts)


def test_mt5_has_no_places_for_spans_of_its_own(train: Train, tmp_path: Path) -> None:
    model = train(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True)
    ours = open_tokenizer(folder(tmp_path, model, "spiece.model", extra_ids=0, tokenizer_class="T5Tokenizer"))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert ours.vocabulary_size == theirs.get_piece_size()
    for text in PLAIN:
        assert ours.encode_plain(text) == theirs.encode(text)


def test_xlm_r_has_the_order_of_fairseq(train: Train, tmp_path: Path) -> None:
    model = train()
    ours = open_tokenizer(folder(tmp_path / "xlmr", model, "sentencepiece.bpe.model"))
    theirs = transformers.XLMRobertaTokenizer.from_pretrained(tmp_path / "xlmr")
    same(ours, theirs, [*PLAIN, "The <mask> over"])
    saved_opens_alike(ours, tmp_path / "saved", [*PLAIN, "The <mask> over"])
    direct = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert ours.encode_plain(PLAIN[0]) == [piece + 1 if piece else 3 for piece in direct.encode(PLAIN[0])]
    assert ours.mask_id == direct.get_piece_size() + 1


@pytest.mark.parametrize(("kind", "many"), [("MBartTokenizer", 25), ("MBart50Tokenizer", 52)])
def test_mbart_frames_a_text_by_its_language(train: Train, tmp_path: Path, kind: str, many: int) -> None:
    model = train()
    ours = open_tokenizer(
        folder(tmp_path / "mbart", model, "sentencepiece.bpe.model", tokenizer_class=kind, src_lang="de_DE")
    )
    direct = sentencepiece.SentencePieceProcessor(model_file=str(model))
    size = direct.get_piece_size()
    assert len(ours.languages) == many
    assert [ours.id(language) for language in ours.languages] == list(range(size + 1, size + 1 + many))
    assert ours.mask_id == size + 1 + many
    for language in ("de_DE", "zh_CN"):
        with ours.in_language(language):
            ids = ours.encode(PLAIN[0]).token_ids
        mark, plain = ours.id(language), [piece + 1 if piece else 3 for piece in direct.encode(PLAIN[0])]
        assert ids == ([*plain, 2, mark] if kind == "MBartTokenizer" else [mark, *plain, 2])
    assert ours.decode(ids) == direct.decode(direct.encode(PLAIN[0]))
    saved_opens_alike(ours, tmp_path / "saved", sentences(7, 20))  # `transformers`' own class normalises nothing
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / "saved", src_lang="de_DE")
    assert theirs(PLAIN[1])["input_ids"] == ours.encode(PLAIN[1]).token_ids
    theirs.src_lang = "zh_CN"
    with ours.in_language("zh_CN"):
        assert theirs(PLAIN[1])["input_ids"] == ours.encode(PLAIN[1]).token_ids
    with pytest.raises(UsageError, match="'zh' is not a language of this tokenizer"), ours.in_language("zh"):
        pass


def test_llama_begins_its_texts_and_spells_in_bytes_what_it_has_no_piece_for(train: Train, tmp_path: Path) -> None:
    model = train(
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False
    )
    listed = {"added_tokens_decoder": {"0": {"content": "<unk>", "special": True}}}
    path = folder(tmp_path / "llama", model, "tokenizer.model", tokenizer_class="LlamaTokenizer", **listed)
    theirs = transformers.LlamaTokenizer.from_pretrained(path, add_bos_token=True)
    ours = open_tokenizer(path)
    texts = [*PLAIN, "two  spaces\nand a line", "Ａ wide 🦊 letter"]
    same(ours, theirs, texts)
    assert ours.encode("a").token_ids[0] == ours.bos_id == 1
    assert ours.decode(ours.encode_plain("spelt 🦊ß")) == "spelt 🦊ß"
    saved_opens_alike(ours, tmp_path / "saved", texts)


def test_tokens_listed_beside_a_model_have_the_numbers_that_are_said(train: Train, tmp_path: Path) -> None:
    model = train(model_type="bpe", byte_fallback=True)
    size = sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()
    path = folder(tmp_path, model, "tokenizer.model")
    write_json(path / "added_tokens.json", {"<|begin|>": size, "<|end|>": size + 1})
    ours = open_tokenizer(path)
    assert ours.encode("<|begin|>the<|end|>").token_ids[1] == size
    write_json(path / "added_tokens.json", {"<|begin|>": size + 5})
    with pytest.raises(
        CheckpointError, match=r"'<\|begin\|>' should have the number \d+, and the vocabulary has it at"
    ):
        open_tokenizer(path)


@pytest.fixture
def marian(train: Train, tmp_path: Path) -> Callable[..., Path]:
    """A folder as OPUS-MT publishes it; some pieces of the models have no number, where it is not complete."""

    def make(*, separate: bool, complete: bool = False) -> Path:
        path = folder(tmp_path / "marian", train(seed=1), "source.spm", separate_vocabs=separate)
        shutil.copy(train(seed=2), path / "target.spm")
        sides = [read_pieces(path / name).texts for name in ("source.spm", "target.spm")]
        model = sentencepiece.SentencePieceProcessor(model_file=str(path / "source.spm"))
        left_out = set() if complete else set(model.encode(PLAIN[0], out_type=str)[1:3])
        tables = [[*sides[0], *sides[1]]] if not separate else [list(side) for side in sides]
        for name, pieces in zip(("vocab.json", "target_vocab.json"), tables, strict=False):
            ordered = dict.fromkeys(["</s>", "<unk>", "<pad>", ">>deu<<", *reversed(pieces)])
            kept = [piece for piece in ordered if piece not in left_out | {"<s>"}]
            write_json(path / name, {piece: number for number, piece in enumerate(kept)})
        return path

    return make


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize("separate", [False, True])
def test_marian_reads_by_one_model_and_writes_by_the_other(
    marian: Callable[..., Path], tmp_path: Path, separate: bool
) -> None:
    path = marian(separate=separate)
    ours, theirs = open_tokenizer(path), transformers.MarianTokenizer.from_pretrained(path)
    for texts in (PLAIN[:-1], [">>deu<< " + PLAIN[0]] if not separate else []):
        for text in texts:
            expected = theirs(text)["input_ids"]
            assert ours.encode(text).token_ids == expected
            targets = theirs(text_target=text)["input_ids"]
            assert ours.target.encode(text).token_ids == targets
            assert ours.decode(targets) == theirs.decode(targets, skip_special_tokens=True)
    assert ours.unk_id in ours.encode_plain(PLAIN[0])  # a piece without a number
    assert [encoding.token_ids for encoding in ours.encode_batch(PLAIN)] == [ours.encode(t).token_ids for t in PLAIN]
    windows = ours.windows(" ".join(PLAIN), max_length=40, stride=5)
    assert [window.token_ids[:-1] for window in windows][1][:5] == windows[0].token_ids[-6:-1]
    (tmp_path / "saved").mkdir()
    ours.save(tmp_path / "saved")
    for name in ("source.spm", "target.spm", "vocab.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (path / name).read_bytes()
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again(PLAIN[0])["input_ids"] == open_tokenizer(tmp_path / "saved").encode(PLAIN[0]).token_ids


@pytest.mark.parametrize("form", ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "source.spm"])
def test_what_spells_a_special_token_is_text_when_strangers_wrote_it(
    marian: Callable[..., Path], train: Train, tmp_path: Path, form: str
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "spiece.model": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        "tokenizer.model": {"model_type": "bpe", "byte_fallback": True},
    }
    path = (
        marian(separate=False, complete=True)
        if form == "source.spm"
        else folder(tmp_path, train(**ways.get(form, {})), form)
    )
    tokenizer = open_tokenizer(path)
    text = "the</s>over <0x41> ＜/s＞<unk>"  # NFKC makes the wide letters narrow
    assert tokenizer.eos_id in tokenizer.encode_plain(text)
    with tokenizer.specials_as_text():
        plain = tokenizer.encode_plain(text)
    assert not {tokenizer.eos_id, tokenizer.unk_id} & set(plain)
    wide = tokenizer.encode_plain("＜/s＞")
    assert tokenizer.eos_id not in wide
    assert tokenizer.decode(plain).replace(" ", "") == "the</s>over<0x41></s><unk>"


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("spiece.model", b"not a model at all", "not a SentencePiece model"),
        ("spiece.model", b"", "0 pieces for the unknown"),
        ("tokenizer.model", b"\x0a\xff\xff\xff\xff\x0f", "a field of 4,294,967,295 bytes"),
        ("sentencepiece.bpe.model", b"\x0a\x80", "a number without an end"),
        ("source.spm", b"\x0b", "unknown kind 3"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_model_is_one_sentence_with_its_name(
    tmp_path: Path, name: str, data: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(data)
    if name == "source.spm":
        (tmp_path / "target.spm").write_bytes(data)
        write_json(tmp_path / "vocab.json", {"</s>": 0, "<unk>": 1, "<pad>": 2})
    with pytest.raises(CheckpointError, match=name) as error:
        open_tokenizer(tmp_path)
    assert sentence in str(error.value)


@given(data=st.binary(max_size=60), place=st.integers(0, 2000))
@settings(max_examples=60)
def test_a_damaged_model_is_refused_or_read_and_nothing_else(train: Train, data: bytes, place: int) -> None:
    whole = train(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    path = whole.with_name("spiece.model")
    original = whole.read_bytes()
    path.write_bytes(original[:place] + data + original[place + len(data) :])
    with suppress(CheckpointError):
        assert len(open_tokenizer(path.parent).encode("the over 今天"))


def test_a_class_that_reads_such_a_file_otherwise_is_named(train: Train, tmp_path: Path) -> None:
    path = folder(tmp_path, train(), "spiece.model", tokenizer_class="XLNetTokenizer")
    with pytest.raises(CheckpointError, match="its tokenizer_class is 'XLNetTokenizer'; known for such a file are"):
        open_tokenizer(path)


def test_vocabularies_of_marian_that_contradict_themselves_are_refused(marian: Callable[..., Path]) -> None:
    path = marian(separate=False)
    numbers = read_json(path / "vocab.json")
    for wrong, sentence in (
        ({**numbers, "the": numbers["</s>"]}, "two pieces have one number"),
        ({piece: number for piece, number in numbers.items() if piece != "<pad>"}, "the special token <pad>"),
        ({**numbers, "the": "3"}, "a map of pieces and their numbers"),
    ):
        write_json(path / "vocab.json", wrong)
        with pytest.raises(CheckpointError, match=sentence):
            open_tokenizer(path)
    write_text(path / "vocab.json", "[]")
    with pytest.raises(CheckpointError, match="a map of pieces and their numbers"):
        open_tokenizer(path)


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize("separate", [False, True])
def test_a_checkpoint_of_marian_comes_with_its_pair_and_is_saved_with_it(
    marian: Callable[..., Path], tmp_path: Path, separate: bool
) -> None:
    path = marian(separate=separate)
    sizes = [len(read_json(path / name)) for name in ("vocab.json", "target_vocab.json") if (path / name).is_file()]
    config = transformers.MarianConfig(
        vocab_size=sizes[0], decoder_vocab_size=sizes[-1], share_encoder_decoder_embeddings=not separate, d_model=8,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8,
        decoder_ffn_dim=8, max_position_embeddings=64, pad_token_id=2, decoder_start_token_id=2, eos_token_id=0,
        forced_eos_token_id=0,
    )  # fmt: skip
    transformers.MarianMTModel(config).save_pretrained(path)
    opened = open_checkpoint(path)
    tokenizer = opened.require_tokenizer()
    assert tokenizer.target.vocabulary_size == sizes[-1]
    save_checkpoint(tmp_path / "saved", opened.model, tokenizer, family="marian")
    again = open_checkpoint(tmp_path / "saved").require_tokenizer()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert isinstance(theirs, transformers.MarianTokenizer)
    for text in PLAIN:
        assert again.encode(text).token_ids == theirs(text)["input_ids"]
        assert again.target.encode(text).token_ids == theirs(text_target=text)["input_ids"]
