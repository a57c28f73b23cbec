"""What turns vectors into logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sensorium.config._checked import Checked

Activation = Literal["gelu", "gelu_tanh", "gelu_quick", "relu", "silu", "tanh"]


@dataclass(frozen=True)
class PoolerConfig(Checked):
    """First token → dense → activation: BERT's pooled vector."""

    activation: Activation = "tanh"


@dataclass(frozen=True)
class ProbePoolerConfig(Checked):
    """A learnt vector attends to all others, and an MLP follows; its sizes are the stack's (Lee et al., 2019, §3.2)."""


@dataclass(frozen=True)
class MaskedTokenHeadConfig(Checked):
    """Dense → activation → LayerNorm → vocabulary: the masked-token head."""

    activation: Activation = "gelu"
    norm_eps: float = 1e-12
    tied: bool = True
    """The vocabulary matrix is the stem's token table."""


@dataclass(frozen=True)
class NextSentenceHeadConfig(Checked):
    """Pooled vector → two logits: 0, the second sentence follows the first; 1, it does not."""


@dataclass(frozen=True)
class SequenceHeadConfig(Checked):
    """One label for the whole sequence."""

    labels: tuple[str, ...]
    dense: Activation | None = None
    """``None``: a linear map of the pooled vector (BERT). Else dense → this activation → linear, on the first token."""
    dropout: float = 0.0
    problem: Literal["single_label", "multi_label", "regression"] = "single_label"


@dataclass(frozen=True)
class TokenHeadConfig(Checked):
    """One label for every token."""

    labels: tuple[str, ...]
    dropout: float = 0.0


@dataclass(frozen=True)
class SpanHeadConfig(Checked):
    """Two logits for every token: the answer starts here, ends here."""

    dropout: float = 0.0


@dataclass(frozen=True)
class LanguageModelHeadConfig(Checked):
    """Vector → vocabulary: the next token."""

    tied: bool = True
    bias: bool = False
    scaled: bool = False
    """Vectors times 1/√hidden_size before they meet the vocabulary."""
