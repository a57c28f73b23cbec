"""Token classification: names and other labelled words in a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from sensorium.errors import UsageError
from sensorium.packed import Packed
from sensorium.tasks._task import Pairs, Task, require_text
from sensorium.text import Encoding

STRATEGIES = ("none", "simple", "first", "average", "max")
Entity = dict[str, Any]


class TokenClassification(Task):
    """A text → its labelled tokens, or entities.

    A text longer than the model reads is cut into windows that overlap by a quarter; of the tokens two windows
    share, the first half is judged in the earlier window and the rest in the later one, before anything is aggregated.
    """

    needs_offsets = True

    def __call__(
        self, inputs: Any, *, aggregation_strategy: str = "none", ignore_labels: Sequence[str] = ("O",)
    ) -> Any:
        """A list of ``{"entity", "score", "index", "word", "start", "end"}`` for each text.

        With an ``aggregation_strategy`` (``simple``, ``first``, ``average``, ``max``) neighbours of one kind are
        grouped and ``entity_group`` takes the place of ``entity`` and ``index``. ``start`` and ``end`` are characters.
        """
        if aggregation_strategy not in STRATEGIES:
            raise UsageError(f"aggregation_strategy is {aggregation_strategy!r}; known are {', '.join(STRATEGIES)}")
        finish = partial(self._finish, strategy=aggregation_strategy, ignore=frozenset(ignore_labels))
        return self.answer(inputs, self._prepare, self._run, finish)

    def _prepare(self, one: Any, number: int) -> Iterator[Encoding]:
        return self.windows(require_text(one, number), overlap=self._overlap)

    @property
    def _overlap(self) -> int:
        return self.max_length // 4

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        logits = self.model.token_logits(self.model(batch)).float()  # [T, C]
        return list(batch.split(logits.softmax(dim=-1)))

    def _finish(self, one: str, pairs: Pairs, *, strategy: str, ignore: frozenset[str]) -> list[Entity]:
        tokens = (self._token(one, *place) for place in _places(pairs, self._overlap))
        labels = self.model.config.token.labels
        if strategy in ("none", "simple"):
            entities = (_labelled(token, token["scores"], labels) for token in tokens)
        else:
            entities = (self._word(word, strategy, labels) for word in _words(tokens))
        if strategy == "none":
            kept = ("entity", "score", "index", "word", "start", "end")
            return [{key: entity[key] for key in kept} for entity in entities if entity["entity"] not in ignore]
        groups = (self._group(group) for group in _groups(entities))
        return [group for group in groups if group["entity_group"] not in ignore]

    def _token(self, text: str, index: int, token_id: int, span: tuple[int, int], scores: np.ndarray) -> Entity:
        start, end = span
        word = self.tokenizer.token(token_id)
        if getattr(self.tokenizer.backend.model, "continuing_subword_prefix", None):
            is_subword = len(word) != end - start  # "##ing" is longer than what it stands for
        else:
            is_subword = start > 0 and " " not in text[start - 1 : start + 1]
        if token_id == self.tokenizer.unk_id:
            word, is_subword = text[start:end], False
        return {
            "word": word, "scores": scores, "start": start, "end": end, "index": index, "is_subword": is_subword,
        }  # fmt: skip

    def _word(self, tokens: list[Entity], strategy: str, labels: Sequence[str]) -> Entity:
        """The tokens of one word as one entity (strategies ``first``, ``max``, ``average``)."""
        if strategy == "first":
            scores = tokens[0]["scores"]
        elif strategy == "max":
            scores = max(tokens, key=lambda token: float(token["scores"].max()))["scores"]
        else:
            scores = np.stack([token["scores"] for token in tokens]).mean(axis=0)
        whole = {
            "word": self._join(token["word"] for token in tokens),
            "start": tokens[0]["start"],
            "end": tokens[-1]["end"],
        }
        return _labelled(whole, scores, labels)

    def _group(self, entities: list[Entity]) -> Entity:
        return {
            "entity_group": entities[0]["entity"].split("-", 1)[-1],
            "score": float(np.mean([entity["score"] for entity in entities])),
            "word": self._join(entity["word"] for entity in entities),
            "start": entities[0]["start"],
            "end": entities[-1]["end"],
        }

    def _join(self, words: Any) -> str:
        text: str = self.tokenizer.backend.decoder.decode(list(words)) if self.tokenizer.backend.decoder else ""
        return text.strip()


Place = tuple[int, int, tuple[int, int], np.ndarray]
"""Index, token id, characters, scores of one token."""


def _places(pairs: Pairs, overlap: int) -> Iterator[Place]:
    """Every token of the text once, each from the window that sees more around it."""
    late = overlap - overlap // 2  # of the shared tokens, so many are judged in the later window
    held: list[Place] = []
    index = 0
    for number, (window, scores) in enumerate(pairs):
        texts = [i for i, sequence in enumerate(window.sequence_ids) if sequence is not None]
        if number == 0:
            index = texts[0] if texts else 0  # the framing token counts
        else:
            held = held[: len(held) - late]
            texts = texts[overlap // 2 :]
        yield from held
        index += len(held)
        rows = scores.numpy()
        held = [(index + n, window.token_ids[i], window.offsets[i], rows[i]) for n, i in enumerate(texts)]
    yield from held


def _labelled(token: Entity, scores: np.ndarray, labels: Sequence[str]) -> Entity:
    chosen = int(scores.argmax())
    return {**token, "entity": labels[chosen], "score": float(scores[chosen])}


def _words(tokens: Iterable[Entity]) -> Iterator[list[Entity]]:
    word: list[Entity] = []
    for token in tokens:
        if word and not token["is_subword"]:
            yield word
            word = []
        word.append(token)
    if word:
        yield word


def _groups(entities: Iterable[Entity]) -> Iterator[list[Entity]]:
    """Neighbours of one kind; a ``B-`` label begins a new group."""
    group: list[Entity] = []
    for entity in entities:
        kind, tag = _tag(entity["entity"])
        if group and (kind == "B" or tag != _tag(group[-1]["entity"])[1]):
            yield group
            group = []
        group.append(entity)
    if group:
        yield group


def _tag(label: str) -> tuple[str, str]:
    return (label[0], label[2:]) if label.startswith(("B-", "I-")) else ("I", label)
