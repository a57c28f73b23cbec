"""What every task that looks at images does the same way.

Shapes: H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sensorium.checkpoint import Checkpoint
from sensorium.config import PatchStemConfig
from sensorium.errors import DataError, UsageError
from sensorium.image.opening import normalised, not_an_image, open_image, open_images
from sensorium.image.patches import pack_images
from sensorium.packed import Packed

OnError = Literal["raise", "answer"]
Run = Callable[[Packed], Sequence[Any]]
"""Packed patches → one result an image."""
ON_ERROR: tuple[OnError, ...] = get_args(OnError)
MOST_WAITING = 4096
"""Images of a batch, however small, and however many of them are broken."""


class ImageTask:
    """A checkpoint that looks at images, at work."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        """Raises ``CheckpointError`` when nothing says how images are made ready."""
        self.checkpoint = checkpoint
        self.model: Any = checkpoint.model
        self.settings = checkpoint.require_image_settings()
        self.batch_tokens = batch_tokens
        config: Any = checkpoint.config
        self.stem: PatchStemConfig = getattr(config, "image", config).stem

    def answer(self, inputs: Any, run: Run, finish: Callable[[Any], Any], on_error: OnError = "raise") -> Any:
        """One image → its answer; a list → a list; any other iterable → a generator of answers, in input order.

        An image is a file, its bytes, a picture of Pillow, or an array [H, W, 3] uint8. What can't be read raises
        ``DataError``, after the answers before it where they are a stream; with ``on_error`` "answer" it has
        ``{"error": why}`` for an answer, and all others have theirs.
        """
        if on_error not in ON_ERROR:
            raise UsageError(f"on_error is {on_error!r}; known are {', '.join(ON_ERROR)}")
        if is_one_image(inputs):
            return next(self._stream([inputs], run, finish, on_error))
        if not isinstance(inputs, Iterable):
            raise DataError(f"the input is a {type(inputs).__name__}; an image, or several of them, is expected")
        stream = self._stream(inputs, run, finish, on_error)
        return list(stream) if isinstance(inputs, list | tuple) else stream

    def _stream(
        self, inputs: Iterable[Any], run: Run, finish: Callable[[Any], Any], on_error: OnError
    ) -> Iterator[Any]:  # fmt: skip
        """Batch after batch."""
        most = self.batch_tokens * self.stem.patch_size**2
        waiting: list[Tensor | DataError] = []
        size = 0
        for one in self.opened(inputs):
            if isinstance(one, DataError) and on_error == "raise":
                yield from self._answers(waiting, run, finish)
                raise one
            waiting.append(one)
            size += 0 if isinstance(one, DataError) else one[0].numel()
            if size >= most or len(waiting) >= MOST_WAITING:
                yield from self._answers(waiting, run, finish)
                waiting, size = [], 0
        yield from self._answers(waiting, run, finish)

    def _answers(self, batch: list[Tensor | DataError], run: Run, finish: Callable[[Any], Any]) -> list[Any]:
        found = iter(self._run([one for one in batch if not isinstance(one, DataError)], run))
        return [{"error": str(one)} if isinstance(one, DataError) else finish(next(found)) for one in batch]

    @torch.inference_mode()
    def _run(self, images: list[Tensor], run: Run) -> Sequence[Any]:
        if not images:
            return []
        return run(pack_images(images, self.stem.patch_size, class_token=self.stem.class_token))

    def opened(self, images: Iterable[Any]) -> Iterator[Tensor | DataError]:
        """Images → [3, H, W] each as the model wants it, in their order; for what is none, the reason in its place."""
        checked = (_refused(one, number) or one for number, one in enumerate(images, 1))
        for pixels in open_images(checked, self.settings):
            yield pixels if isinstance(pixels, DataError) else normalised(pixels, self.settings)

    def pixels(self, one: Any, number: int) -> Tensor:
        """An image → [3, H, W] as the model wants it. Raises ``DataError`` for what is none."""
        if refused := _refused(one, number):
            raise refused
        return normalised(open_image(one, self.settings), self.settings)


def _refused(one: Any, number: int) -> DataError | None:
    """What says that an input is no image, before it is looked into."""
    if isinstance(one, str) and one.startswith(("http://", "https://")):
        return DataError(f"input {number} is an address ({one}); download the image, and give its file")
    reason = not_an_image(one)
    return None if reason is None else DataError(f"input {number} is {reason}")


def is_one_image(inputs: Any) -> bool:
    """Whether it is one image rather than several."""
    if isinstance(inputs, str | Path | bytes):
        return True
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 3
    return type(inputs).__module__.startswith("PIL.")
