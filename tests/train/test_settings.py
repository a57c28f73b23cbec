"""What a run tells its model."""

from __future__ import annotations

import pytest

from sensorium.config import StackConfig
from sensorium.nn.block import Attention, MemoryAttention
from sensorium.nn.stack import Stack
from sensorium.train.settings import set_dropout


@pytest.mark.parametrize(("dropout", "attention_dropout"), [(0.3, 0.2), (None, 0.0), (0.0, None)])
def test_dropout_reaches_every_part_of_a_decoder(dropout: float | None, attention_dropout: float | None) -> None:
    stack = Stack(StackConfig(8, 2, 2, 16, mask="causal", memory_size=8, dropout=0.1, attention_dropout=0.1))
    set_dropout(stack, dropout, attention_dropout)
    attentions = [module for module in stack.modules() if isinstance(module, Attention | MemoryAttention)]
    assert len(attentions) == 4
    assert {module.dropout for module in attentions} == {0.1 if attention_dropout is None else attention_dropout}
    assert {block.dropout.p for block in stack.layers} == {0.1 if dropout is None else dropout}
