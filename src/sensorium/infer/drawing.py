"""Drawing: the tokens of a picture, one after another, guided towards what its words ask for.

Shapes: N drawings, S sequences (N, or 2 N with those that go on from hidden words), C codes, D hidden size, h and w
tokens of a drawing's sides, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensorium.errors import UsageError
from sensorium.infer.fast_stack import cache_for
from sensorium.infer.filters import apply, make_warpers
from sensorium.infer.sampling import draw, source_of_chance
from sensorium.infer.settings import GenerationSettings
from sensorium.models.multimodal import MultimodalLM
from sensorium.packed import Packed


@dataclass(frozen=True)
class DrawingSettings:
    """How a model draws. It samples: the likeliest token again and again gives an empty ground."""

    guidance_scale: float = 5.0
    """How far a token's logits go from what they are without the words towards, and beyond, what they are with them
    (Ho & Salimans, 2021); 1: no further than the words themselves take them."""
    do_sample: bool = True
    temperature: float = 1.0
    top_k: int = 0
    """Sample among so many of the likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Sample among the likeliest that together have this probability."""
    num_images_per_prompt: int = 1
    seed: int | None = None
    """The same seed gives a prompt the same pictures, whatever is drawn beside them; ``None``: others each time."""

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a value that can't be meant."""
        if not 1.0 <= self.guidance_scale < float("inf"):
            raise UsageError(f"guidance_scale is {self.guidance_scale!r}; it must be 1 or more")
        if self.num_images_per_prompt < 1:
            raise UsageError(f"num_images_per_prompt is {self.num_images_per_prompt!r}; at least 1 can be asked for")
        if self.num_images_per_prompt > 1 and not self.do_sample:
            raise UsageError("num_images_per_prompt is above 1, and without do_sample all of them would be the same")
        self.sampling()

    def sampling(self) -> GenerationSettings:
        """The same for what writes texts, which checks them. Raises ``UsageError``."""
        if not self.do_sample:
            return GenerationSettings()
        return GenerationSettings(
            do_sample=True, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, seed=self.seed
        )


@torch.inference_mode()
def draw_tokens(
    model: MultimodalLM,
    prompts: Sequence[Sequence[int]],
    hidden: Sequence[Sequence[int]],
    settings: DrawingSettings = DrawingSettings(),
) -> Tensor:
    """[N, h, w] tokens of pictures, ``num_images_per_prompt`` for each prompt, one after another.

    ``hidden`` are the prompts with nothing said in them. Raises ``UsageError`` when the model does not draw, or a
    prompt leaves no room for a drawing.
    """
    drawing, codec = model.require_drawing(), model.require_drawing().codec.config
    _check(model, prompts, codec.num_tokens)
    copies, guided = settings.num_images_per_prompt, settings.guidance_scale > 1.0
    begun = [list(prompt) for prompt in prompts for _ in range(copies)]
    count = len(begun)
    begun += [list(prompt) for prompt in hidden for _ in range(copies)] if guided else []
    generators = [source_of_chance(settings.seed, n % copies) for n in range(count)]
    warpers = make_warpers(settings.sampling())
    capacity = max(map(len, begun)) + codec.num_tokens - 1
    cache = cache_for(model.text.stack, len(begun), capacity)
    batch, tokens = Packed.from_sequences(begun), torch.empty(count, 0, dtype=torch.int64)
    for _ in range(codec.num_tokens):
        hidden_states = model(batch, cache)[batch.last]  # [S, D]
        logits = drawing.logits(hidden_states)  # [S, C]
        logits = towards(logits, settings.guidance_scale) if guided else logits  # [N, C]
        chosen = logits.argmax(dim=-1)  # [N]
        if settings.do_sample:
            chosen = draw(apply(warpers, logits, ()).softmax(dim=-1), generators)
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        following = (chosen + model.config.first_drawn_id).tolist() * (2 if guided else 1)
        batch = Packed.from_sequences([[token] for token in following], start_positions=cache.lengths)
    return tokens.view(count, codec.grid, codec.grid)


def towards(logits: Tensor, scale: float) -> Tensor:
    """Logits [2 N, C] with words, then without → [N, C], those without moved by ``scale`` times their difference.

    >>> towards(torch.tensor([[1.0, 3.0], [1.0, 1.0]]), 5.0).tolist()
    [[1.0, 11.0]]
    """
    said, unsaid = logits.chunk(2)
    return unsaid + scale * (said - unsaid)


@torch.inference_mode()
def pictures_of(model: MultimodalLM, tokens: Tensor) -> Tensor:
    """[N, h, w] tokens → [N, 3, H, W] values as the model reads them."""
    return model.require_drawing().codec.decode(tokens)


def _check(model: MultimodalLM, prompts: Sequence[Sequence[int]], num_tokens: int) -> None:
    if not prompts:
        raise UsageError("there is no prompt to draw from")
    most = model.config.max_length - num_tokens
    for number, prompt in enumerate(prompts, 1):
        if len(prompt) > most:
            raise UsageError(
                f"prompt {number} has {len(prompt)} tokens; this model reads {most} beside a picture's {num_tokens}"
            )
