"""The writer leaves the old file or the new one; the reader believes nothing."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium import storage
from sensorium.errors import CheckpointError


def safetensors_bytes(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[Any], end: int, *, start: int = 0, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


ATTACKS = {
    "empty file": (b"", "claims 0 bytes, the file has 0|not a whole"),
    "short prefix": (b"abc", "not a whole safetensors file"),
    "header longer than the file": (struct.pack("<Q", 10**12), "header claims 1,000,000,000,000 bytes"),
    "header not JSON": (safetensors_bytes(b"{nope"), "not valid JSON"),
    "header not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "not UTF-8"),
    "header not an object": (safetensors_bytes([1, 2]), "not an object"),
    "deep nesting": (safetensors_bytes(b"[" * 100_000), "not valid JSON"),
    "10^12 elements": (safetensors_bytes({"w": entry([10**6, 10**6], 4)}, b"\0" * 4), "claims 4,000,000,000,000 bytes"),
    "truncated": (safetensors_bytes({"w": entry([4], 16)}, b"\0" * 8), "truncated or damaged"),
    "negative size": (safetensors_bytes({"w": entry([-1], 4)}, b"\0" * 4), "cannot be read"),
    "boolean size": (safetensors_bytes({"w": entry([True], 4)}, b"\0" * 4), "cannot be read"),
    "unknown dtype": (safetensors_bytes({"w": entry([1], 4, dtype="X9")}, b"\0" * 4), "cannot be read"),
    "not a tensor": (safetensors_bytes({"w": 3}), "is not a tensor"),
    "duplicate name": (
        safetensors_bytes(
            b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"\0" * 4,
        ),
        "stands twice",
    ),
    "overlap": (safetensors_bytes({"a": entry([2], 8), "b": entry([1], 8, start=4)}, b"\0" * 8), "gap or overlap"),
    "trailing bytes": (safetensors_bytes({"a": entry([1], 4)}, b"\0" * 9), "its header describes 4"),
    "too many tensors": (
        safetensors_bytes({str(i): entry([0], 0) for i in range(storage.MAX_TENSORS + 1)}),
        "at most 100,000 tensors",
    ),
    "NaN": (safetensors_bytes({"w": entry([1], 4)}, struct.pack("<f", float("nan"))), "1 NaN or infinite"),
    "infinity": (safetensors_bytes({"w": entry([1], 4)}, struct.pack("<f", float("inf"))), "1 NaN or infinite"),
}


@pytest.mark.parametrize(("content", "message"), ATTACKS.values(), ids=ATTACKS)
def test_a_lying_or_damaged_weights_file_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / storage.WEIGHTS
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        storage.read_tensors(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_large_finite_values_are_not_mistaken_for_infinity(tmp_path: Path) -> None:
    storage.write_tensors(tmp_path / storage.WEIGHTS, {"w": torch.full((8,), 3e38)})
    assert storage.read_tensors(tmp_path)["w"][0] == torch.tensor(3e38)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b", "x\0y"])
def test_a_shard_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    storage.write_tensors(tmp_path / "x.safetensors", {"w": torch.ones(1)})
    (folder / storage.WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(CheckpointError, match="leaves the folder"):
        storage.read_tensors(folder)


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    storage.write_tensors(tmp_path / "secret.safetensors", {"w": torch.ones(1)})
    (folder / "a.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (folder / storage.WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    with pytest.raises(CheckpointError, match="link out of the folder"):
        storage.read_tensors(folder)


def test_the_hub_cache_keeps_its_files_as_links_and_opens(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    storage.write_tensors(repository / "blobs" / "123", {"w": torch.ones(1)})
    (snapshot / "a.safetensors").symlink_to("../../blobs/123")
    (snapshot / storage.WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    assert storage.read_tensors(snapshot)["w"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"w": "absent.safetensors"}, "names the shard absent.safetensors"),
        ({"w": "a.safetensors", "v": "a.safetensors"}, "says 'v' is in a.safetensors, which does not hold it"),
        ({}, "no 'weight_map'"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path: Path, weight_map: Any, message: str) -> None:
    storage.write_tensors(tmp_path / "a.safetensors", {"w": torch.ones(1)})
    (tmp_path / storage.WEIGHTS_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        storage.read_tensors(tmp_path)


def test_shards_round_trip(tmp_path: Path) -> None:
    tensors = {name: torch.full((4,), float(i)) for i, name in enumerate("abcde")}
    storage.write_weights(tmp_path, tensors, max_shard_bytes=32)
    assert len(list(tmp_path.glob("model-*-of-00003.safetensors"))) == 3
    again = storage.read_tensors(tmp_path)
    assert {name: tensor.tolist() for name, tensor in again.items()} == {n: t.tolist() for n, t in tensors.items()}


def test_pickled_weights_are_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="pytorch_model.bin is pickled and is not opened"):
        storage.read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b"[1]", "expected a JSON object"),
    ],
)
def test_broken_json_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        storage.read_object(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere.json: No such file"):
        storage.read_json(tmp_path / "nowhere.json")


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(storage.MAX_JSON_BYTES + 1)
    with pytest.raises(CheckpointError, match="at most"):
        storage.read_text(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    storage.write_text(path, "old")
    with pytest.raises(RuntimeError), storage.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in ("first", "second"):
        with storage.atomic_folder(folder) as temporary:
            (temporary / "a.txt").write_text(content)
    with pytest.raises(RuntimeError), storage.atomic_folder(folder) as temporary:
        (temporary / "a.txt").write_text("half")
        raise RuntimeError
    assert (folder / "a.txt").read_text() == "second"
    assert list(tmp_path.iterdir()) == [folder]
