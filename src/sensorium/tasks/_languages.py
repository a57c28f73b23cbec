"""How a model is told the languages of a translation: by tokens, by a prefix, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sensorium.errors import UsageError, nearest
from sensorium.text import Tokenizer

_LANGUAGE = re.compile(r"(?P<plain>[a-z]{2,3}_[A-Z]{2}|[a-z]{3}_[A-Z][a-z]{3})|__(?P<m2m>[a-z]{2,3})__")
"""mBART's ``de_DE``, NLLB's ``deu_Latn``, M2M's ``__de__``."""
_TARGET = re.compile(r">>(?P<code>[\w.-]+)<<")
"""Marian's, of models that write several languages."""
_PAIR = re.compile(r"translation_(\w+?)_to_(\w+)")
LANGUAGE_LAST = ("MBartTokenizer", "MBartTokenizerFast")
"""Tokenizers that put the language behind the text and its end; others put it first."""


class Framing(NamedTuple):
    """What tells a model the languages."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    framed: bool = False
    forced_bos_token_id: int | None = None
    prefix: str = ""


def task_name(source: str | None, target: str | None) -> str:
    """The name that a pair has in ``task_specific_params``."""
    return f"translation_{source}_to_{target}" if source and target else "translation"


def pair_of(task: str) -> tuple[str, str] | None:
    """The languages of ``translation_xx_to_yy``.

    >>> pair_of("translation_en_to_de"), pair_of("translation")
    (('en', 'de'), None)
    """
    match = _PAIR.fullmatch(task)
    return (match[1], match[2]) if match else None


def framing(
    tokenizer: Tokenizer, tasks: Iterable[str], source: str | None, target: str | None, *, where: str
) -> Framing:
    """How a model is told this pair. ``tasks`` are those its config has parameters for.

    Raises ``UsageError`` for a language or a pair that the model does not know, and where it needs languages and none
    are given.
    """
    languages = _languages(tokenizer)
    if languages:
        return _by_tokens(tokenizer, languages, source, target, where)
    every = tokenizer.backend.get_vocab(with_added_tokens=True)
    targets = {match["code"] for token in every if token.startswith(">>") and (match := _TARGET.fullmatch(token))}
    if targets:
        if target is None:
            raise UsageError(f"{where}: writes several languages ({_some(targets)}); give tgt_lang=…")
        return Framing(prefix=f">>{_known(target, dict.fromkeys(targets, 0), where)}<< ")
    _check_pair(tokenizer.config, [pair for task in tasks if (pair := pair_of(task))], source, target, where)
    return Framing()


# --- details ---------------------------------------------------------------------------------------------------------


def _by_tokens(
    tokenizer: Tokenizer, languages: Mapping[str, int], source: str | None, target: str | None, where: str
) -> Framing:
    source = source or tokenizer.config.get("src_lang")
    target = target or tokenizer.config.get("tgt_lang")
    if not isinstance(source, str) or not isinstance(target, str):
        raise UsageError(f"{where}: reads and writes many languages; give src_lang and tgt_lang ({_some(languages)})")
    read, written = (languages[_known(code, languages, where)] for code in (source, target))
    if tokenizer.eos_id is None:
        raise UsageError(f"{where}: its tokenizer names no end token, which a text with a language needs")
    if tokenizer.config.get("tokenizer_class") in LANGUAGE_LAST:
        return Framing(after=(tokenizer.eos_id, read), framed=True, forced_bos_token_id=written)
    return Framing(before=(read,), after=(tokenizer.eos_id,), framed=True, forced_bos_token_id=written)


def _languages(tokenizer: Tokenizer) -> dict[str, int]:
    """Codes of languages that are tokens, with their ids."""
    found = {}
    for token, token_id in _added(tokenizer).items():
        if match := _LANGUAGE.fullmatch(token):
            found[match["plain"] or match["m2m"]] = token_id
    return found


def _added(tokenizer: Tokenizer) -> dict[str, int]:
    """Tokens that were added to the vocabulary, or that are special in it."""
    return {one.content: token_id for token_id, one in tokenizer.backend.get_added_tokens_decoder().items()}


def _known(code: str, languages: Mapping[str, int], where: str) -> str:
    """The code as the model has it: ``de`` is ``de_DE`` where no other begins with it."""
    if code in languages:
        return code
    longer = [one for one in languages if re.split(r"[_-]", one)[0] == code]
    if len(longer) == 1:
        return longer[0]
    raise UsageError(
        f"{where}: does not know the language {code!r}{nearest(code, languages)}; it knows {_some(languages)}"
    )


def _check_pair(
    config: Mapping[str, Any],
    pairs: list[tuple[str, str]],
    source: str | None,
    target: str | None,
    where: str,
) -> None:
    """Raises ``UsageError`` for a pair that is none of those a model says it translates."""
    own = (config.get("source_lang"), config.get("target_lang"))
    known = [*pairs, *([(str(own[0]), str(own[1]))] if all(isinstance(one, str) for one in own) else [])]
    if not known or (source is None and target is None):
        return
    if not any((source in (None, a)) and (target in (None, b)) for a, b in known):
        said = f"{source or '?'} to {target or '?'}"
        raise UsageError(f"{where}: does not translate {said}; it translates {_some(f'{a} to {b}' for a, b in known)}")


def _some(names: Iterable[str]) -> str:
    """Names for a sentence, the first dozen."""
    listed = sorted(names)
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")
