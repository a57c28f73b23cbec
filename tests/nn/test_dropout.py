"""Dropout drops the right share, at random, the same in both directions."""

from __future__ import annotations

import pytest
import torch

from sensorium import native
from sensorium.nn.dropout import Dropout

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels can't run here")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_share_that_goes_is_the_one_asked_for_and_the_rest_grows(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = Dropout(share)(torch.ones(2000, 100, dtype=dtype))
    assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.003)
    if share < 1:
        assert float(dropped.max()) == pytest.approx(1 / (1 - share), rel=4e-3)


def test_rows_columns_and_calls_are_independent() -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.5)
    first, second = ((dropout(torch.ones(512, 512)) > 0).double() for _ in range(2))
    pairs = {
        "calls": (first, second), "rows": (first[1:], first[:-1]), "columns": (first[:, 1:], first[:, :-1]),
        "shifted rows": (first[1:, 1:], first[:-1, :-1]), "transposed": (first, first.t()),
    }  # fmt: skip
    for name, (one, other) in pairs.items():
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(float(correlation)) < 0.01, name  # five deviations of 512² pairs


def test_the_gradient_goes_where_the_number_went() -> None:
    torch.manual_seed(0)
    x = torch.randn(37, 21, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    torch.testing.assert_close(y, x * x.grad)


def test_torch_s_seed_decides() -> None:
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(Dropout(0.5)(torch.ones(8, 8)))
    assert results[0].equal(results[1])
    assert not results[0].equal(results[2])


def test_the_number_of_threads_changes_nothing() -> None:
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            torch.manual_seed(0)
            results.append(Dropout(0.5)(torch.ones(8, 8)))
    finally:
        torch.set_num_threads(threads)
    assert results[0].equal(results[1])
    assert results[0].equal(results[2])


def test_in_evaluation_nothing_goes() -> None:
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x


def test_numbers_the_kernels_do_not_know_go_by_torch() -> None:
    dropped = Dropout(0.5)(torch.ones(100, 100, dtype=torch.float64))
    assert (dropped == 0).double().mean() == pytest.approx(0.5, abs=0.05)
