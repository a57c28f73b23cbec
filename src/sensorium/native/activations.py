"""Activations and their slopes, as the kernels take them.

GELU and its tanh form are x · (½ + odd(x)), their slopes ½ + odd(x), with odd(x) = x · P(x²) and P a polynomial fitted
for |x| up to a limit: where the function of x is 0 or 1 beyond, as exactly as the dtype can tell.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

import numpy as np

from sensorium import native

KINDS = {"gelu": 0, "gelu_tanh": 0, "relu": 1, "silu": 2, "gelu_quick": 2, "tanh": 3}
STEEPNESS = {"silu": 1.0, "gelu_quick": 1.702}
"""a of x · σ(a x)."""
EXACT, CLOSE = (16, 5.0), (8, 3.5)
"""Coefficients and limit: exact to float32, and closer than bfloat16 can tell."""


@cache
def activation(name: str, *, exact: bool) -> native.Activation:
    """An activation; ``exact``: to float32."""

    def odd(x: float) -> float:
        if name == "gelu":
            return math.erf(x / math.sqrt(2)) / 2
        return math.tanh(_inner(x)) / 2

    return _fitted(name, odd, *(EXACT if exact else CLOSE))


@cache
def slope(name: str) -> native.Activation:
    """The derivative of an activation."""

    def odd(x: float) -> float:
        if name == "gelu":
            return math.erf(x / math.sqrt(2)) / 2 + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        tanh, inner_slope = math.tanh(_inner(x)), math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return tanh / 2 + x * (1 - tanh**2) * inner_slope / 2

    return _fitted(name, odd, *EXACT)


def _inner(x: float) -> float:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def _fitted(name: str, odd: Callable[[float], float], count: int, limit: float) -> native.Activation:
    """P by interpolation in Chebyshev's points, as powers of x² scaled to [-1, 1]."""
    if KINDS[name]:
        return native.Activation(KINDS[name], 0.0, STEEPNESS.get(name, 0.0), 0, (ctypes.c_float * 16)())
    half = limit**2 / 2

    def shape(place: float) -> float:  # odd(x) / x
        x = math.sqrt(max((place + 1) * half, 1e-8))
        return odd(x) / x

    fitted = np.polynomial.chebyshev.chebinterpolate(np.vectorize(shape), count - 1)
    powers = np.polynomial.chebyshev.cheb2poly(fitted)[::-1]
    return native.Activation(KINDS[name], limit, 1 / half, count, (ctypes.c_float * 16)(*powers))
