"""Image-text-to-text: go on from a text with images in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sensorium.checkpoint import Checkpoint
from sensorium.config import MultimodalConfig
from sensorium.errors import DataError, UsageError
from sensorium.image.patches import pack_images
from sensorium.infer.batching import within
from sensorium.infer.looking import Looking
from sensorium.infer.settings import GenerationSettings, settings_of
from sensorium.infer.write import write
from sensorium.tasks._images import ImageTask, is_one_image
from sensorium.tasks._task import require_text
from sensorium.tasks.text_generation import scored


@dataclass(frozen=True)
class _Prompt:
    """A text whose images were made ready."""

    text: str
    pixels: list[Tensor]
    ids: list[int]
    """As the vocabulary has it: one token for each image."""


class ImageTextToText(ImageTask):
    """Images and a text that speaks of them → the text that comes next."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        super().__init__(checkpoint, batch_tokens)
        config = checkpoint.config
        assert isinstance(config, MultimodalConfig)
        self.config = config
        self.tokenizer = checkpoint.require_tokenizer()
        self.placeholder = self.tokenizer.token(config.image_token_id)

    def __call__(
        self, images: Any, *, text: str | Sequence[str], return_full_text: bool = True, **options: Any
    ) -> Any:  # fmt: skip
        """``[{"input_text", "generated_text"}]`` for an image; a list of those for a list of images.

        An image is a file, its bytes, a picture of Pillow, or an array [H, W, 3] uint8; a list in the place of one are
        the images of one text. ``text`` is for all of them, or one for each. The token that stands for an image (such
        as ``<image>``) says where each stands in the text; where it is not in the text, they stand before it. A stream
        of images is answered as a stream. ``return_full_text``: the text stands before what is written.
        ``options`` are those of ``GenerationSettings``. Raises ``DataError`` where images and places differ in number.
        """
        settings = settings_of(options, self.checkpoint.generation)
        if is_one_image(images):
            return next(self._answered([images], text, settings, return_full_text))
        if not isinstance(images, Iterable):
            raise DataError(f"the input is a {type(images).__name__}; an image, or several of them, is expected")
        stream = self._answered(images, text, settings, return_full_text)
        return list(stream) if isinstance(images, list | tuple) else stream

    def _answered(
        self, images: Iterable[Any], text: str | Sequence[str], settings: GenerationSettings, full: bool
    ) -> Iterator[list[dict[str, Any]]]:
        """Batches of prompts whose places, the new ones of every branch among them, fit ``batch_tokens``."""

        def size(prompt: _Prompt) -> int:
            return settings.room(len(prompt.ids) + sum(self._places(pixels) for pixels in prompt.pixels))

        prompts = (self._prompt(one, text, number) for number, one in enumerate(images, 1))
        for batch in within(prompts, size, self.batch_tokens):
            yield from self._batch(batch, settings, full)

    def _prompt(self, images: Any, text: str | Sequence[str], number: int) -> _Prompt:
        several = images if isinstance(images, list | tuple) else [images]
        if not isinstance(text, str):
            if number > len(text):
                raise UsageError(f"there are {len(text)} texts and more images; give one text, or one for each")
            text = text[number - 1]
        text = require_text(text, number)
        if self.placeholder not in text:
            text = self.placeholder * len(several) + "\n" + text
        ids = self.tokenizer.encode(text).token_ids
        places = ids.count(self.config.image_token_id)
        if places != len(several):
            raise DataError(f"input {number}: {len(several)} images, and {places} places for one in the text")
        return _Prompt(text, [self.pixels(image, number) for image in several], ids)

    def _places(self, pixels: Tensor) -> int:
        rows, columns = (side // self.stem.patch_size for side in pixels.shape[1:])
        return int(rows * columns)

    def _batch(self, prompts: list[_Prompt], settings: GenerationSettings, full: bool) -> list[list[dict[str, Any]]]:
        pixels = [one for prompt in prompts for one in prompt.pixels]
        looking = Looking(self.model, pack_images(pixels, self.stem.patch_size, class_token=self.stem.class_token))
        shown = iter(looking.image_ids)
        found = write(looking, [self._seen(prompt, shown) for prompt in prompts], settings, self.tokenizer)
        return [
            [
                {
                    "input_text": prompt.text,
                    "generated_text": prompt.text * full + (one.text or ""),
                    **scored(one, self.tokenizer),
                }
                for one in answers
            ]
            for prompt, answers in zip(prompts, found, strict=True)
        ]

    def _seen(self, prompt: _Prompt, shown: Iterator[list[int]]) -> list[int]:
        """The prompt with the vectors of each image in the place of its token."""
        ids: list[int] = []
        for token_id in prompt.ids:
            ids += next(shown) if token_id == self.config.image_token_id else [token_id]
        return ids
