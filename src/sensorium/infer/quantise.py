"""Models of 8 and of 4 bits, and what they cost: nobody quantises blind.

int8: weights have one scale an output, activations one scale a token, found as it is read. ``smoothing`` needs texts
like those the model will read; without any, nothing is calibrated. Weight-only dtypes (``packing``) calibrate nothing.

Shapes: N sequences, D hidden size, K inputs of a linear map.
"""

from __future__ import annotations

import logging
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.infer.batching import pack_encodings
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.engine import fast
from sensorium.infer.fast_stack import FastStack, linear_maps
from sensorium.infer.generate import generate
from sensorium.infer.packing import Dtype
from sensorium.infer.settings import GenerationSettings
from sensorium.models.build import Model, OneStack
from sensorium.models.decoder import DecoderLM
from sensorium.models.encoder import EncoderLM
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.packed import Packed
from sensorium.text import Encoding, Tokenizer

log = logging.getLogger("sensorium")

QUANTISED: tuple[Dtype, ...] = ("int8", "int8_weight_only", "int4_weight_only")
"""What is measured before it is used."""

PROBE = (
    "The parcel came two days late, and the box was open when I got it.",
    "How do I change the card that my subscription is paid with?",
    "Water boils at a lower temperature on a mountain, because the air presses less on its surface.",
    "I would not stay there again.",
    "She read the letter twice, put it back into its envelope and said nothing about it until the spring.",
    "def mean(numbers): return sum(numbers) / len(numbers)",
    "The committee will meet on Tuesday, 14 March, at half past nine in room 204.",
    "房间很干净，服务员也很热情，下次还会再来。",
    "请问这个订单什么时候可以发货？",
    "高山上的水在较低的温度就会沸腾，因为那里的气压比较小。",
)
"""What a quantised model is compared on where no texts are given."""
ANSWER = 24
"""Tokens that an encoder–decoder writes to be compared, or fewer where it can't write so many."""
ENOUGH = 16
"""Fewer texts than this calibrate badly."""


class CalibrationWarning(UserWarning):
    """The calibration texts are hardly like those the model reads."""


@dataclass(frozen=True)
class Agreement:
    """How near a faster model's vectors are to the original's: cosines of each sequence's mean vector."""

    mean: float
    least: float
    num_sequences: int
    same_token: float | None = None
    """Of a decoder: after how many of the tokens both find the same next one likeliest."""

    def __str__(self) -> str:
        same = "" if self.same_token is None else f"; the same next token after {self.same_token:.1%} of their tokens"
        cosines = f"cosine with fp32 {self.mean:.4f} on average, {self.least:.4f} at least"
        return f"{cosines}, of {self.num_sequences} texts{same}"


def quantise(
    checkpoint: Checkpoint, texts: Sequence[str] | None = None, *, dtype: Dtype = "int8"
) -> tuple[Checkpoint, Agreement]:
    """The checkpoint with a quantised model, and how near its vectors are to those of the original, which is logged.

    ``texts`` are like those the model will read. Without them, or with weights alone quantised, the agreement is
    measured and that is all. With them, int8 activations are smoothed by the first half and the agreement is measured
    on the second, with and without smoothing; the better one is kept. Raises ``UsageError`` for fewer than two texts;
    warns with ``CalibrationWarning`` when they are few, of another language than the tokenizer's, or of a length that
    says little.
    """
    tokenizer, length = checkpoint.require_tokenizer(), checkpoint.language_config.max_length
    given = list(PROBE if texts is None else texts)
    if len(given) < 2:
        raise UsageError(f"{len(given)} calibration text; give {ENOUGH} or more, like those the model will read")
    encodings = [tokenizer.encode(text, max_length=length) for text in given]
    opened = checkpoint.model
    plain = fast(opened, dtype)
    model: Model
    if texts is None or dtype != "int8" or not isinstance(opened, EncoderLM | DecoderLM):
        model, found = plain, agreement(opened, plain, pack_encodings(encodings))
    else:
        _check(encodings, tokenizer, length)
        seen, held_out = pack_encodings(encodings[::2]), pack_encodings(encodings[1::2])
        smooth = fast(opened, "int8", smooth=smoothing(opened, seen))
        model, found = max(
            ((one, agreement(opened, one, held_out)) for one in (plain, smooth)),
            key=lambda pair: pair[1].mean,
        )
    on_kernels = any(isinstance(part, FastStack) for part in model.modules())
    log.warning("%s: %s", dtype if on_kernels else f"what runs instead of {dtype}", found)
    return replace(checkpoint, model=model), found


def _check(encodings: Sequence[Encoding], tokenizer: Tokenizer, max_length: int) -> None:
    tokens = [token for encoding in encodings for token in encoding.token_ids]
    unknown = sum(token == tokenizer.unk_id for token in tokens) / len(tokens)
    median = statistics.median(map(len, encodings))
    for found, words in (
        (len(encodings) < ENOUGH, f"there are only {len(encodings)} of them; give {ENOUGH} or more"),
        (unknown > 0.1, f"{unknown:.0%} of their tokens are unknown to the tokenizer: are they of another language?"),
        (median < 6, f"half of them have fewer than {median:.0f} tokens; give texts as long as those it will read"),
        (
            median >= max_length,
            f"half of them are cut at {max_length} tokens; give texts as long as those it will read",
        ),
    ):
        if found:
            warnings.warn(f"the calibration texts may mislead: {words}", CalibrationWarning, stacklevel=3)


@torch.inference_mode()
def agreement(model: Any, faster: Any, batch: Packed) -> Agreement:
    """Cosine of each sequence's mean vector under both models; of those that write, also their next tokens.

    An encoder–decoder reads the batch; its vectors are those of what the first model writes then.
    """
    vectors: list[Tensor]
    if isinstance(model, EncoderDecoder):
        sources, batch = batch, _answers(model, batch)
        vectors = [one(batch, one.encode(sources)) for one in (model, faster)]
    else:
        vectors = [one(batch) for one in (model, faster)]  # [T, D]
    means = [torch.stack([part.mean(dim=0) for part in batch.split(x)]) for x in vectors]  # [N, D]
    cosines = F.cosine_similarity(means[0].double(), means[1].double())
    same: float | None = None
    if isinstance(model, DecoderLM | EncoderDecoder) and model.language_model is not None:
        pairs: Any = zip((model, faster), vectors, strict=True)
        tokens = [one.next_token_logits(x).argmax(dim=-1) for one, x in pairs]
        same = float((tokens[0] == tokens[1]).double().mean())
    return Agreement(float(cosines.mean()), float(cosines.min()), batch.num_sequences, same)


def _answers(model: EncoderDecoder, sources: Packed) -> Packed:
    """What the decoder begins with and goes on to, greedily, for each source."""
    conditioned = Conditioned(model, [ids.tolist() for ids in sources.split(sources.values)])
    new = generate(conditioned, conditioned.prompts, GenerationSettings(max_new_tokens=ANSWER))
    return Packed.from_sequences([[*prompt, *ids] for prompt, ids in zip(conditioned.prompts, new, strict=True)])


@torch.inference_mode()
def smoothing(model: OneStack, batch: Packed, *, alpha: float = 0.5) -> dict[str, Tensor]:
    """Factors [K] that move a channel's range from activations to weights: max|x|^α / max|w|^(1 - α).

    Of the maps that read a norm's output, where a few channels are far larger than the rest, as seen on a batch (Xiao
    et al., 2023, SmoothQuant).
    """
    found: dict[str, Tensor] = {}
    hooks = []
    blocks: list[Any] = list(model.stack.layers)
    for number, block in enumerate(blocks):
        maps = linear_maps(block)
        for names in (("qkv",), ("up", "gate") if "gate" in maps else ("up",)):  # those that read the same
            readers = {f"{number}.{name}": maps[name] for name in names}

            def see(
                module: nn.Module, inputs: Any, output: Any, readers: dict[str, nn.Linear] = readers
            ) -> None:  # fmt: skip
                activations = inputs[0].abs().amax(dim=0).clamp_min(1e-5)  # [K]
                weights = torch.cat([linear.weight for linear in readers.values()]).abs().amax(dim=0).clamp_min(1e-5)
                factors = (activations**alpha / weights ** (1 - alpha)).float()
                found.update(dict.fromkeys(readers, factors))

            hooks.append(maps[names[0]].register_forward_hook(see))
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found
