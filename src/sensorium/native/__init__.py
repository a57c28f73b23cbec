"""The compiled kernels: where they are, why they may not be there, and the structures they take.

``*.cpp`` is built when Sensorium is installed (``hatch_build.py``) and called through ctypes, so it needs neither
torch's headers nor its version. The classes mirror its structs, field by field.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_double, c_float, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch

AVX512, AVX2 = (Path(__file__).with_name(f"_stack_{name}.so") for name in ("avx512", "avx2"))
"""The kernels as compiled for either kind of processor; they take and give the same."""
FLOAT32, BFLOAT16, INT8, INT8_WEIGHTS, INT4_WEIGHTS = range(5)
BFLOAT16_AMX, INT8_AMX, INT8_WEIGHTS_AMX, INT4_WEIGHTS_AMX = range(5, 9)
MATRIX_UNIT = {
    BFLOAT16: (BFLOAT16_AMX, 32), INT8: (INT8_AMX, 64), INT8_WEIGHTS: (INT8_WEIGHTS_AMX, 32),
    INT4_WEIGHTS: (INT4_WEIGHTS_AMX, 32),
}  # fmt: skip
"""Of a dtype: its number on the matrix unit, and how many inputs a tile is wide."""
TRAINED = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}
"""The dtypes that training knows."""
PANEL = 64
"""Columns of a panel of packed weights, and tokens of a page of keys and values."""
SPARE = 32
"""Rows behind the last one that products on the matrix unit read, as in ``product.h``."""


class Linear(Structure):
    """Packed weights of one linear map."""

    _fields_ = [
        ("panels", c_void_p), ("bias", c_void_p), ("scale", c_void_p), ("offset", c_void_p),
        ("factors", c_void_p), ("inputs", c_int64), ("outputs", c_int64),
    ]  # fmt: skip


LINEAR = ("qkv", "output", "gate", "up", "down", "query", "key_value", "memory_output")
"""The linear maps that a block may have."""
LEARNING = ("qkv", "output", "up", "down", "query", "memory_output", "key_value")
"""Those that training knows, as ``Map`` in ``training.h``; the last three where there is a memory."""
NORMS = ("attention_norm", "mlp_norm", "memory_norm")
"""The norms that training knows, as ``Place`` in ``training.h``."""


class Norm(Structure):
    """LayerNorm, or RMSNorm, which has no bias; both null: there is none."""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p)]


class Layer(Structure):
    """One block."""

    _fields_ = [
        *((name, Linear) for name in LINEAR),
        *((f"{name}_norm", Norm) for name in ("attention", "mlp", "memory", "query", "key")),
    ]  # fmt: skip


class Activation(Structure):
    """Which activation, and the polynomial of those that have one."""

    _fields_ = [
        ("kind", c_int64), ("limit", c_float), ("slope", c_float), ("count", c_int64), ("coefficients", c_float * 16),
    ]  # fmt: skip


STACK_SIZES = ("hidden", "heads", "kv_heads", "head", "mlp", "layers", "pre_norm", "causal", "window")


class Stack(Structure):
    """A tower of blocks."""

    _fields_ = [
        *((name, c_int64) for name in STACK_SIZES),
        ("scale", c_float), ("epsilon", c_float), ("activation", Activation), ("layer", POINTER(Layer)),
        ("final_norm", Norm),
    ]  # fmt: skip


class Stem(Structure):
    """Tables of tokens, positions and segments, and the norm of their sum."""

    _fields_ = [
        ("tokens", c_void_p), ("positions", c_void_p), ("segments", c_void_p), ("norm", Norm), ("hidden", c_int64),
        ("epsilon", c_float), ("scale", c_float),
    ]  # fmt: skip


class Cache(Structure):
    """Keys and values of earlier tokens, or of another stack's, in pages."""

    _fields_ = [
        ("keys", c_void_p), ("values", c_void_p), ("table", c_void_p), ("lengths", c_void_p), ("pages", c_int64),
        ("columns", c_int64),
    ]  # fmt: skip


class Batch(Structure):
    """Packed vectors, changed in place."""

    _fields_ = [
        ("x", c_void_p), ("offsets", c_void_p), ("cache", POINTER(Cache)), ("cosines", c_void_p), ("sines", c_void_p),
        ("memory", POINTER(Cache)), ("readers", c_void_p), ("sources", c_int64), ("distances", c_void_p),
        ("reach", c_int64),
    ]  # fmt: skip


class Dropout(Structure):
    """The source of chance, what part of 2³² goes, and how much the others grow."""

    _fields_ = [("seed", c_uint64), ("threshold", c_uint32), ("factor", c_float)]

    @classmethod
    def of(cls, share: float, seed: int) -> Dropout:
        """Dropout of a share of the numbers."""
        return cls(seed, min(round(share * 2**32), 2**32 - 1), 1 / (1 - share) if share < 1 else 0.0)


class LayerBackward(Structure):
    """Transposed weights of one block, and where its gradients go."""

    _fields_ = [
        ("linear", Linear * len(LEARNING)), ("weights", c_void_p * len(LEARNING)), ("vectors", c_void_p),
    ]  # fmt: skip


KEPT = ("input", "normals", "inverses", "qkv", "attended", "up", "query", "memory_attended", "key_value")
"""What the forward pass of training keeps; the last three where there is a memory."""


class Training(Structure):
    """A tower of blocks to be trained: what the forward pass keeps, and what the way back takes."""

    _fields_ = [
        ("stack", Stack), ("slope", Activation), ("dropout", Dropout), ("attention_dropout", Dropout),
        ("backward", POINTER(LayerBackward)),
        *((name, c_void_p) for name in KEPT), ("tokens", c_int64), ("source_tokens", c_int64), ("lowest", c_int64),
        *((name, c_void_p) for name in ("zipped", "sums", "sources", "memory", "memory_gradient")),
    ]  # fmt: skip


class CrossEntropy(Structure):
    """Tokens, a vocabulary, and where losses and gradients go."""

    _fields_ = [
        *((name, c_void_p) for name in ("hidden", "vocabulary", "bias", "targets")),
        *((name, c_int64) for name in ("tokens", "size", "words")),
        *((name, c_float) for name in ("smoothing", "agreement")), ("more", c_int64),
        *((name, c_void_p) for name in ("losses", "likeliest", "logits")),
        *((name, c_void_p) for name in ("hidden_gradient", "vocabulary_gradient", "bias_gradient")),
    ]  # fmt: skip


class Parameter(Structure):
    """A weight that learns: master, moments, gradient, and the weight that follows."""

    _fields_ = [
        *((name, c_void_p) for name in ("master", "mean", "square", "gradient", "weight")),
        *((name, c_int64) for name in ("gradient_dtype", "weight_dtype", "size")),
        *((name, c_float) for name in ("rate", "decay", "correction_mean", "correction_square")),
    ]  # fmt: skip


class AdamW(Structure):
    """What is the same for all weights at a step."""

    _fields_ = [(name, c_float) for name in ("beta_mean", "beta_square", "epsilon", "scale")]


def stack_sizes(config: Any) -> tuple[int, ...]:
    """``STACK_SIZES`` of a ``StackConfig``."""
    return (
        config.hidden_size, config.num_heads, config.kv_heads, config.head_size, config.mlp_size, config.num_layers,
        config.norm_place == "pre", config.mask == "causal", config.window or 0,
    )  # fmt: skip


def library() -> ctypes.CDLL:
    """The compiled kernels. Raises ``OSError`` saying why they can't be used here."""
    return load(best())


@cache
def best() -> Path:
    """The fastest kernels that this processor runs. Raises ``OSError`` where there are none, and says why."""
    runs = [path for path, possible in _possible().items() if possible]
    if not runs:
        raise OSError("this processor has no AVX2, which the compiled kernels need")
    installed = [path for path in runs if path.exists()]
    if not installed:
        raise OSError("the compiled kernels are not installed (a C++ compiler was missing when Sensorium was)")
    return installed[0]


@cache
def load(path: Path) -> ctypes.CDLL:
    """One of the libraries, with the types that its functions take."""
    found = ctypes.CDLL(str(path))
    found.sensorium_stack.argtypes = [c_int64, POINTER(Stack), POINTER(Batch), c_int64, c_int64]
    found.sensorium_linear.argtypes = [c_int64, POINTER(Linear), c_void_p, c_int64, c_void_p, c_int64]
    found.sensorium_memory.argtypes = [c_int64, POINTER(Stack), c_void_p, c_void_p, c_int64, POINTER(Cache), c_int64]
    found.sensorium_memory.restype = None
    found.sensorium_log_softmax.argtypes = [c_void_p, c_int64, c_int64, c_void_p, c_int64]
    found.sensorium_most.argtypes = [c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_int64]
    found.sensorium_copy_pages.argtypes = [POINTER(Cache), c_void_p, *[c_int64] * 6]
    for between in (found.sensorium_log_softmax, found.sensorium_most, found.sensorium_copy_pages):
        between.restype = None
    found.sensorium_stem.argtypes = [POINTER(Stem), c_void_p, c_void_p, c_void_p, c_int64, c_void_p, c_int64]
    found.sensorium_stem.restype = None
    found.sensorium_read.argtypes = [c_void_p, c_int64, c_int64]
    found.sensorium_read.restype = c_uint64
    found.sensorium_pack.argtypes = [c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int64]
    found.sensorium_tiles.argtypes = [c_int64, c_void_p, c_void_p, c_int64, *3 * [POINTER(c_int64)]]
    for step in (found.sensorium_forward, found.sensorium_backward):
        step.argtypes = [c_int64, POINTER(Training), c_void_p, c_int64, c_void_p, c_int64]
        step.restype = None
    found.sensorium_cross_entropy.argtypes = [c_int64, POINTER(CrossEntropy), c_int64]
    found.sensorium_cross_entropy.restype = None
    found.sensorium_dropout.argtypes = [c_int64, POINTER(Dropout), c_void_p, c_int64, c_int64, c_void_p, c_int64]
    found.sensorium_dropout.restype = None
    found.sensorium_squares.argtypes = [POINTER(Parameter), c_int64, c_int64]
    found.sensorium_squares.restype = c_double
    found.sensorium_adamw.argtypes = [POINTER(Parameter), c_int64, POINTER(AdamW), c_int64]
    found.sensorium_adamw.restype = None
    found.sensorium_pack.restype = found.sensorium_tiles.restype = None
    found.sensorium_stack.restype = found.sensorium_linear.restype = None
    found.sensorium_amx.argtypes, found.sensorium_amx.restype = [], c_int64
    return found


@cache
def available() -> bool:
    """Whether ``library`` can be used here."""
    try:
        library()
    except OSError:
        return False
    return True


@cache
def matrix_unit() -> bool:
    """Whether this processor has AMX, and the system lets this process use it."""
    return available() and bool(library().sensorium_amx())


def on_matrix_unit(code: int, *sizes: int) -> int:
    """The number of a dtype's products on the matrix unit, where it can take them; else ``code``, as it is.

    ``sizes`` are how many inputs its linear maps have: they must be whole tiles.
    """
    number, width = MATRIX_UNIT.get(code, (code, 1))
    return number if matrix_unit() and not any(size % width for size in sizes) else code


def _possible() -> dict[Path, bool]:
    """Whether this processor has what each library is compiled for, by torch's look at it; the fastest first."""
    capability = torch.backends.cpu.get_cpu_capability()
    products = bool(torch.cpu._is_avx512_bf16_supported() and torch.cpu._is_vnni_supported())
    return {AVX512: capability == "AVX512" and products, AVX2: capability in ("AVX2", "AVX512")}


def pointer(tensor: torch.Tensor | None) -> int | None:
    """The address of a contiguous tensor's first item. The tensor must outlive its use."""
    if tensor is None:
        return None
    if not tensor.is_contiguous():
        raise ValueError("the tensor is not contiguous")
    return tensor.data_ptr()
