"""Every family against `transformers`, on random configurations: same numbers, same files, nothing unaccounted for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.packed import Packed
from tests.parity.laws import assert_saved_as_it_was_opened

ACTIVATIONS = st.sampled_from(["gelu", "gelu_new", "relu", "silu"])


@dataclass(frozen=True)
class Case:
    """One published class, and how our model answers the same question."""

    architecture: str
    ours: Callable[[Any, Tensor, Packed], Tensor]
    theirs: str = "logits"
    per_sequence: bool = False
    """One row a sequence, not one a token."""


def tokens(method: str) -> Callable[[Any, Tensor, Packed], Tensor]:
    return lambda model, hidden, batch: getattr(model, method)(hidden)


def sequences(method: str) -> Callable[[Any, Tensor, Packed], Tensor]:
    return lambda model, hidden, batch: getattr(model, method)(hidden, batch)


HIDDEN = Case("Model", lambda model, hidden, batch: hidden, "last_hidden_state")
MASKED = Case("ForMaskedLM", tokens("masked_token_logits"))
POOLED = Case("Model", sequences("pooled"), "pooler_output", per_sequence=True)
SEQUENCE = Case("ForSequenceClassification", sequences("sequence_logits"), per_sequence=True)
NEXT = sequences("next_sentence_logits")
TOKEN = Case("ForTokenClassification", tokens("token_logits"))
START = Case("ForQuestionAnswering", lambda model, hidden, batch: model.span_logits(hidden)[:, 0], "start_logits")
END = Case("ForQuestionAnswering", lambda model, hidden, batch: model.span_logits(hidden)[:, 1], "end_logits")
CAUSAL = Case("ForCausalLM", tokens("next_token_logits"))
CASES = {
    "Bert": [
        HIDDEN,
        POOLED,
        MASKED,
        SEQUENCE,
        TOKEN,
        START,
        END,
        Case("ForNextSentencePrediction", NEXT, per_sequence=True),
        Case("ForPreTraining", tokens("masked_token_logits"), "prediction_logits"),
        Case("ForPreTraining", NEXT, "seq_relationship_logits", per_sequence=True),
    ],
    "Roberta": [HIDDEN, POOLED, MASKED, SEQUENCE, TOKEN, START, END],
    "XLMRoberta": [HIDDEN, MASKED, SEQUENCE, TOKEN, START],
    "DistilBert": [HIDDEN, MASKED, SEQUENCE, TOKEN, START, END],
    "GPT2": [HIDDEN, Case("LMHeadModel", tokens("next_token_logits"))],
    **{name: [HIDDEN, CAUSAL] for name in ("Llama", "Mistral", "Qwen2", "Qwen3")},
}
IN_FLOAT32 = {"Llama", "Mistral", "Qwen2", "Qwen3"}
"""Their norms and angles are worked out in float32 by the oracle, whatever the dtype."""
DEAD = {"cls.predictions.bias", "lm_head.bias"}
"""Untied, the published code adds the decoder's bias and never reads this one."""
ALL = [
    pytest.param(family, case, id=f"{family}{case.architecture}-{case.theirs}")
    for family, cases in CASES.items()
    for case in cases
]


@st.composite
def configurations(draw: Any, family: str, *, answers: bool) -> Any:
    """A small random published config."""
    heads = draw(st.sampled_from([1, 2, 3, 4]))
    size, layers = heads * draw(st.sampled_from([2, 4, 8])), draw(st.integers(1, 3))
    mlp, vocabulary = draw(st.integers(3, 40)), draw(st.integers(20, 60))
    activation, tied = draw(ACTIVATIONS), draw(st.booleans())
    labels = 2 if answers else draw(st.integers(2, 5))
    common: dict[str, Any] = {"vocab_size": vocabulary, "num_labels": labels, "tie_word_embeddings": tied}
    if family == "GPT2":
        return transformers.GPT2Config(
            **common, n_embd=size, n_head=heads, n_layer=layers, n_positions=32, activation_function=activation,
            n_inner=draw(st.sampled_from([None, mlp])), scale_attn_weights=draw(st.booleans()), bos_token_id=0,
            eos_token_id=0, layer_norm_epsilon=draw(st.sampled_from([1e-5, 1e-3])),
        )  # fmt: skip
    if family in IN_FLOAT32:
        shared, head = draw(st.sampled_from([n for n in (1, 2, 3, 4) if heads % n == 0])), draw(st.sampled_from([2, 6]))
        scaling = draw(
            st.sampled_from(
                [
                    {"rope_type": "default"}, {"rope_type": "linear", "factor": 3.0},
                    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0,
                     "original_max_position_embeddings": 16},
                    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
                    {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 24, "beta_fast": 3.0,
                     "beta_slow": 0.5, "truncate": False, "mscale": 0.7, "mscale_all_dim": 1.2},
                    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16,
                     "attention_factor": 0.8},
                ]
            )
        )  # fmt: skip
        own: dict[str, Any] = {
            "Llama": {"attention_bias": draw(st.booleans()), "mlp_bias": draw(st.booleans())},
            "Mistral": {"sliding_window": draw(st.sampled_from([None, 1, 5]))},
            "Qwen2": {},
            "Qwen3": {"attention_bias": draw(st.booleans()), "head_dim": head},
        }[family]
        del common["num_labels"]
        return getattr(transformers, f"{family}Config")(
            **common, **own, hidden_size=size, num_attention_heads=heads, num_key_value_heads=shared,
            num_hidden_layers=layers, intermediate_size=mlp, hidden_act=activation, max_position_embeddings=32,
            rms_norm_eps=draw(st.sampled_from([1e-6, 1e-2])), bos_token_id=0, eos_token_id=0,
            rope_parameters={"rope_theta": draw(st.sampled_from([100.0, 10_000.0])), **scaling},
        )  # fmt: skip
    if family == "DistilBert":
        return transformers.DistilBertConfig(
            **common, dim=size, n_heads=heads, n_layers=layers, hidden_dim=mlp, activation=activation,
            max_position_embeddings=32, pad_token_id=0,
        )  # fmt: skip
    return getattr(transformers, f"{family}Config")(
        **common, hidden_size=size, num_attention_heads=heads, num_hidden_layers=layers, intermediate_size=mlp,
        hidden_act=activation, max_position_embeddings=34, type_vocab_size=draw(st.integers(1, 3)),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5, 1e-2])),
    )  # fmt: skip


def theirs_randomised(family: str, case: Case, config: Any, seed: int) -> Any:
    """The oracle in float64, every weight random (new models have zero biases, which would hide a lost one)."""
    torch.manual_seed(seed)
    model = getattr(transformers, family + case.architecture)(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model


def run_theirs(model: Any, sequences: list[list[int]], segments: list[list[int]] | None, case: Case) -> list[Tensor]:
    """The oracle on a padded batch → the rows of each sequence."""
    length = max(map(len, sequences))
    pad = model.config.pad_token_id or 0
    inputs = {
        "input_ids": torch.tensor([s + [pad] * (length - len(s)) for s in sequences]),
        "attention_mask": torch.tensor([[1] * len(s) + [0] * (length - len(s)) for s in sequences]),
    }
    if segments is not None:
        inputs["token_type_ids"] = torch.tensor([s + [0] * (length - len(s)) for s in segments])
    with torch.no_grad():
        output = getattr(model(**inputs), case.theirs)
    per_sequence = case.per_sequence
    return [row if per_sequence else row[: len(s)] for row, s in zip(output, sequences, strict=True)]


@torch.no_grad()
def run_ours(
    checkpoint: Checkpoint, sequences: list[list[int]], segments: list[list[int]] | None, case: Case
) -> Tensor:
    batch = Packed.from_sequences(sequences, segment_ids=segments)
    return case.ours(checkpoint.model, checkpoint.model(batch), batch)


def draw_batch(data: st.DataObject, config: Any) -> tuple[list[list[int]], list[list[int]] | None]:
    """Random sequences; no padding id among them, which RoBERTa gives a position of its own."""
    token = st.integers(3, config.vocab_size - 1)
    sequences = data.draw(st.lists(st.lists(token, min_size=1, max_size=20), min_size=1, max_size=5))
    types = getattr(config, "type_vocab_size", 0)
    if not types:
        return sequences, None
    return sequences, [
        data.draw(st.lists(st.integers(0, types - 1), min_size=len(s), max_size=len(s))) for s in sequences
    ]


@pytest.mark.parametrize(("family", "case"), ALL)
@given(data=st.data())
@settings(max_examples=8)
def test_outputs_equal_transformers(family: str, case: Case, data: st.DataObject) -> None:
    config = data.draw(configurations(family, answers=case in (START, END)))
    model = theirs_randomised(family, case, config, data.draw(st.integers(0, 99)))
    sequences, segments = draw_batch(data, config)
    expected = run_theirs(model, sequences, segments, case)
    whole = torch.stack(expected) if case.per_sequence else torch.cat(expected)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        exact = run_ours(open_checkpoint(folder, dtype=torch.float64), sequences, segments, case)
        single = run_ours(open_checkpoint(folder, dtype=torch.float32), sequences, segments, case)
    scale = max(1.0, float(whole.abs().max()))  # random weights make large outputs: 1e-5 of their size
    torch.testing.assert_close(exact, whole, rtol=0, atol=1e-5 * scale if family in IN_FLOAT32 else 1e-9)
    torch.testing.assert_close(single.double() / scale, whole / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "case"), [parameters for parameters in ALL if parameters.values[1] not in (END, POOLED)]
)
@given(data=st.data())
@settings(max_examples=5)
def test_saving_what_was_opened_gives_the_same_bytes_and_opens_in_transformers(
    family: str, case: Case, data: st.DataObject
) -> None:
    config = data.draw(configurations(family, answers=case is START))
    model = theirs_randomised(family, case, config, 1).float()
    assert_saved_as_it_was_opened(model, () if config.tie_word_embeddings else DEAD)
