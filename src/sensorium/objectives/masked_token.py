"""Masked-token prediction, alone or with a task on pairs of sentences (Devlin et al., 2019, §3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from sensorium.config import MaskedTokenHeadConfig, NextSentenceHeadConfig
from sensorium.data.batching import Example
from sensorium.errors import UsageError
from sensorium.nn.cross_entropy import linear_cross_entropy
from sensorium.objectives._base import Batch, Loss, Record, classification_loss, field, pack, starts
from sensorium.objectives._documents import Document, sentence_pairs, single_runs, tokenise_document
from sensorium.text import Tokenizer

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
"""Of the chosen tokens: replaced by the mask, replaced by a random token; the rest stay."""


@dataclass(frozen=True)
class MaskedToken:
    """Records: ``text``, a document. Guess hidden tokens; perhaps also judge pairs of sentences.

    ``unit="word"`` hides whole words (Cui et al., 2019): all pieces of a word together and, where ``jieba`` is
    installed, all characters of a Chinese word. ``sentences="next"`` asks whether the second part follows the first in
    the text; ``"order"`` whether two parts stand in their order (ALBERT, Lan et al., 2020).
    """

    max_length: int = 128
    probability: float = 0.15
    unit: Literal["token", "word"] = "token"
    sentences: Literal["none", "next", "order"] = "none"

    def heads(self) -> dict[str, Any]:
        """The masked-token head and, for a task on sentences, the next-sentence head."""
        heads: dict[str, Any] = {"masked_token": MaskedTokenHeadConfig()}
        return heads if self.sentences == "none" else {**heads, "next_sentence": NextSentenceHeadConfig()}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> tuple[list[Document], tuple[int, int]]:
        """Every document as tokenised sentences; and the ids that frame a sequence."""
        require_mask(tokenizer, "masked-token training")
        if tokenizer.cls_id is None or tokenizer.sep_id is None:
            raise UsageError("masked-token training needs a tokenizer with a start and a separator token")
        documents = [
            tokenise_document(str(field(record, "text", i)), tokenizer, whole_words=self.unit == "word")
            for i, record in enumerate(records, 1)
        ]
        return [document for document in documents if document], (tokenizer.cls_id, tokenizer.sep_id)

    def examples(
        self, prepared: tuple[list[Document], tuple[int, int]], generator: np.random.Generator
    ) -> list[Example]:
        """Runs of sentences, or pairs drawn anew each epoch."""
        documents, frame = prepared
        if self.sentences == "none":
            return single_runs(documents, self.max_length, frame)
        return sentence_pairs(documents, self.max_length, frame, self.sentences, generator)

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack and hide; targets: ``rows`` [M], ``masked_token`` [M] what stood there, ``next_sentence`` [N]."""
        packed = pack(examples)
        mask_id = require_mask(tokenizer, "masked-token training")
        rows = np.concatenate(
            [
                choose_masked(example.labels["words"], self.probability, generator) + start
                for example, start in zip(examples, starts(examples), strict=True)
            ]
        )
        original = packed.values[torch.from_numpy(rows)]
        draw = generator.random(len(rows))
        replaced = np.where(draw < MASK_SHARE, mask_id, original.numpy())
        random_tokens = generator.integers(tokenizer.vocabulary_size, size=len(rows))
        replaced = np.where((draw >= MASK_SHARE) & (draw < MASK_SHARE + RANDOM_SHARE), random_tokens, replaced)
        packed.values[torch.from_numpy(rows)] = torch.from_numpy(replaced)
        targets = {"rows": torch.from_numpy(rows), "masked_token": original}
        counts = {"masked_token": len(rows)}
        if self.sentences != "none":
            targets["next_sentence"] = torch.tensor([example.labels["next_sentence"] for example in examples])
            counts["next_sentence"] = len(examples)
        return Batch(packed, targets, counts)

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropies of the hidden tokens and of the pairs."""
        hidden_states = model(batch.packed)  # [T, D]
        head, targets = model.masked_token, batch.targets["masked_token"]
        vectors = head.transform(hidden_states[batch.targets["rows"]])  # [M, D]
        total, correct = linear_cross_entropy(vectors, head.vocabulary.weight, head.bias, targets)
        losses = {"masked_token": Loss(total, len(targets), correct)}
        if self.sentences != "none":
            logits = model.next_sentence_logits(hidden_states, batch.packed)  # [N, 2]
            losses["next_sentence"] = classification_loss(logits, batch.targets["next_sentence"])
        return losses


def require_mask(tokenizer: Tokenizer, task: str) -> int:
    """The id of the mask token. Raises ``UsageError`` when the tokenizer has none."""
    if tokenizer.mask_id is None:
        raise UsageError(f"{task} needs a tokenizer with a mask token, and this one has none")
    return tokenizer.mask_id


def choose_masked(words: np.ndarray, probability: float, generator: np.random.Generator) -> np.ndarray:
    """Which tokens of a sequence to hide, whole words at a time, in order.

    ``words`` [L] numbers the word of each token, -1 for special tokens, which are never hidden. About ``probability``
    of the other tokens are chosen, at least one.

    >>> choose_masked(np.array([-1, 0, 1, 1, -1]), 0.15, np.random.default_rng(2)).tolist()
    [1]
    """
    places = np.flatnonzero(words >= 0)
    if not len(places):
        return places
    wanted = max(1, round(len(places) * probability))
    changes = np.diff(words[places], prepend=words[places[0]]) != 0
    word_of_place = np.cumsum(changes)  # [P] words numbered 0, 1, …: a word's tokens stand together
    sizes = np.bincount(word_of_place)
    order = generator.permutation(len(sizes))
    ends = np.cumsum(sizes[order])
    taken = int(np.searchsorted(ends, wanted, side="right"))  # words that fit whole
    if taken < len(order):
        # The next word fits in part: hiding it as often as that keeps the expected share, however long words are.
        room = wanted - (int(ends[taken - 1]) if taken else 0)
        taken += generator.random() < room / sizes[order[taken]]
    hidden = np.zeros(len(sizes), bool)
    hidden[order[: max(1, taken)]] = True
    chosen: np.ndarray = places[hidden[word_of_place]]
    return chosen
