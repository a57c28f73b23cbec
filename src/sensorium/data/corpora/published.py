"""Public data in the form it is published in, as records that objectives and evaluations read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeGuard

from sensorium.data.records import read_bytes, read_json_lines, read_lines
from sensorium.errors import DataError, UsageError

Record = dict[str, Any]
PAIR = re.compile(r"\{([^{},]+),([^{},]+)\}")

SLOTS = ("date", "first_name", "last_name", "people", "time")
"""Of Restaurant8k."""


def lines(which: str) -> list[Record]:
    """Two files that agree line by line, named at once: ``train.{en,de}.gz`` → ``text`` and ``target``.

    Pairs of which one side is blank are left out. Raises ``UsageError`` where the name is not of this form,
    ``DataError`` where the files differ in length.
    """
    if len(PAIR.findall(which)) != 1:
        raise UsageError(f"the corpus lines needs two files, written as folder/train.{{en,de}}.gz; not {which!r}")
    files = (Path(PAIR.sub(rf"\{side}", which)).expanduser() for side in (1, 2))
    sources, targets = ([line for _, line in read_lines(file)] for file in files)
    if len(sources) != len(targets):
        raise DataError(f"{which}: {len(sources):,} lines beside {len(targets):,}; they must agree line by line")
    pairs = ((source.strip(), target.strip()) for source, target in zip(sources, targets, strict=True))
    return [{"text": source, "target": target} for source, target in pairs if source and target]


def restaurant8k(which: str) -> list[Record]:
    """A file of Restaurant8k (Coope et al., 2020): ``text``, ``entities``, ``requested``.

    The text begins with what the system had asked for, which decides what a bare "13" is (`with_requested`);
    ``entities`` are the slots' spans in that text.
    """
    path = Path(_file(which, "restaurant8k")).expanduser()
    try:
        turns = json.loads(read_bytes(path))
        return [_turn(turn) for turn in turns]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a file of Restaurant8k: {type(error).__name__}: {error}") from error


def _turn(turn: dict[str, Any]) -> Record:
    requested = tuple(dict.fromkeys((turn.get("context") or {}).get("requestedSlots") or ()))
    text = with_requested(turn["userInput"]["text"], requested)
    shift = len(text) - len(turn["userInput"]["text"])
    entities = []
    for label in turn.get("labels") or ():
        span = label["valueSpan"]  # a start of 0 is left out
        start, end = int(span.get("startIndex", 0)) + shift, int(span["endIndex"]) + shift
        entities.append({"entity_group": str(label["slot"]), "start": start, "end": end})
    return {"text": text, "entities": entities, "requested": requested}


def with_requested(text: str, requested: tuple[str, ...]) -> str:
    """An utterance behind the slots that the system had asked for; alone where it had asked for none.

    >>> with_requested("13", ("people", "time"))
    'people, time: 13'
    """
    return f"{', '.join(requested).replace('_', ' ')}: {text}" if requested else text


def scitldr(which: str) -> list[Record]:
    """A file of SciTLDR (Cachola et al., 2020): ``text``, an abstract; ``target``, its first summary; ``targets``, all.

    In the training part each abstract has one summary, the authors'; elsewhere reviewers' stand beside it.
    """
    path = Path(_file(which, "scitldr")).expanduser()
    records = []
    for number, row in read_json_lines(path):
        sentences, targets = row.get("source"), row.get("target")
        if not _texts(sentences) or not _texts(targets):
            raise DataError(f"{path}:{number}: not a record of SciTLDR: it needs 'source' and 'target', lists of texts")
        records.append({"text": " ".join(sentences), "target": targets[0], "targets": tuple(targets)})
    return records


def _texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _file(which: str, corpus: str) -> str:
    if not which:
        raise UsageError(f"the corpus {corpus} needs its file, written as corpus:{corpus}:path/to/file")
    return which
