"""Reading one text and writing another: translation, summarisation (Sutskever et al., 2014; Vaswani et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sensorium.config import LanguageModelHeadConfig
from sensorium.data.batching import Example
from sensorium.errors import UsageError
from sensorium.objectives._base import Batch, Loss, Record, field, pack
from sensorium.objectives._next_token import next_token_loss
from sensorium.packed import Packed
from sensorium.text import Tokenizer
from sensorium.text.subword_dropout import Words


@dataclass(frozen=True)
class Pairs:
    """Texts that are cut into other pieces each epoch."""

    sources: Words
    targets: Words
    tokenizer: Tokenizer


@dataclass(frozen=True)
class SequenceToSequence:
    """Records: ``text``, which is read, and ``target``, which is to be written. Both are framed by the tokenizer.

    The decoder reads the start token and the target but for its last token, and predicts the target, end token and all
    (teacher forcing). Targets of mBART end with their language behind the end token: there the decoder begins with it.
    """

    start_token_id: int
    """What the decoder begins with, where its target does not name a language at its end."""
    max_length: int = 128
    """Tokens kept of a text; training cuts longer ones."""
    max_target_length: int = 128
    label_smoothing: float = 0.0
    """Szegedy et al., 2016, §7."""
    bpe_dropout: float = 0.0
    """Share of the merges that are left out at random, on both sides, each epoch others (Provilkov et al., 2020); for
    training: what is validated on is prepared without."""

    r_drop: float = 0.0
    """Weight of the divergence between two readings of a batch under different dropout, which are to agree (Liang et
    al., 2021, who take 5 for translation): each batch is read twice. For training, as ``bpe_dropout`` is."""

    def heads(self) -> dict[str, Any]:
        """The language-model head of the decoder."""
        return {"language_model": LanguageModelHeadConfig()}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example] | Pairs:
        """Tokenise. Raises ``DataError`` for a record without one of its texts, ``UsageError`` without an end token,
        or without merges where some are to be left out.
        """
        if tokenizer.eos_id is None:
            raise UsageError(
                "the tokenizer has no end token, so a model could not learn to stop; train one of the kind bpe"
            )
        texts = [str(field(record, "text", i)) for i, record in enumerate(records, 1)]
        targets = [str(field(record, "target", i)) for i, record in enumerate(records, 1)]
        if self.bpe_dropout:
            return Pairs(
                Words.of(texts, tokenizer, max_length=self.max_length),
                Words.of(targets, tokenizer.target, max_length=self.max_target_length),
                tokenizer,
            )
        sources = tokenizer.encode_batch(texts, max_length=self.max_length, offsets=False)
        with _in_language_of_targets(tokenizer):
            written = tokenizer.target.encode_batch(targets, max_length=self.max_target_length, offsets=False)
        return [
            Example(
                np.asarray(source.token_ids, np.int32),
                target_ids=np.asarray(_ended(target.token_ids, tokenizer, self.max_target_length), np.int32),
            )
            for source, target in zip(sources, written, strict=True)
        ]

    def examples(self, prepared: list[Example] | Pairs, generator: np.random.Generator) -> list[Example]:
        """The same every epoch, but for the merges that are left out."""
        if not isinstance(prepared, Pairs):
            return prepared
        sources = prepared.sources.sample(self.bpe_dropout, generator)
        written = prepared.targets.sample(self.bpe_dropout, generator)
        return [
            Example(
                source,
                target_ids=np.asarray(_ended(target.tolist(), prepared.tokenizer, self.max_target_length), np.int32),
            )
            for source, target in zip(sources, written, strict=True)
        ]

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack sources, and what the decoder reads; target: ``next`` [T] the token it is to write at each place."""
        written = [example.target_ids for example in examples if example.target_ids is not None]
        read = [np.concatenate([[self._first(ids, tokenizer)], ids[:-1]]) for ids in written]
        if self.r_drop:
            read, written, examples = [*read, *read], [*written, *written], [*examples, *examples]
        following = Packed.from_sequences(written).values
        return Batch(
            Packed.from_sequences(read), {"next": following}, {"language_model": len(following)}, sources=pack(examples)
        )

    def _first(self, target_ids: np.ndarray[Any, Any], tokenizer: Tokenizer) -> int:
        """What the decoder begins with: a target ends with the end token, or behind it with its language."""
        last = int(target_ids[-1])
        return self.start_token_id if last == tokenizer.eos_id else last

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of every token of the target; the vocabulary's logits are never held all at once."""
        hidden_states = self.hidden_states(model, batch)
        loss = next_token_loss(
            model, hidden_states, batch.targets["next"], label_smoothing=self.label_smoothing, agreement=self.r_drop
        )
        return {"language_model": loss}

    def hidden_states(self, model: Any, batch: Batch) -> Tensor:
        """[T, D] of the decoder, each of which a target comes after."""
        assert batch.sources is not None
        states: Tensor = model(batch.packed, model.encode(batch.sources))
        return states


def _in_language_of_targets(tokenizer: Tokenizer) -> AbstractContextManager[None]:
    """Within: texts are framed as of the language that the tokenizer's settings name for what is written, if any."""
    language = tokenizer.config.get("tgt_lang")
    return tokenizer.target.in_language(language) if language and tokenizer.target.languages else nullcontext()


def _ended(token_ids: list[int], tokenizer: Tokenizer, most: int) -> list[int]:
    """With the end token, which some tokenizers leave out: in place of the last one where there is no room.

    A language may stand behind it, as mBART's tokenizer puts it.
    """
    end_id = tokenizer.eos_id
    assert end_id is not None
    if token_ids[-1:] == [end_id] or (token_ids[-2:-1] == [end_id] and token_ids[-1] in tokenizer.special_ids):
        return token_ids
    return [*token_ids[: most - 1], end_id]
