"""Which words of a source the words of a translation come from, as the model's own attention has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.nn.stack import capture
from sensorium.packed import Packed
from sensorium.text import Tokenizer

Span = tuple[int, int]
"""First character, and the one after the last."""
Frame = tuple[Sequence[int], Sequence[int]]
"""Tokens before a text and behind it."""
TOGETHER = 32
"""Pairs that go through the model at once."""


@dataclass(frozen=True)
class Located:
    """Tokens, and the characters of the text that each stands for; ``None``: of none."""

    token_ids: list[int]
    places: list[Span | None]

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer, *, prefix: str = "", frame: Frame | None = None) -> Located:
        """A text behind a prefix that is not looked at, in a frame; ``None``: the tokenizer's own."""
        encoding = tokenizer.encode(prefix + text)
        rows = zip(encoding.token_ids, encoding.offsets, encoding.sequence_ids, strict=True)
        tokens: list[tuple[int, Span | None]] = [
            (
                token_id,
                None if sequence is None or end <= len(prefix) else (max(0, start - len(prefix)), end - len(prefix)),
            )
            for token_id, (start, end), sequence in rows
            if frame is None or sequence is not None
        ]
        if frame is not None:
            before, after = ([(token_id, None) for token_id in side] for side in frame)
            tokens = [*before, *tokens, *after]
        return cls([token_id for token_id, _ in tokens], [place for _, place in tokens])


@dataclass(frozen=True)
class Alignment:
    """How much each written token looks at each token of the source, where both stand for some text."""

    weights: np.ndarray
    """[T, S] float32, T tokens written, S read."""
    written: list[Span]
    """[T] the characters of each."""
    read: list[Span]
    """[S]"""


def align(model: EncoderDecoder, pairs: Sequence[tuple[Located, Located]]) -> list[Alignment | None]:
    """Attention of written tokens to their source, of texts with a translation each: the mean of the heads in the last
    layer but one of the decoder, at the step that writes the token (Garg et al., 2019, §3, of models that were not
    taught to align).

    What is written has the decoder's start token in its frame. The model is one as it was opened: the engine's kernels
    keep no attention. ``None`` for a text that is longer than the model takes.
    """
    config = model.config
    fitting = [
        n
        for n, (read, written) in enumerate(pairs)
        if len(read.token_ids) <= config.max_length and len(written.token_ids) <= config.max_written
    ]
    found: dict[int, Alignment] = {}
    for start in range(0, len(fitting), TOGETHER):
        chosen = fitting[start : start + TOGETHER]
        found.update(zip(chosen, _aligned(model, [pairs[n] for n in chosen]), strict=True))
    return [found.get(n) for n in range(len(pairs))]


@torch.inference_mode()
def _aligned(model: EncoderDecoder, pairs: Sequence[tuple[Located, Located]]) -> list[Alignment]:
    layer = max(0, model.config.decoder_stack.num_layers - 2)
    memory = model.encode(Packed.from_sequences([read.token_ids for read, _ in pairs]))
    with capture(model.decoder, layers=[layer], what=["attention"]) as seen:
        model(Packed.from_sequences([written.token_ids for _, written in pairs]), memory)
    found = []
    for (read, written), weights in zip(pairs, seen.memory_attention[layer], strict=True):  # [H, Lq, Ls] each
        rows = [n - 1 for n, place in enumerate(written.places) if place is not None]
        columns = [n for n, place in enumerate(read.places) if place is not None]
        found.append(
            Alignment(
                weights.mean(dim=0)[rows][:, columns].numpy(),
                [place for place in written.places if place is not None],
                [place for place in read.places if place is not None],
            )
        )
    return found
