"""What published checkpoints add to a SentencePiece model: tokens around a text, other numbers, languages, spans.

Which form a folder has is told by its file (``spiece.model``, ``sentencepiece.bpe.model``, ``tokenizer.model``,
``source.spm``) and, where two share a name, by the ``tokenizer_class`` that lies beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from sensorium.errors import CheckpointError
from sensorium.storage import read_object
from sensorium.text.opening import Opened
from sensorium.text.sentencepiece import CONTROL, UNIGRAM, UNKNOWN, backend_of, read_pieces

MBART_LANGUAGES = tuple(
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX "
    "ro_RO ru_RU si_LK tr_TR vi_VN zh_CN".split()
)
LANGUAGES: dict[str, tuple[str, ...]] = {
    "MBartTokenizer": MBART_LANGUAGES,
    "MBart50Tokenizer": (
        *MBART_LANGUAGES,
        *"af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE "
        "ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI".split(),
    ),
}
"""The languages of a published class, in the order of their tokens (Liu et al., 2020; Tang et al., 2020)."""
FRAMES = {"MBartTokenizer": "$A </s> {language}", "MBart50Tokenizer": "{language} $A </s>"}
"""What stands around a text of a language."""
CLASSES = {"mbart": "MBartTokenizer", "xlm-roberta": "XLMRobertaTokenizer"}
"""``model_type`` → the class of a folder that names none."""
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
"""The first tokens of fairseq's vocabularies, in place of SentencePiece's first three."""


def open_spiece(path: Path, config: Mapping[str, Any]) -> Opened:
    """T5's: the model's pieces, then ``<extra_id_99>`` to ``<extra_id_0>``, which stand for spans of a text."""
    check_class(path, config, "T5Tokenizer", "MT5Tokenizer")
    pieces = read_pieces(path)
    backend = backend_of(pieces)
    count = config.get("extra_ids", 100)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 10_000:
        raise CheckpointError(f"{path.parent}: extra_ids is {count!r}; a whole number up to 10,000 is expected")
    there = frozenset(pieces.texts)
    spans = [text for number in range(count - 1, -1, -1) if (text := f"<extra_id_{number}>") not in there]
    add(backend, pieces.of_kind(UNKNOWN, CONTROL))
    add(backend, spans)
    names = {"eos_token": "</s>", "unk_token": pieces.texts[pieces.unknown], "pad_token": "<pad>"}
    return Opened(framed(backend, "$A </s>", "$A </s> $B </s>", path), names, unnamed(config))


def open_fairseq(path: Path, config: Mapping[str, Any]) -> Opened:
    """XLM-R's and mBART's: SentencePiece's first three pieces give way to four, languages and ``<mask>`` come last."""
    kind = tokenizer_class(path.parent, config) or "XLMRobertaTokenizer"
    check_class(path, {"tokenizer_class": kind}, "XLMRobertaTokenizer", *LANGUAGES)
    pieces = read_pieces(path)
    if pieces.texts[:3] != ("<unk>", "<s>", "</s>") or pieces.algorithm != UNIGRAM or FAIRSEQ[1] in pieces.texts:
        raise CheckpointError(f"{path}: not a unigram model that begins with <unk>, <s> and </s>, as fairseq's do")
    after, there = (*LANGUAGES.get(kind, ()), "<mask>"), frozenset(pieces.texts)
    scored = [
        *((text, 0.0) for text in FAIRSEQ),
        *zip(pieces.texts[3:], pieces.scores[3:], strict=True),
        *((text, 0.0) for text in after if text not in there),
    ]
    backend = backend_of(pieces, scored)
    add(backend, (*FAIRSEQ, *after[:-1]))
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    names = {
        "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "mask_token": "<mask>",
    }  # fmt: skip
    if kind not in LANGUAGES:
        frame = "<s> $A </s>", "<s> $A </s> </s> $B </s>"
        return Opened(framed(backend, *frame, path), names, unnamed(config))
    language = config.get("src_lang") or "en_XX"
    if language not in LANGUAGES[kind]:
        raise CheckpointError(f"{path.parent}: src_lang is {language!r}; known are {', '.join(LANGUAGES[kind])}")
    frame = language_frame(kind, language)
    return Opened(framed(backend, *frame, path), names, {**config, "tokenizer_class": kind})


def open_llama(path: Path, config: Mapping[str, Any]) -> Opened:
    """Llama's and Mistral's: the model as it is, the begin of text before a text."""
    check_class(path, config, "LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "PreTrainedTokenizerFast")
    pieces = read_pieces(path)
    backend = backend_of(pieces)
    add(backend, pieces.of_kind(UNKNOWN, CONTROL))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": pieces.texts[pieces.unknown]}
    before = "<s> " if config.get("add_bos_token", True) else ""
    after = " </s>" if config.get("add_eos_token", False) else ""
    single = f"{before}$A{after}"
    return Opened(framed(backend, single, f"{single} {before}$B{after}", path), names, unnamed(config))


FORMS: dict[str, Callable[[Path, Mapping[str, Any]], Opened]] = {
    "spiece.model": open_spiece,
    "sentencepiece.bpe.model": open_fairseq,
    "tokenizer.model": open_llama,
}
"""The file of a folder → what opens it."""


def language_frame(kind: str, language: str) -> tuple[str, str]:
    """What stands around a text, or a pair, of a language."""
    single = FRAMES[kind].format(language=language)
    return single, single.replace("$A", "$A $B")


def framed(backend: tokenizers.Tokenizer, single: str, pair: str, where: Path | str) -> tokenizers.Tokenizer:
    """The backend with tokens around its texts. Raises ``CheckpointError`` for one that it does not know."""
    tokens = sorted({token for token in pair.split() if not token.startswith("$")})
    missing = [token for token in tokens if backend.token_to_id(token) is None]
    if missing:
        raise CheckpointError(f"{where}: there is no piece {missing[0]}, and texts are framed with it")
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, backend.token_to_id(token)) for token in tokens]
    )
    return backend


def add(backend: tokenizers.Tokenizer, tokens: Sequence[str]) -> None:
    """Special tokens, those that are new at the end in this order."""
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens if token])


def add_listed(backend: tokenizers.Tokenizer, folder: Path, config: Mapping[str, Any]) -> None:
    """The tokens that a folder lists beside its vocabulary, each at its number. Raises ``CheckpointError``."""
    listed = config.get("added_tokens_decoder") or {}
    path = folder / "added_tokens.json"
    if not listed and path.is_file():
        listed = {number: token for token, number in read_object(path).items()}
    try:
        ordered = sorted((int(number), token) for number, token in listed.items())
    except (AttributeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: the list of added tokens is no map of numbers and tokens") from error
    for number, token in ordered:
        said = token if isinstance(token, dict) else {"content": token, "special": True}
        content = said.get("content")
        if not isinstance(content, str) or not content:
            raise CheckpointError(f"{folder}: the added token {number} is {content!r}; a text is expected")
        if backend.token_to_id(content) is None:
            flags = {name: bool(said.get(name)) for name in ("lstrip", "rstrip", "single_word", "special")}
            backend.add_tokens([AddedToken(content, normalized=False, **flags)])
        if backend.token_to_id(content) != number:
            raise CheckpointError(
                f"{folder}: the added token {content!r} should have the number {number}, and the vocabulary has it at "
                f"{backend.token_to_id(content)}"
            )


def tokenizer_class(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The published class of a folder's tokenizer: as it says, or as its model has."""
    path = folder / "config.json"
    model = read_object(path) if path.is_file() else {}
    named = config.get("tokenizer_class") or model.get("tokenizer_class") or CLASSES.get(str(model.get("model_type")))
    return None if named is None else str(named).removesuffix("Fast")


def check_class(path: Path, config: Mapping[str, Any], *known: str) -> None:
    """Raise ``CheckpointError`` where a class is named that does something else with such a file."""
    named = str(config.get("tokenizer_class") or known[0])
    if named not in known and named.removesuffix("Fast") not in known:
        raise CheckpointError(f"{path}: its tokenizer_class is {named!r}; known for such a file are {', '.join(known)}")


def unnamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the class of old: what is saved is a ``tokenizer.json``, which says all."""
    return {key: value for key, value in config.items() if key not in ("tokenizer_class", "added_tokens_decoder")}
