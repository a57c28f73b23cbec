"""How likely a decoder finds texts: what perplexity is made of.

Shapes: T packed tokens, M predicted tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.infer.batching import run_windows
from sensorium.models.decoder import DecoderLM
from sensorium.packed import Packed
from sensorium.text import Encoding, Tokenizer


def likelihood(checkpoint: Checkpoint) -> Callable[[Iterable[str]], Iterator[tuple[float, int]]]:
    """Texts → for each its summed negative log-likelihood (nats) and the number of tokens predicted.

    Every token is predicted, the first from the beginning-of-text token, where the tokenizer has one. A text longer
    than the model reads is scored window by window, each beginning anew. Raises ``UsageError`` for an encoder.
    """
    model, tokenizer = checkpoint.model, checkpoint.require_tokenizer()
    if not isinstance(model, DecoderLM):
        raise UsageError(f"{checkpoint.folder}: perplexity needs a decoder (gpt2); this is a {checkpoint.family}")

    def run(batch: Packed, windows: Sequence[Encoding]) -> list[tuple[float, int]]:
        predicts = torch.ones(batch.num_tokens, dtype=torch.bool)  # [T]: all but the last of each window
        predicts[batch.last] = False
        logits = model.next_token_logits(model(batch)[predicts]).float()  # [M, V]
        nll = cross_entropy(logits, batch.values.roll(-1)[predicts], reduction="none").double()  # [M]
        return [(float(part.sum()), len(part)) for part in nll.split([length - 1 for length in batch.lengths])]

    def score(texts: Iterable[str]) -> Iterator[tuple[float, int]]:
        windows = (_windows(text, tokenizer, model.config.max_length) for text in texts)
        for results in run_windows(windows, run):
            yield sum(nll for nll, _ in results), sum(count for _, count in results)

    return score


def _windows(text: str, tokenizer: Tokenizer, max_length: int) -> list[Encoding]:
    """The text in pieces, each after the beginning-of-text token."""
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    token_ids = tokenizer.encode_plain(text)
    size = max_length - len(start)
    pieces = [start + token_ids[i : i + size] for i in range(0, len(token_ids), size)]
    return [_plain(piece) for piece in pieces]


def _plain(token_ids: list[int]) -> Encoding:
    count = len(token_ids)
    return Encoding(token_ids, [0] * count, [(0, 0)] * count, [0] * count, [None] * count)
