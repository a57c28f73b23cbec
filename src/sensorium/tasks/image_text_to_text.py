"""Image-text-to-text: go on from a text with images in it, or answer in a chat with images in it."""

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
from sensorium.tasks._image_chats import images_of
from sensorium.tasks._images import ImageTask, is_one_image
from sensorium.tasks._task import require_text
from sensorium.tasks.text_generation import Messages, goes_on, is_chat, joined, scored
from sensorium.text.chat import encode_chat
from sensorium.text.drawing import frame_of_images


@dataclass(frozen=True)
class _Prompt:
    """A text whose images were made ready."""

    text: Any
    """Or the messages of a chat."""
    pixels: list[Tensor]
    ids: list[int]
    """As the vocabulary has it: one token for each image."""


@dataclass(frozen=True)
class _Given:
    """What shapes an answer."""

    settings: GenerationSettings
    full: bool
    go_on: bool | None


class ImageTextToText(ImageTask):
    """Images and a text that speaks of them → the text that comes next."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        super().__init__(checkpoint, batch_tokens)
        config = checkpoint.config
        assert isinstance(config, MultimodalConfig)
        self.config = config
        self.tokenizer = checkpoint.require_tokenizer()
        self.placeholder = self.tokenizer.token(config.image_token_id)
        self.frame = ([], []) if config.drawing is None else frame_of_images(self.tokenizer)

    def __call__(
        self, images: Any = None, *, text: Any = None, return_full_text: bool = True,
        continue_final_message: bool | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """``[{"input_text", "generated_text"}]`` for an image; a list of those for a list of images.

        An image is a file, its bytes, a picture of Pillow, or an array [H, W, 3] uint8; a list in the place of one are
        the images of one text. ``text`` is for all of them, or one for each. The token that stands for an image (such
        as ``<image>``) says where each stands in the text; where it is not in the text, they stand before it. A stream
        of images is answered as a stream.

        A chat, as ``text`` or in the place of images, has its images in it, as parts of its messages: ``{"type":
        "image", "path": "cat.png"}`` (or ``image``, ``url``) beside ``{"type": "text", "text": "What is it?"}``. The
        chat template makes it a text; ``generated_text`` is the chat with the assistant's message after it.
        ``continue_final_message``: whether the last message is gone on with; ``None``: if it is the assistant's.

        ``return_full_text``: the text stands before what is written. ``options`` are those of ``GenerationSettings``.
        Raises ``DataError`` where images and places differ in number.
        """
        given = _Given(settings_of(options, self.checkpoint.generation), return_full_text, continue_final_message)
        if images is None:
            images, text = text, None  # chats alone
        if is_one_image(images) or is_chat(images):
            return next(self._answered([images], text, given))
        if not isinstance(images, Iterable):
            raise DataError(f"the input is a {type(images).__name__}; an image, or several of them, is expected")
        stream = self._answered(images, text, given)
        return list(stream) if isinstance(images, list | tuple) else stream

    def _answered(self, inputs: Iterable[Any], text: Any, given: _Given) -> Iterator[list[dict[str, Any]]]:
        """Batches of prompts whose places, the new ones of every branch among them, fit ``batch_tokens``."""

        def size(prompt: _Prompt) -> int:
            return given.settings.room(len(prompt.ids) + sum(self._places(pixels) for pixels in prompt.pixels))

        prompts = (
            self._chat(one, text, given, number) if is_chat(one) else self._prompt(one, text, given, number)
            for number, one in enumerate(inputs, 1)
        )
        for batch in within(prompts, size, self.batch_tokens):
            yield from self._batch(batch, given)

    def _prompt(self, images: Any, text: Any, given: _Given, number: int) -> _Prompt:
        if given.go_on is not None:
            raise UsageError("continue_final_message is for chats: lists of messages")
        if text is None:
            raise UsageError("an image needs a text that speaks of it: give text=…, or a chat with images in it")
        several = images if isinstance(images, list | tuple) else [images]
        if not isinstance(text, str):
            if number > len(text):
                raise UsageError(f"there are {len(text)} texts and more images; give one text, or one for each")
            text = text[number - 1]
        text = require_text(text, number)
        if self.placeholder not in text:
            text = self.placeholder * len(several) + "\n" + text
        return self._ready(text, several, self.tokenizer.encode(text).token_ids, number)

    def _chat(self, messages: Messages, text: Any, given: _Given, number: int) -> _Prompt:
        if text is not None:
            raise UsageError("a chat has its images and texts in it; give no text beside it")
        plain, images = images_of(messages, number)
        ids = encode_chat(
            self.tokenizer,
            self.checkpoint.require_chat_template(),
            plain,
            add_generation_prompt=True,
            continue_final=goes_on(messages, given.go_on),
        )
        if self.tokenizer.bos_id is None or ids[:1] != [self.tokenizer.bos_id]:
            # The published processors frame what a template wrote, unlike the published tokenizers.
            before, after = self.tokenizer.frame()
            ids = [*before, *ids, *after]
        return self._ready(messages, images, ids, number)

    def _ready(self, text: Any, images: Sequence[Any], ids: list[int], number: int) -> _Prompt:
        """Raises ``DataError`` where images and places differ in number."""
        places = ids.count(self.config.image_token_id)
        if places != len(images):
            raise DataError(f"input {number}: {len(images)} images, and {places} places for one in the text")
        return _Prompt(text, [self.pixels(image, number) for image in images], ids)

    def _places(self, pixels: Tensor) -> int:
        before, after = self.frame
        return self.stem.patches(*pixels.shape[1:]) + len(before) + len(after)

    def _batch(self, prompts: list[_Prompt], given: _Given) -> list[list[dict[str, Any]]]:
        pixels = [one for prompt in prompts for one in prompt.pixels]
        looking: Any = self.model.text  # where no prompt has an image
        shown: Iterator[list[int]] = iter(())
        if pixels:
            looking = Looking(self.model, pack_images(pixels, self.stem.patch_size, class_token=self.stem.class_token))
            shown = iter(looking.image_ids)
        found = write(looking, [self._seen(prompt, shown) for prompt in prompts], given.settings, self.tokenizer)
        return [
            [
                {
                    "input_text": prompt.text,
                    "generated_text": joined(prompt.text, one.text or "", given.full, given.go_on),
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
            if token_id == self.config.image_token_id:
                before, after = self.frame
                ids += [*before, *next(shown), *after]
            else:
                ids.append(token_id)
        return ids
