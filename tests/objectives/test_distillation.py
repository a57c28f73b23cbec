"""A student's loss is its own and its teacher's, each with its share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sensorium.config import DecoderConfig, LanguageModelHeadConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.models.build import new_model
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.objectives.distillation import Distillation
from sensorium.text.training import train_byte_level_bpe
from tests.objectives.conftest import ENGLISH

TOKENIZER = train_byte_level_bpe(ENGLISH, 300)


def decoder(size: int, seed: int) -> Any:
    stem = TokenStemConfig(TOKENIZER.vocabulary_size, size, LearnedPositions(64))
    stack = StackConfig(size, 2, 2, 24, mask="causal", norm_place="pre", final_norm=True)
    model: Any = new_model(DecoderConfig(stem, stack, LanguageModelHeadConfig()), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)  # so that something is likelier than the rest
    return model


def test_the_parts_are_those_of_the_formula() -> None:
    student, teacher = decoder(8, 0), decoder(16, 1)
    causal = CausalLanguageModel(24)
    objective = Distillation(causal, teacher, temperature=3.0, share=0.25)
    generator = np.random.default_rng(0)
    examples = objective.examples(objective.prepare([{"text": text} for text in ENGLISH], TOKENIZER), generator)
    batch = objective.collate(examples, TOKENIZER, generator)
    losses = objective.losses(student, batch)
    logits, taught = (model.next_token_logits(causal.hidden_states(model, batch)) for model in (student, teacher))
    hard = torch.nn.functional.cross_entropy(logits, batch.targets["next"], reduction="sum")
    torch.testing.assert_close(losses["language_model"].total, 0.75 * hard)
    p, q = (taught / 3).softmax(-1), (logits / 3).softmax(-1)
    soft = (p * (p.log() - q.log())).sum()
    torch.testing.assert_close(losses["distillation"].total, 0.25 * 9 * soft, rtol=1e-4, atol=1e-4)
    assert losses["distillation"].count == batch.counts["distillation"] == len(batch.targets["next"])
    sum(loss.total for loss in losses.values()).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("share", [1.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(share: float) -> None:
    model = decoder(8, 0)
    objective = Distillation(CausalLanguageModel(24), decoder(8, 0), share=share)
    generator = np.random.default_rng(0)
    batch = objective.collate(
        objective.examples(objective.prepare([{"text": text} for text in ENGLISH], TOKENIZER), generator),
        TOKENIZER,
        generator,
    )
    loss = objective.losses(model, batch)["distillation"]
    assert abs(float(loss.total.detach())) < 1e-3 * loss.count
    assert loss.correct == loss.count
