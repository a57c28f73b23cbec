"""Reading GGUF headers: what the `gguf` library writes is read, and what lies is refused before it is believed."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest

from sensorium import gguf as ours
from sensorium.errors import CheckpointError

gguf = pytest.importorskip("gguf")

U8, U32, F32, BOOL, TEXT, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10
HUGE = 2**64 - 1


def text(value: str | bytes, size: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if size is None else size) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0, dimensions: int | None = None) -> bytes:
    counts = struct.pack(f"<I{len(shape)}Q", len(shape) if dimensions is None else dimensions, *shape)
    return text(name) + counts + struct.pack("<IQ", kind, offset)


def whole(
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    data: bytes = bytes(32),
    *,
    version: int = 3,
    num_keys: int | None = None,
    num_tensors: int | None = None,
) -> bytes:
    """A GGUF file by hand; by default one tensor of 8 numbers."""
    keys, tensors = keys or [], [tensor("w", [8])] if tensors is None else tensors
    counts = struct.pack("<QQ", num_tensors or len(tensors), num_keys or len(keys))
    header = b"GGUF" + struct.pack("<I", version) + counts + b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + data


ATTACKS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the file is empty"),
    "another format": (b"PK\x03\x04" + bytes(60), "does not begin with GGUF"),
    "half a header": (whole()[:20], "does not begin with GGUF and a header"),
    "an old version": (whole(version=1), "GGUF version 1; versions 2 and 3"),
    "the other byte order": (whole(version=3 << 24), "versions 2 and 3, little-endian"),
    "tensors without end": (whole(num_tensors=HUGE), "the number of tensors claims .* at most 100,000"),
    "more tensors than bytes": (whole(num_tensors=1000), "the number of tensors claims 1,000 entries, and"),
    "keys without end": (whole(num_keys=HUGE), "the number of metadata keys claims .* at most 10,000"),
    "more keys than bytes": (whole(num_keys=900), "the number of metadata keys claims 900 entries, and"),
    "a name without end": (whole([text("a", HUGE)]), "name of metadata key 0 claims .* at most 256"),
    "a name past the end": (whole([text("a", 200)]), "claims 200 bytes at .* where .* are left"),
    "a name that is not UTF-8": (whole([text(b"\xff\xfe") + bytes(8)]), "name of metadata key 0 is not UTF-8"),
    "a text without end": (whole([key("a", TEXT, text("b", HUGE))]), "'a' claims a text of .* bytes; at most"),
    "a text past the end": (whole([key("a", TEXT, text("b", 2**20))]), "'a' claims 1,048,576 bytes at"),
    "an array without end": (whole([key("a", ARRAY, array(U8, HUGE))]), "'a' claims .* entries; at most"),
    "an array past the end": (whole([key("a", ARRAY, array(F32, 2**20))]), "'a' claims 1,048,576 entries, and"),
    "texts past the end": (whole([key("a", ARRAY, array(TEXT, 2**20))]), "'a' claims 1,048,576 entries, and"),
    "truths past the end": (whole([key("a", ARRAY, array(BOOL, 2**20))]), "'a' claims 1,048,576 entries, and"),
    "an array of arrays": (whole([key("a", ARRAY, array(ARRAY, 1))]), "'a' is an array of arrays"),
    "a value of no type": (whole([key("a", 77, bytes(8))]), "'a' has the unknown type 77"),
    "a truth that is 2": (whole([key("a", BOOL, b"\x02")]), "'a' is 2, neither true nor false"),
    "a key twice": (whole([key("a", U8, b"\x01")] * 2), "key 'a' stands twice"),
    "an alignment of 0": (whole([key("general.alignment", U32, bytes(4))]), "general.alignment is 0"),
    "an alignment of 24": (whole([key("general.alignment", U32, struct.pack("<I", 24))]), "general.alignment is 24"),
    "a vast alignment": (whole([key("general.alignment", U32, struct.pack("<I", 1 << 31))]), "is 2147483648"),
    "an alignment that is text": (whole([key("general.alignment", TEXT, text("32"))]), "general.alignment is '32'"),
    "a tensor twice": (whole(tensors=[tensor("w", [8])] * 2), "the tensor 'w' stands twice"),
    "no dimensions": (whole(tensors=[tensor("w", [])]), "'w' has 0 dimensions"),
    "dimensions without end": (whole(tensors=[tensor("w", [8], dimensions=2**32 - 1)]), "has 4,294,967,295 dimensions"),
    "a dimension of 0": (whole(tensors=[tensor("w", [0])]), r"'w' has shape \[0\], which F32 cannot hold"),
    "a product that overflows": (whole(tensors=[tensor("w", [2**32, 2**32])]), "claims 73,786,976,294,8.* bytes"),
    "a product that comes back": (whole(tensors=[tensor("w", [2**62, 8, 2])]), "but the file has"),
    "half a block": (whole(tensors=[tensor("w", [48], kind=8)]), r"'w' has shape \[48\], which Q8_0 cannot hold"),
    "a type that is none": (whole(tensors=[tensor("w", [8], kind=4)]), "'w' has type 4, which cannot be read"),
    "a type of tomorrow": (whole(tensors=[tensor("w", [8], kind=4000)]), "'w' has type 4000"),
    "more than the file": (whole(tensors=[tensor("w", [4096])]), "claims 16,384 bytes .* truncated or damaged"),
    "cut short": (whole()[:-1], "'w' claims 32 bytes .* truncated or damaged"),
    "an offset past the end": (whole(tensors=[tensor("w", [8], offset=2**40)]), "gap or overlap"),
    "an offset that wraps": (whole(tensors=[tensor("w", [8], offset=2**64 - 32)]), "gap or overlap"),
    "an offset off the grid": (whole(tensors=[tensor("w", [8], offset=1)], data=bytes(64)), "starts at 1, expected 0"),
    "two in one place": (whole(tensors=[tensor("w", [8]), tensor("v", [8])], data=bytes(64)), "gap or overlap"),
    "a gap": (whole(tensors=[tensor("w", [8]), tensor("v", [8], offset=64)], data=bytes(96)), "at 64, expected 32"),
    "something after": (whole(data=bytes(320)), "288 bytes follow the last tensor"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), ATTACKS.values(), ids=ATTACKS)
def test_a_file_that_lies_is_refused_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        ours.read_gguf(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_file_by_hand_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole([key("a", U64, struct.pack("<Q", 5))], data=numpy.arange(8, dtype="<f4").tobytes()))
    file = ours.read_gguf(path)
    assert file.metadata == {"a": 5}
    assert file.tensor("w").tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, cut: int) -> None:
    content = written(tmp_path / "whole.gguf", {"w": numpy.ones((4, 32), numpy.float32)}).read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: min(cut, len(content) - 1)])
    with pytest.raises(CheckpointError):
        ours.read_gguf(path)


def written(path: Path, tensors: dict[str, Any], kind: Any = None, **texts: Any) -> Path:
    """A file by the library's own writer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("words", ["a", "ü", "漢字"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_float32("half", 0.5)
    writer.add_bool("yes", True)
    for name, values in tensors.items():
        data = values if kind is None else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    values = {"w": numpy.arange(96, dtype=numpy.float32).reshape(3, 32), "b": numpy.ones(5, numpy.float32)}
    file = ours.read_gguf(written(tmp_path / "model.gguf", values))
    expected = {"words": ["a", "ü", "漢字"], "numbers": [1, -2, 3], "half": 0.5, "yes": True}
    assert {name: file.metadata[name] for name in expected} == expected
    assert file.tensors["w"].shape == (3, 32)
    for name, tensor_values in values.items():
        assert file.tensor(name).tolist() == tensor_values.tolist()


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantised_tensors_come_back_near_what_they_were(tmp_path: Path, kind: str) -> None:
    values = numpy.random.default_rng(0).standard_normal((6, 64)).astype(numpy.float32)
    file = ours.read_gguf(written(tmp_path / "model.gguf", {"w": values}, gguf.GGMLQuantizationType[kind]))
    assert file.tensors["w"].type == kind
    furthest = numpy.abs(file.tensor("w").numpy() - values).max()
    assert furthest < {"F16": 2e-3, "BF16": 2e-2, "Q8_0": 2e-2, "Q5_0": 0.15, "Q5_1": 0.15}.get(kind, 0.35)


def test_the_table_of_types_is_the_librarys() -> None:
    for number, (name, block, size) in ours.TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (block, size))


def test_numbers_that_are_none_are_named(tmp_path: Path) -> None:
    values = numpy.array([1.0, numpy.nan, numpy.inf, 0.0], numpy.float32)
    file = ours.read_gguf(written(tmp_path / "model.gguf", {"w": values}))
    with pytest.raises(CheckpointError, match="'w' holds 2 NaN or infinite values"):
        file.tensor("w")


def test_a_damaged_scale_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole(tensors=[tensor("w", [32], kind=8)], data=b"\xff\x7f" + bytes(range(32)) + bytes(30)))
    with pytest.raises(CheckpointError, match="'w' holds 32 NaN or infinite values"):
        ours.read_gguf(path).tensor("w")


QUANTISED = {number: entry for number, entry in ours.TYPES.items() if entry[1] > 1}


@pytest.mark.parametrize("number", QUANTISED, ids=lambda number: QUANTISED[number][0])
def test_every_type_is_dequantised_as_llama_cpp_does(tmp_path: Path, number: int) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    name, weights, size = QUANTISED[number]
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(folder / "libggml-base.so"))
    kind, _, variant = name.lower().partition("_k")
    dequantise = getattr(library, f"dequantize_row_{name.lower() if kind == name.lower() else f'{kind}_K{variant}'}")
    blocks = numpy.random.default_rng(number).integers(0, 256, (400, size), numpy.uint8)
    expected = numpy.empty((400, weights), numpy.float32)
    dequantise(
        blocks.ctypes.data_as(ctypes.c_void_p), expected.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(400 * weights)
    )
    sound = numpy.isfinite(expected).all(1)  # bytes at random may be a scale that is no number
    assert sound.sum() > 100
    blocks, expected = blocks[sound], expected[sound]
    data = blocks.tobytes() + bytes(-blocks.size % 32)
    path = tmp_path / "model.gguf"
    path.write_bytes(whole(tensors=[tensor("w", [weights, len(blocks)], number)], data=data))
    numpy.testing.assert_allclose(ours.read_gguf(path).tensor("w").numpy(), expected, rtol=1e-6)
