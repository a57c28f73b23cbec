"""Text-to-image: draw what a text says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from sensorium.checkpoint import Checkpoint
from sensorium.errors import CheckpointError, missing_extra
from sensorium.infer.batching import within
from sensorium.infer.drawing import DrawingSettings, draw_tokens, pictures_of
from sensorium.models.multimodal import MultimodalLM
from sensorium.tasks._task import require_iterable, require_text
from sensorium.text.drawing import hidden_caption, prompt_ids


class TextToImage:
    """Texts in, pictures of Pillow out."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        """Raises ``CheckpointError`` when the model does not draw, or nothing says what its values mean."""
        model = checkpoint.model
        if not isinstance(model, MultimodalLM) or model.drawing is None:
            raise CheckpointError(f"{checkpoint.folder}: a {checkpoint.family} model does not draw; a janus does")
        self.checkpoint, self.model, self.drawing = checkpoint, model, model.drawing
        self.tokenizer = checkpoint.require_tokenizer()
        self.settings = checkpoint.require_image_settings()
        self.batch_tokens = batch_tokens
        chosen = checkpoint.generation.get("guidance_scale")
        usable = isinstance(chosen, int | float) and chosen >= 1
        self.guidance_scale = float(chosen) if usable else DrawingSettings.guidance_scale  # type: ignore[arg-type]

    def __call__(
        self,
        prompts: Any,
        *,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        do_sample: bool = True,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Any:
        """A picture (``PIL.Image``) for a text; a list of them for a list; a stream for a stream.

        With ``num_images_per_prompt`` above 1, a list of pictures stands for each text. The options are those of
        ``DrawingSettings``; where ``guidance_scale`` is not given, it is what the checkpoint's makers chose.
        """
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        settings = DrawingSettings(scale, do_sample, temperature, top_k, top_p, num_images_per_prompt, seed)
        if isinstance(prompts, str):
            return next(self._drawn([prompts], settings))
        stream = self._drawn(require_iterable(prompts), settings)
        return list(stream) if isinstance(prompts, list | tuple) else stream

    def _drawn(self, texts: Iterable[Any], settings: DrawingSettings) -> Iterator[Any]:
        """Batches whose tokens, those without words among them, fit ``batch_tokens``."""
        sequences = settings.num_images_per_prompt * (2 if settings.guidance_scale > 1.0 else 1)
        length = self.drawing.codec.config.num_tokens
        prompts = (prompt_ids(require_text(text, n), self.tokenizer) for n, text in enumerate(texts, 1))
        for batch in within(prompts, lambda prompt: sequences * (len(prompt) + length), self.batch_tokens):
            hidden = [hidden_caption(prompt, self.tokenizer) for prompt in batch]
            pictures = self.pictures(draw_tokens(self.model, batch, hidden, settings))
            copies = settings.num_images_per_prompt
            for n in range(len(batch)):
                several = pictures[n * copies : (n + 1) * copies]
                yield several if copies > 1 else several[0]

    def pictures(self, tokens: torch.Tensor) -> list[Any]:
        """[N, h, w] tokens → N pictures of Pillow."""
        try:
            from PIL import Image
        except ImportError as error:
            raise missing_extra("pillow", "images") from error
        values = pictures_of(self.model, tokens).permute(0, 2, 3, 1)  # [N, H, W, 3]
        values = values * torch.tensor(self.settings.std) + torch.tensor(self.settings.mean)
        pixels = (values / self.settings.scale).round().clamp(0, 255).to(torch.uint8).numpy()
        return [Image.fromarray(np.ascontiguousarray(one)) for one in pixels]
