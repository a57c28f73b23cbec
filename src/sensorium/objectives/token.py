"""Token classification: a label for each word (parts of speech), or for stretches of a text (names, slots)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sensorium.config import TokenHeadConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.objectives._base import Batch, Loss, Record, classification_loss, field, label_id, pack, starts
from sensorium.text import Encoding, Tokenizer

OUTSIDE = "O"
"""The label of tokens that belong to no entity."""


@dataclass(frozen=True)
class TokenClassification:
    """Records of words with labels, or of texts with entities.

    ``tokens``, a list of words, and ``tags``, a label each: the first token of a word carries its label. Or ``text``
    and ``entities``, each ``{"entity_group", "start", "end"}`` in characters, end exclusive: every token carries a
    label, ``B-`` on the first of an entity, ``I-`` on its others, ``O`` elsewhere (Ramshaw & Marcus, 1995). Where
    entities overlap, the longer one counts.
    """

    labels: tuple[str, ...]
    max_length: int = 128
    label_smoothing: float = 0.0
    head_dropout: float = 0.1

    def heads(self) -> dict[str, Any]:
        """The token head."""
        return {"token": TokenHeadConfig(self.labels, self.head_dropout)}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Tokenise. Raises ``DataError`` where words and tags, or text and entities, do not match; for unknown tags."""
        ids = {label: i for i, label in enumerate(self.labels)}
        texts = [_text(record, number) for number, record in enumerate(records, 1)]
        encoded = tokenizer.encode_batch(texts, max_length=self.max_length)
        examples = []
        for number, (record, text, encoding) in enumerate(zip(records, texts, encoded, strict=True), 1):
            if "entities" in record:
                tags = _entity_tags(encoding, _entities(record, text, number))
            else:
                tags = _word_tags(encoding, record)
            labels = np.asarray([label_id(ids, tag, number) for tag in tags.values()], np.int64)
            rows = np.asarray(list(tags), np.int64)
            examples.append(Example(np.asarray(encoding.token_ids, np.int32), None, {"rows": rows, "token": labels}))
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack; targets: ``token_rows`` [M] rows with a label, ``token`` [M] their labels."""
        rows = [example.labels["rows"] + start for example, start in zip(examples, starts(examples), strict=True)]
        targets = np.concatenate([example.labels["token"] for example in examples])
        return Batch(
            pack(examples),
            {"token_rows": torch.from_numpy(np.concatenate(rows)), "token": torch.from_numpy(targets)},
            {"token": len(targets)},
        )

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy over the labels, on the first token of each word."""
        hidden_states = model(batch.packed)[batch.targets["token_rows"]]  # [M, D]
        logits = model.token_logits(hidden_states)  # [M, C]
        return {"token": classification_loss(logits, batch.targets["token"], label_smoothing=self.label_smoothing)}


def record_tags(record: Record) -> set[str]:
    """The labels that a record asks of a model.

    >>> sorted(record_tags({"text": "Ada wrote", "entities": [{"entity_group": "PER", "start": 0, "end": 3}]}))
    ['B-PER', 'I-PER', 'O']
    """
    if "entities" not in record:
        return {str(tag) for tag in record.get("tags") or ()}
    groups = {str(entity["entity_group"]) for entity in record["entities"] if "entity_group" in entity}
    return {OUTSIDE, *(f"{place}-{group}" for group in groups for place in "BI")}


# --- details ---------------------------------------------------------------------------------------------------------

Span = tuple[int, int, str]
"""First character, the one after the last, class."""


def _text(record: Record, number: int) -> str:
    """The text of a record: its own, or its words with one space between them."""
    if "entities" in record:
        return str(field(record, "text", number))
    words, tags = list(field(record, "tokens", number)), list(field(record, "tags", number))
    if len(words) != len(tags):
        raise DataError(f"record {number:,} has {len(words)} tokens and {len(tags)} tags; the counts must agree")
    return " ".join(words)


def _word_tags(encoding: Encoding, record: Record) -> dict[int, str]:
    """Row → tag of each word's first token: the one at the word's first character."""
    begins = np.cumsum([0, *(len(word) + 1 for word in record["tokens"])])[:-1]
    tag_at = dict(zip(begins.tolist(), record["tags"], strict=True))
    return {row: tag_at.pop(start) for row, start, _ in _places(encoding) if start in tag_at}


def _entities(record: Record, text: str, number: int) -> list[Span]:
    """The entities of a record, none of which overlap. Raises ``DataError`` for one that is no stretch of the text."""
    spans: list[Span] = []
    for entity in record["entities"]:
        if not isinstance(entity, Mapping) or not {"entity_group", "start", "end"} <= entity.keys():
            raise DataError(f"record {number:,}: the entity {entity!r} needs 'entity_group', 'start' and 'end'")
        start, end = int(entity["start"]), int(entity["end"])
        if not 0 <= start < end <= len(text):
            raise DataError(f"record {number:,}: the entity {start}–{end} is no stretch of its {len(text)} characters")
        spans.append((start, end, str(entity["entity_group"])))
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: span[0] - span[1]):  # the longest first
        if all(span[1] <= other[0] or other[1] <= span[0] for other in kept):
            kept.append(span)
    return kept


def _entity_tags(encoding: Encoding, entities: Sequence[Span]) -> dict[int, str]:
    """Row → tag of every token of the text."""
    tags = {row: OUTSIDE for row, _, _ in _places(encoding)}
    for begin, end, group in entities:
        inside = [row for row, start, stop in _places(encoding) if start < end and stop > begin]
        tags.update({row: f"{'I' if place else 'B'}-{group}" for place, row in enumerate(inside)})
    return tags


def _places(encoding: Encoding) -> list[tuple[int, int, int]]:
    """(row, first character, the one after the last) of every token of the text."""
    places = zip(encoding.offsets, encoding.sequence_ids, strict=True)
    return [(row, *offsets) for row, (offsets, sequence) in enumerate(places) if sequence is not None]
