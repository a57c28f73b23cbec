"""Fill-mask: which tokens could stand in the place of the mask."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sensorium.errors import DataError, UsageError
from sensorium.packed import Packed
from sensorium.tasks._task import Pairs, Task, require_text
from sensorium.text import Encoding


class FillMask(Task):
    """A text with a mask token → the likeliest tokens for it.

    A text longer than the model reads is cut into overlapping windows; a mask is answered where most text stands around
    it, and ``sequence`` is then that window's text.
    """

    needs_offsets = True

    def __call__(self, inputs: Any, *, targets: str | Sequence[str] | None = None, top_k: int = 5) -> Any:
        """``[{"score", "token", "token_str", "sequence"}, …]`` for a text with one mask, a list of those with several.

        ``targets`` limits the answers to these words. Raises ``DataError`` for a text without a mask.
        """
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; at least 1 answer can be asked for")
        chosen = None if targets is None else self._target_ids([targets] if isinstance(targets, str) else targets)
        finish = partial(self._finish, targets=chosen, top_k=top_k)
        return self.answer(inputs, self._prepare, self._run, finish)

    def _prepare(self, one: Any, number: int) -> Iterator[Encoding]:
        text = require_text(one, number)
        if self.tokenizer.mask_id is None:
            raise DataError("this checkpoint's tokenizer has no mask token; fill-mask needs one")
        found = False
        for window in self.windows(text, overlap=self.max_length // 2 - 2):
            if self.tokenizer.mask_id in window.token_ids:
                found = True
                yield window
        if not found:
            mask = self.tokenizer.special_tokens.get("mask_token")
            raise DataError(f"input {number} has no mask; write {mask} where a word is to be guessed")

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        """Logits of the masks of each window, [masks, V]; the head runs on nothing else."""
        hidden_states = self.model(batch)  # [T, D]
        masked = torch.nonzero(batch.values.eq(self.tokenizer.mask_id or 0))[:, 0]
        logits = self.model.masked_token_logits(hidden_states[masked]).float()  # [M, V]
        counts = torch.bincount(batch.sequence_ids[masked], minlength=batch.num_sequences)
        return list(logits.split(counts.tolist()))

    def _finish(self, one: str, pairs: Pairs, *, targets: list[int] | None, top_k: int) -> Any:
        best: dict[tuple[int, int], tuple[int, list[dict[str, Any]]]] = {}  # where in the text → context, answers
        for window, logits in pairs:
            places = [i for i, token in enumerate(window.token_ids) if token == self.tokenizer.mask_id]
            for place, row in zip(places, logits, strict=True):
                context = min(place, len(window) - place)
                key = window.offsets[place]
                if key not in best or context > best[key][0]:
                    best[key] = (context, self._answers(window, place, row, targets, top_k))
        answers = [best[key][1] for key in sorted(best)]
        return answers[0] if len(answers) == 1 else answers

    def _answers(
        self, window: Encoding, place: int, logits: Tensor, targets: list[int] | None, top_k: int
    ) -> list[dict[str, Any]]:
        probabilities = logits.softmax(dim=-1)
        if targets is not None:
            probabilities = probabilities[targets]
        scores, chosen = probabilities.topk(min(top_k, len(probabilities)))
        answers = []
        for score, index in zip(scores.tolist(), chosen.tolist(), strict=True):
            token = index if targets is None else targets[index]
            filled = [*window.token_ids[:place], token, *window.token_ids[place + 1 :]]
            answers.append(
                {
                    "score": score,
                    "token": token,
                    "token_str": self.tokenizer.decode([token], skip_special_tokens=False),
                    "sequence": self.tokenizer.decode(filled),
                }
            )
        return answers

    def _target_ids(self, targets: Sequence[str]) -> list[int]:
        ids = []
        for target in targets:
            token = self.tokenizer.id(target)
            if token is None:
                pieces = self.tokenizer.encode_plain(target)
                if not pieces:
                    raise UsageError(f"the target {target!r} is empty once it is tokenised")
                token = pieces[0]
                warnings.warn(
                    f"the target {target!r} is not one token; {self.tokenizer.token(token)!r} is used instead",
                    stacklevel=3,
                )
            ids.append(token)
        return sorted(set(ids))
