"""The engine: an opened model → the same model, made fast for a dtype on the machine at hand.

On a processor that the compiled kernels are for, the whole stack runs in them; elsewhere torch's own products run, with
weights prepacked for a processor or attention in the variable-length kernel of a GPU. The stem stays in float32.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from sensorium import native
from sensorium.errors import UsageError, nearest
from sensorium.infer.fast_stack import FastStack, FastVocabulary, unsupported
from sensorium.infer.fast_stem import FastStem
from sensorium.infer.packing import Dtype
from sensorium.infer.torch_stack import TorchStack
from sensorium.models.build import Model, OneStack
from sensorium.models.decoder import DecoderLM
from sensorium.models.encoder import EncoderLM
from sensorium.nn.heads import MaskedTokenHead

DTYPES: dict[str, Dtype] = {
    "fp32": "fp32", "float32": "fp32", "bf16": "bf16", "bfloat16": "bf16", "int8": "int8",
    "int8_weight_only": "int8_weight_only", "int4_weight_only": "int4_weight_only",
}  # fmt: skip
AnyModel = TypeVar("AnyModel", EncoderLM, DecoderLM, OneStack)


class FallbackWarning(UserWarning):
    """The dtype that was asked for can't run here; another one does."""


def fast(model: AnyModel, dtype: str = "fp32", *, smooth: Mapping[str, Tensor] | None = None) -> AnyModel:
    """The same model for inference: ``fp32``, ``bf16`` or ``int8`` products, float32 in and out.

    ``int8_weight_only`` and ``int4_weight_only`` are for decoding a few sequences, which reads all weights for every
    token: activations stay bf16. The model that is given stays as it is; stem and heads are shared with it. ``smooth``
    comes from ``smoothing``, for ``int8``. Raises ``UsageError`` for an unknown dtype, or for a model that was made
    fast already. Warns with ``FallbackWarning``, in one line, when this machine can't do it and another dtype takes its
    place.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}{nearest(dtype, DTYPES)}; known are {', '.join(DTYPES)}")
    wanted = DTYPES[dtype]
    given: nn.Module = model.stack
    if isinstance(given, FastStack | TorchStack):
        raise UsageError("this model was made fast already; give the one that was opened")
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        model = copy.deepcopy(model).float()
    reason = "the model is on a GPU" if next(model.parameters()).is_cuda else _no_kernels(model)
    if reason is None:
        stack = FastStack(model.stack, wanted, dict(smooth or {}))
        return _with(model, stem=FastStem(model.stem), stack=stack, **_vocabularies(model, wanted))
    possible = _possible(wanted, model)
    if possible != wanted:
        warnings.warn(f"{wanted} can't run here: {reason}; {possible} runs instead", FallbackWarning, stacklevel=2)
    return _with(model, stack=TorchStack(model.stack, possible))


def one_stack(model: Model) -> OneStack:
    """A model of one stack. Raises ``UsageError`` for one that reads with one and writes with another."""
    if isinstance(model, EncoderLM | DecoderLM):
        return model
    raise UsageError("a model that reads one text and writes another runs as it was opened; the engine has none yet")


def _no_kernels(model: OneStack) -> str | None:
    """Why the compiled kernels can't take this model here."""
    try:
        native.library()
    except OSError as error:
        return str(error)
    return unsupported(model.config.stack)


def _possible(wanted: Dtype, model: OneStack) -> Dtype:
    """The dtype nearest to the one wanted that torch's own products are fast in."""
    bf16 = next(model.parameters()).is_cuda or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if wanted != "fp32" and bf16 else "fp32"


def _vocabularies(model: OneStack, dtype: Dtype) -> dict[str, nn.Module]:
    """The heads over the vocabulary, on the kernels."""
    if isinstance(model, DecoderLM):
        head = model.language_model
        return {} if head is None else {"language_model": FastVocabulary(head.vocabulary.weight, None, dtype)}
    masked = model.masked_token
    return {} if masked is None else {"masked_token": FastMaskedTokenHead(masked, dtype)}


class FastMaskedTokenHead(nn.Module):
    """As ``MaskedTokenHead``, its vocabulary on the kernels."""

    def __init__(self, head: MaskedTokenHead, dtype: Dtype) -> None:
        super().__init__()
        self.transform = head.transform
        self.vocabulary = FastVocabulary(head.vocabulary.weight, head.bias, dtype)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]."""
        logits: Tensor = self.vocabulary(self.transform(hidden_states))
        return logits


def _with(model: AnyModel, **parts: nn.Module) -> AnyModel:
    """The model with other parts in place of its own; the rest is shared."""
    result = copy.copy(model)
    result.__dict__["_modules"] = {**model._modules, **parts}
    return result.eval()
