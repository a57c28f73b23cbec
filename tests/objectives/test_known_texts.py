"""A tower that does not learn reads each text once, and says the same of it as one that reads it every time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.objectives import known_texts
from sensorium.objectives.known_texts import KnownTexts
from sensorium.packed import Packed
from sensorium.train.optim import freeze
from sensorium.train.stack_kernel import compile_stacks
from tests.objectives.test_contrastive import parts


def lengths_read(model: Any) -> list[int]:
    """Grows by the number of texts of each batch that the tower reads."""
    seen: list[int] = []
    model.text.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].num_sequences))
    return seen


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_loss_and_the_gradients_are_those_of_a_tower_that_is_read_every_time(family: str) -> None:
    model, objective, batch = parts(family)
    model.train()
    objective.losses(model, batch)["contrastive"].total.backward()
    learnt = {name: p.grad for name, p in model.named_parameters() if not name.startswith("text.")}
    model.zero_grad()
    freeze(model, ["text.*"])
    seen = lengths_read(model)
    for _ in range(2):
        model.zero_grad()
        found = objective.losses(model, batch)["contrastive"]
        found.total.backward()
        for name, gradient in learnt.items():
            torch.testing.assert_close(model.get_parameter(name).grad, gradient, msg=name)
    assert seen == [7]  # of eight texts two are equal


@pytest.mark.parametrize("on_kernels", [False, True])
def test_what_a_text_means_does_not_depend_on_when_it_was_read(on_kernels: bool) -> None:
    model, _, batch = parts("clip")
    freeze(model, ["text.*"])
    if on_kernels:
        compile_stacks(model)
    known, alone = KnownTexts(), KnownTexts()
    together = known(model, batch.packed)
    for vector, ids in zip(together, batch.packed.split(batch.packed.values), strict=True):
        [other] = alone(model, Packed.from_sequences([ids]))
        torch.testing.assert_close(other, vector, rtol=0, atol=0 if on_kernels else 1e-5)
    assert model.training or not model.text.training


def test_no_more_texts_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_texts, "MOST", 8)
    model, _, batch = parts("clip")
    freeze(model, ["text.*"])
    known, seen = KnownTexts(), lengths_read(model)
    first = known(model, batch.packed)
    known(model, Packed.from_sequences([[5, 6], [7, 8]]))
    again = known(model, batch.packed)
    torch.testing.assert_close(again, first)
    assert seen == [7, 2, 7]
