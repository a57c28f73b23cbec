"""GGUF files: metadata and tensors in one file, read after its whole header was checked against the file's length.

The header is walked here, in bounded code: every count, length, dimension and offset is compared with the bytes that
are left before anything of its size is allocated. Only then does the ``gguf`` library (extra ``gguf``) turn one tensor
at a time into numbers. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.errors import CheckpointError, missing_extra

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 10_000
MAX_TENSORS = 100_000
MAX_TEXT_BYTES = 16 * 2**20
"""A chat template has some thousands."""
MAX_NAME_BYTES = 256
MAX_ARRAY = 2**22
"""Entries of an array: the largest vocabularies have some hundred thousand tokens and merges."""
MAX_ARRAY_BYTES = 256 * 2**20
MAX_ALIGNMENT = 2**16
MAX_DIMENSIONS = 4

_NUMBERS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 10: "<Q", 11: "<q", 12: "<d"}
"""Type of a metadata value → how ``struct`` reads it. 7 is a truth value, 8 a text, 9 an array."""
_BOOL, _TEXT, _ARRAY = 7, 8, 9
LEAST_KEY_BYTES, LEAST_TENSOR_BYTES = 8 + 1 + 4 + 1, 8 + 1 + 4 + 8 + 4 + 8

# Type of a tensor → name, weights in a block, bytes of a block. Those that are absent are not weights, or the library
# cannot read them.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56),
}  # fmt: skip


@dataclass(frozen=True)
class GGUFTensor:
    """What the header says of one tensor, after it was checked against the file."""

    type: str
    """``F32``, ``Q4_1``, …"""
    shape: tuple[int, ...]
    """Rows first, as torch has it: the file says it the other way round."""
    start: int
    """First byte in the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class GGUFFile:
    """A checked header; the weights are still on disk."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]

    def tensor(self, name: str) -> Tensor:
        """One tensor's numbers in float32. Raises ``CheckpointError`` for NaN or infinite ones."""
        return _dequantise(self.path, name, self.tensors[name])


def read_gguf(path: str | Path) -> GGUFFile:
    """Read and check a GGUF file's header.

    Raises ``CheckpointError`` naming the first count, length, offset or type that does not fit the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise CheckpointError(f"{path}: the file is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read_header(path, data)
    except OSError as problem:
        raise CheckpointError(f"{path}: {problem.strerror or problem}") from problem


class _Cursor:
    """A place in a file: takes the next value, or fails where the file has not that many bytes left."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.position, self.what = path, data, 0, "the header"

    @property
    def left(self) -> int:
        """Bytes after this place."""
        return len(self.data) - self.position

    def fail(self, problem: str) -> CheckpointError:
        """The error for what is being read."""
        return CheckpointError(f"{self.path}: {self.what} {problem}; the file is truncated or damaged")

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > self.left:
            raise self.fail(f"claims {size:,} bytes at {self.position:,}, where {self.left:,} are left")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, code: str) -> Any:
        """The next number, as ``struct`` reads it."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def count(self, most: int, least_bytes: int) -> int:
        """How many things follow: at most ``most``, and each has ``least_bytes`` at least."""
        count: int = self.number("<Q")
        if count > most:
            raise CheckpointError(f"{self.path}: {self.what} claims {count:,} entries; at most {most:,} are read")
        if count * least_bytes > self.left:
            raise self.fail(f"claims {count:,} entries, and {self.left:,} bytes are left")
        return count

    def text(self, most: int) -> str:
        """The next text."""
        size: int = self.number("<Q")
        if size > most:
            raise CheckpointError(
                f"{self.path}: {self.what} claims a text of {size:,} bytes; at most {most:,} are read"
            )
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError as problem:
            raise self.fail("is not UTF-8") from problem

    def truth(self) -> bool:
        """The next truth value."""
        value = self.number("B")
        if value > 1:
            raise self.fail(f"is {value}, neither true nor false")
        return bool(value)

    def value(self, kind: int) -> Any:
        """The next value of a metadata type; an array is a list."""
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _BOOL:
            return self.truth()
        if kind == _TEXT:
            return self.text(MAX_TEXT_BYTES)
        if kind == _ARRAY:
            return self._array(self.number("<I"))
        raise self.fail(f"has the unknown type {kind}")

    def _array(self, kind: int) -> list[Any]:
        if kind == _ARRAY:
            raise self.fail("is an array of arrays")
        if kind in _NUMBERS:
            code = _NUMBERS[kind][-1]
            size = struct.calcsize(f"<{code}")
            count = self.count(MAX_ARRAY, size)
            return list(struct.unpack(f"<{count}{code}", self.take(count * size)))
        count = self.count(MAX_ARRAY, 1 if kind == _BOOL else 8)
        start, values = self.position, []
        for _ in range(count):
            values.append(self.value(kind))
            if self.position - start > MAX_ARRAY_BYTES:
                raise CheckpointError(f"{self.path}: {self.what} has more than {MAX_ARRAY_BYTES:,} bytes of texts")
        return values


def _read_header(path: Path, data: mmap.mmap) -> GGUFFile:
    cursor = _Cursor(path, data)
    if cursor.left < 24 or cursor.take(4) != MAGIC:
        raise CheckpointError(f"{path}: not a GGUF file: it does not begin with {MAGIC.decode()} and a header")
    version = cursor.number("<I")
    if version not in VERSIONS:
        raise CheckpointError(f"{path}: GGUF version {version}; versions 2 and 3, little-endian, are read")
    cursor.what = "the number of tensors"
    num_tensors = cursor.count(MAX_TENSORS, LEAST_TENSOR_BYTES)
    cursor.what = "the number of metadata keys"
    num_keys = cursor.count(MAX_KEYS, LEAST_KEY_BYTES)
    metadata: dict[str, Any] = {}
    for number in range(num_keys):
        cursor.what = f"the name of metadata key {number}"
        key = cursor.text(MAX_NAME_BYTES)
        if key in metadata:
            raise CheckpointError(f"{path}: the metadata key {key!r} stands twice")
        cursor.what = f"the metadata {key!r}"
        metadata[key] = cursor.value(cursor.number("<I"))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise CheckpointError(f"{path}: general.alignment is {alignment!r}; a power of two from 8 up is expected")
    tensors: dict[str, tuple[int, GGUFTensor]] = {}
    for number in range(num_tensors):
        cursor.what = f"the name of tensor {number}"
        name = cursor.text(MAX_NAME_BYTES)
        if name in tensors:
            raise CheckpointError(f"{path}: the tensor {name!r} stands twice")
        cursor.what = f"the tensor {name!r}"
        tensors[name] = _tensor_info(cursor)
    start = _aligned(cursor.position, alignment)
    return GGUFFile(path, metadata, _placed(path, tensors, start, len(data), alignment))


def _tensor_info(cursor: _Cursor) -> tuple[int, GGUFTensor]:
    """(offset after the header, the tensor without its place)."""
    dimensions = cursor.number("<I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise cursor.fail(f"has {dimensions:,} dimensions, 1 to {MAX_DIMENSIONS} are possible")
    shape = tuple(cursor.number("<Q") for _ in range(dimensions))
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    if kind not in TYPES:
        raise CheckpointError(f"{cursor.path}: {cursor.what} has type {kind}, which cannot be read")
    name, block, block_bytes = TYPES[kind]
    weights = math.prod(shape)
    if weights == 0 or shape[0] % block:
        raise cursor.fail(f"has shape {[*reversed(shape)]}, which {name} cannot hold: it has blocks of {block}")
    return offset, GGUFTensor(name, shape[::-1], 0, weights // block * block_bytes)


def _placed(
    path: Path, tensors: Mapping[str, tuple[int, GGUFTensor]], start: int, file_bytes: int, alignment: int
) -> dict[str, GGUFTensor]:
    """The tensors at their places: they follow one another, each at a multiple of ``alignment``, up to the end."""
    placed: dict[str, GGUFTensor] = {}
    expected = 0
    for name, (offset, tensor) in sorted(tensors.items(), key=lambda item: item[1][0]):
        if offset != expected:
            raise CheckpointError(
                f"{path}: tensor {name!r} starts at {offset:,}, expected {expected:,}: gap or overlap"
            )
        if start + offset + tensor.size > file_bytes:
            raise CheckpointError(
                f"{path}: tensor {name!r} claims {tensor.size:,} bytes ({tensor.type} {list(tensor.shape)}) at "
                f"{start + offset:,}, but the file has {file_bytes:,}; it is truncated or damaged"
            )
        placed[name] = GGUFTensor(tensor.type, tensor.shape, start + offset, tensor.size)
        expected = _aligned(offset + tensor.size, alignment)
    if file_bytes - start > expected:
        raise CheckpointError(f"{path}: {file_bytes - start - expected:,} bytes follow the last tensor")
    return {name: placed[name] for name in tensors}


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _dequantise(path: Path, name: str, tensor: GGUFTensor) -> Tensor:
    import numpy
    import torch

    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise missing_extra("gguf", "gguf") from error

    rows = math.prod(tensor.shape[:-1])
    stored = numpy.memmap(path, numpy.uint8, "r", tensor.start, (rows, tensor.size // rows))
    with numpy.errstate(all="ignore"):  # a damaged scale is named below
        numbers = dequantize(stored, GGMLQuantizationType[tensor.type])
    values = torch.from_numpy(numpy.array(numbers, numpy.float32)).view(tensor.shape)  # a copy: the file stays closed
    if not math.isfinite(values.sum().item()):
        bad = int((~values.isfinite()).sum())
        if bad:
            raise CheckpointError(f"{path}: tensor {name!r} holds {bad:,} NaN or infinite values; the file is damaged")
    return values
