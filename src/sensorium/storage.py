"""The one atomic writer and the one checked reader: every file Sensorium writes or trusts goes through here.

Writing: a temporary name beside the target, fsync, rename, fsync of the folder; a crash leaves the old file or the new
one, never half of one. Reading: sizes are checked against the file's own length before anything is allocated, names
never leave the folder, duplicates are refused, nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.errors import CheckpointError, SensoriumError

if TYPE_CHECKING:
    from torch import Tensor

MAX_JSON_BYTES = 64 * 2**20
"""A ``tokenizer.json`` of 250 000 pieces has 17 MB."""
MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes the name ``path``, on an error it is removed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it becomes ``path`` (replacing one that is there)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        for item in [*temporary.rglob("*"), temporary]:
            _fsync(item)
        temporary.chmod(0o755)
        if path.exists():  # rename cannot replace a folder that is not empty: move the old one aside first
            os.rename(path, old)
        os.rename(temporary, path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            os.rename(old, path)
        shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically: indented, keys in the order given, characters as they are."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write one safetensors file atomically."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(contiguous, temporary, metadata or {"format": "pt"})


def write_weights(folder: str | Path, tensors: Mapping[str, Tensor], *, max_shard_bytes: int = 5 * 10**9) -> None:
    """Write a model's weights: one file, or shards with an index when they are larger than ``max_shard_bytes``."""
    shards: list[dict[str, Tensor]] = [{}]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if size > room and shards[-1]:
            shards.append({})
            room = max_shard_bytes
        shards[-1][name] = tensor
        room -= size
    folder = Path(folder)
    if len(shards) == 1:
        write_tensors(folder / WEIGHTS, shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(folder / file_name, shard)
        weight_map.update(dict.fromkeys(shard, file_name))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(folder / WEIGHTS_INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


# --- reading ---------------------------------------------------------------------------------------------------------


def read_text(
    path: str | Path, *, max_bytes: int = MAX_JSON_BYTES, error: type[SensoriumError] = CheckpointError
) -> str:
    """A whole UTF-8 file. Raises ``error`` when it is missing, too large or not UTF-8."""
    try:
        return read_bytes(path, max_bytes=max_bytes, error=error).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 at byte {problem.start:,}; convert the file to UTF-8") from problem


def read_bytes(
    path: str | Path, *, max_bytes: int = MAX_JSON_BYTES, error: type[SensoriumError] = CheckpointError
) -> bytes:
    """A whole file. Raises ``error`` when it is missing or too large."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise error(f"{path}: {size:,} bytes; at most {max_bytes:,} are read")
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: {problem.strerror or problem}") from problem


def read_json(path: str | Path) -> Any:
    """A JSON file: bounded in size and depth, duplicate keys refused. Raises ``CheckpointError``."""
    return parse_json(read_text(path), where=str(path))


def parse_json(text: str, *, where: str) -> Any:
    """JSON text; ``where`` names its source in the error."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as problem:
        raise CheckpointError(f"{where}: not valid JSON: {problem}") from problem


def read_object(path: str | Path) -> dict[str, Any]:
    """A JSON file whose top is an object. Raises ``CheckpointError``."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


@dataclass(frozen=True)
class TensorInfo:
    """What a safetensors header says of one tensor, after it was checked against the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_safetensors_header(path: str | Path) -> dict[str, TensorInfo]:
    """The header of a safetensors file, every size in it checked against the file's own length.

    Raises ``CheckpointError`` naming the first tensor that does not fit. Format:
    https://huggingface.co/docs/safetensors
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path}: not a whole safetensors file: its header claims {length:,} bytes, the file has {size:,}"
                )
            raw = file.read(length)
    except OSError as problem:
        raise CheckpointError(f"{path}: {problem.strerror or problem}") from problem
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: its safetensors header is not UTF-8") from problem
    header = parse_json(text, where=f"{path} (header)")
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise CheckpointError(f"{path}: its safetensors header is not an object of at most {MAX_TENSORS:,} tensors")
    header.pop("__metadata__", None)
    infos = {name: _tensor_info(path, name, entry, size - 8 - length) for name, entry in header.items()}
    _check_tiling(path, infos, size - 8 - length)
    return infos


def read_tensors(folder: str | Path) -> dict[str, Tensor]:
    """All weights in a folder: ``model.safetensors``, or the shards its index names.

    Raises ``CheckpointError`` for a missing, truncated or lying file, a shard outside the folder, a tensor that stands
    in two shards or in none, and for NaN or infinite values.
    """
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    for shard in _shards(folder):
        for name, tensor in read_tensor_file(shard).items():
            if name in tensors:
                raise CheckpointError(f"{shard}: tensor {name!r} stands in another shard too")
            tensors[name] = tensor
    return tensors


def read_tensor_file(path: str | Path) -> dict[str, Tensor]:
    """All tensors of one checked safetensors file; NaN or infinite values raise ``CheckpointError``."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_safetensors_header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, RuntimeError) as problem:
        raise CheckpointError(f"{path}: cannot be read: {problem}") from problem
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not math.isfinite(tensor.sum(dtype=_sum_dtype(tensor)).item()):
            bad = int((~tensor.isfinite()).sum())
            if bad:
                raise CheckpointError(
                    f"{path}: tensor {name!r} holds {bad:,} NaN or infinite values; the file is damaged"
                )
    return tensors


# --- details ---------------------------------------------------------------------------------------------------------


def _shards(folder: Path) -> list[Path]:
    single, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickled[0]} is pickled and is not opened: convert it to safetensors" if pickled else ""
        raise CheckpointError(f"{folder}: no {WEIGHTS} and no {WEIGHTS_INDEX}{hint}")
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no 'weight_map'")
    shards = [inside(folder, name, source=index) for name in sorted({str(name) for name in weight_map.values()})]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{index}: names the shard {shard.name}, which is not in the folder")
    found = {name: shard.name for shard in shards for name in read_safetensors_header(shard)}
    wrong = sorted(name for name in weight_map if found.get(name) != weight_map[name])
    if wrong:
        raise CheckpointError(f"{index}: says {wrong[0]!r} is in {weight_map[wrong[0]]}, which does not hold it")
    return shards


def inside(folder: Path, name: str, *, source: Path) -> Path:
    """``folder / name``, refused unless it is a plain file name (no folders, no links out)."""
    path = folder / name
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name or "\0" in name:
        raise CheckpointError(f"{source}: the file name {name!r} leaves the folder; it is not opened")
    if path.is_symlink() and not _is_hub_link(path):
        raise CheckpointError(f"{source}: {name!r} is a link out of the folder; it is not opened")
    return path


def _is_hub_link(path: Path) -> bool:
    """The hub cache keeps ``snapshots/<commit>/name`` as a link to ``blobs/<hash>`` of the same repository."""
    target = path.resolve()
    return target.parent.name == "blobs" and target.parent.parent in path.absolute().parents


def _tensor_info(path: Path, name: str, entry: Any, data_bytes: int) -> TensorInfo:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
    except (TypeError, KeyError, ValueError) as problem:
        raise CheckpointError(f"{path}: the header's entry for {name!r} is not a tensor") from problem
    if not whole or dtype not in ITEM_BYTES:
        raise CheckpointError(
            f"{path}: tensor {name!r} has dtype {dtype!r} and shape {list(shape)}, which cannot be read"
        )
    claimed = math.prod(shape) * ITEM_BYTES[dtype]
    if end - start != claimed or end > data_bytes:
        raise CheckpointError(
            f"{path}: tensor {name!r} claims {claimed:,} bytes ({dtype} {list(shape)}) at {start:,}–{end:,}, "
            f"but the file holds {data_bytes:,} bytes of data; it is truncated or damaged"
        )
    return TensorInfo(dtype, shape, start, end)


def _check_tiling(path: Path, infos: Mapping[str, TensorInfo], data_bytes: int) -> None:
    """The tensors must cover the data end to end: no overlap, no gap, nothing after."""
    position = 0
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            raise CheckpointError(
                f"{path}: tensor {name!r} starts at {info.start:,}, expected {position:,}: gap or overlap"
            )
        position = info.end
    if position != data_bytes:
        raise CheckpointError(f"{path}: holds {data_bytes:,} bytes of data, its header describes {position:,}")


def _sum_dtype(tensor: Tensor) -> Any:
    import torch

    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands twice")
    return result


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
