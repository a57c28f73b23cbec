"""Image to text: a caption of an image, as the task of transformers 4 gave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sensorium.checkpoint import Checkpoint
from sensorium.config import CaptionerConfig
from sensorium.errors import DataError, UsageError
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.settings import GenerationSettings, settings_of
from sensorium.infer.write import Written, write
from sensorium.packed import Packed
from sensorium.tasks._images import ImageTask, is_one_image
from sensorium.tasks.image_text_to_text import ImageTextToText
from sensorium.tasks.text_generation import scored

Answers = list[dict[str, Any]]


class ImageToText:
    """An image → what a model says of it, from nothing or from a beginning that it is given."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        among_words = not isinstance(checkpoint.config, CaptionerConfig)
        self.reader: _Reader | _Captions = (_Reader if among_words else _Captions)(checkpoint, batch_tokens)
        self.model: Any = checkpoint.model

    def __call__(self, images: Any, *, prompt: str | None = None, **options: Any) -> Any:
        """``[{"generated_text"}]`` for an image; a list of those for a list of images; a stream for a stream.

        An image is a file, its bytes, a picture of Pillow, or an array [H, W, 3] uint8. ``prompt`` is what the text
        begins with, and is given back at its beginning, as the tokenizer writes it; a model that reads images among
        words (LLaVA) reads it behind the image, or around its own token for one. ``options`` are those of
        ``GenerationSettings``; 20 new tokens where neither they nor the checkpoint say how many. Raises ``UsageError``
        for a prompt that leaves no room.
        """
        if prompt is not None and not isinstance(prompt, str):
            raise UsageError(f"prompt is a {type(prompt).__name__}; a text is expected, for all images")
        return self.reader.about(images, prompt or "", options)


class _Captions(ImageTask):
    """By a decoder that attends to the image (BLIP)."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        super().__init__(checkpoint, batch_tokens)
        self.tokenizer = checkpoint.require_tokenizer()

    def about(self, images: Any, prompt: str, options: dict[str, Any]) -> Any:
        """The answers, in the shape that the images have."""
        given = {name: value for name, value in options.items() if value is not None}
        end = {"eos_token_id": self.model.config.end_token_id}  # whatever a generation_config.json says, as published
        settings = settings_of({**end, **given}, self.checkpoint.generation)
        beginning = self.tokenizer.encode_plain(prompt)

        def run(batch: Packed) -> Sequence[Answers]:
            return self._written(batch, beginning, settings)

        return self.answer(images, run, lambda answers: answers)

    def _written(self, batch: Packed, beginning: list[int], settings: GenerationSettings) -> list[Answers]:
        reader = Conditioned(self.model, batch, settings.decoder_start_token_id)
        prompts = [[*prompt, *beginning] for prompt in reader.prompts]
        said = self.tokenizer.decode(beginning)

        def answer(one: Written) -> dict[str, Any]:
            return {"generated_text": (said + (one.text or "")).strip(), **scored(one, self.tokenizer)}

        return [[answer(one) for one in answers] for answers in write(reader, prompts, settings, self.tokenizer)]


class _Reader:
    """By a decoder that reads the image among words (LLaVA)."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        self.task = ImageTextToText(checkpoint, batch_tokens)

    def about(self, images: Any, prompt: str, options: dict[str, Any]) -> Any:
        """The answers, in the shape that the images have."""
        place = self.task.placeholder
        text = prompt if place in prompt else place + prompt
        if text.count(place) > 1:
            raise DataError(f"the prompt has {text.count(place)} places for an image, and there is one; leave one")
        found = self.task(images, text=text, return_full_text=False, **options)
        said = text.replace(place, "")

        def answered(answers: Answers) -> Answers:
            kept = [{key: value for key, value in one.items() if key != "input_text"} for one in answers]
            return [{**one, "generated_text": (said + one["generated_text"]).strip()} for one in kept]

        if is_one_image(images):
            return answered(found)
        stream: Iterator[Answers] = map(answered, found)
        return list(stream) if isinstance(found, list) else stream
