"""The engine: an opened model → the same model, made fast for a dtype on the machine at hand.

On a processor that the compiled kernels are for, the whole stack runs in them; elsewhere torch's own products run, with
weights prepacked for a processor or attention in the variable-length kernel of a GPU. The stem stays in float32.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sensorium import native
from sensorium.errors import UsageError, nearest
from sensorium.infer.fast_stack import FastStack, FastVocabulary, unsupported
from sensorium.infer.fast_stem import FastStem
from sensorium.infer.packing import Dtype
from sensorium.infer.torch_stack import TorchStack
from sensorium.models.build import Model, OneStack
from sensorium.models.captioner import Captioner
from sensorium.models.decoder import DecoderLM
from sensorium.models.dual_encoder import DualEncoder
from sensorium.models.encoder import EncoderLM
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.models.image_codec import ImageCodec
from sensorium.models.multimodal import MultimodalLM
from sensorium.nn.heads import MaskedTokenHead
from sensorium.nn.stems import TokenStem

DTYPES: dict[str, Dtype] = {
    "fp32": "fp32", "float32": "fp32", "bf16": "bf16", "bfloat16": "bf16", "int8": "int8",
    "int8_weight_only": "int8_weight_only", "int4_weight_only": "int4_weight_only",
}  # fmt: skip
SIDES: dict[type[nn.Module], tuple[str, ...]] = {
    EncoderDecoder: ("encoder", "decoder"), Captioner: ("image", "decoder"), DualEncoder: ("image", "text"),
}  # fmt: skip
"""The parts of a model that have a stem and a stack each, where it has two."""
AnyModel = TypeVar("AnyModel", EncoderLM, DecoderLM, EncoderDecoder, OneStack, Model)


Part = TypeVar("Part", bound=nn.Module)


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
    if isinstance(model, ImageCodec):
        return model  # convolutions, which are torch's
    if isinstance(model, MultimodalLM):
        sides = {name: fast(getattr(model, name), dtype, smooth=smooth) for name in ("image", "text")}
        return _with(model, **sides)
    wanted = DTYPES[dtype]
    if any(isinstance(side.stack, FastStack | TorchStack) for side in _sides(model)):
        raise UsageError("this model was made fast already; give the one that was opened")
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        model = copy.deepcopy(model).float()
    reason = "the model is on a GPU" if next(model.parameters()).is_cuda else _no_kernels(model)
    if reason is None:
        return _put(model, lambda side: _on_kernels(side, wanted, dict(smooth or {})), **_vocabularies(model, wanted))
    possible = _possible(wanted, model)
    if possible != wanted:
        warnings.warn(f"{wanted} can't run here: {reason}; {possible} runs instead", FallbackWarning, stacklevel=2)
    return _put(model, lambda side: {"stack": TorchStack(side.stack, possible)})


def _sides(model: Model) -> list[Any]:
    """What has a stem and a stack: the model, or both of its sides."""
    return [getattr(model, name) for name in SIDES.get(type(model), ())] or [model]


def _put(model: AnyModel, parts: Callable[[Any], dict[str, nn.Module]], **heads: nn.Module) -> AnyModel:
    """The model with these parts in each of its sides, and these heads; the rest is shared."""
    names = SIDES.get(type(model), ())
    if not names:
        return _with(model, **parts(model), **heads)
    sides = {name: _with(getattr(model, name), **parts(getattr(model, name))) for name in names}
    return _with(model, **sides, **heads)


def _on_kernels(side: Any, dtype: Dtype, smooth: dict[str, Tensor]) -> dict[str, nn.Module]:
    stem = FastStem(side.stem) if isinstance(side.stem, TokenStem) else side.stem  # patches are one product
    return {"stem": stem, "stack": FastStack(side.stack, dtype, smooth)}


def _no_kernels(model: Model) -> str | None:
    """Why the compiled kernels can't take this model here."""
    try:
        native.library()
    except OSError as error:
        return str(error)
    return next((reason for side in _sides(model) if (reason := unsupported(side.stack.config))), None)


def _possible(wanted: Dtype, model: Model) -> Dtype:
    """The dtype nearest to the one wanted that torch's own products are fast in."""
    bf16 = next(model.parameters()).is_cuda or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if wanted != "fp32" and bf16 else "fp32"


def _vocabularies(model: Model, dtype: Dtype) -> dict[str, nn.Module]:
    """The heads over the vocabulary, on the kernels; in 8 bits where the stack has 4, as most quantised files have it.

    A row is a word, and a rare word has no other to make up for what is rounded away.
    """
    dtype = "int8_weight_only" if dtype == "int4_weight_only" else dtype
    if isinstance(model, DecoderLM | EncoderDecoder):
        head = model.language_model
        if head is None:
            return {}
        weight = head.vocabulary.weight if head.scale == 1.0 else head.vocabulary.weight * head.scale
        return {"language_model": FastVocabulary(weight, head.bias, dtype)}
    name = "language_model" if isinstance(model, Captioner) else "masked_token"
    masked = getattr(model, name, None)
    return {} if masked is None else {name: FastMaskedTokenHead(masked, dtype)}


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


def _with(model: Part, **parts: nn.Module) -> Part:
    """The model with other parts in place of its own; the rest is shared."""
    result = copy.copy(model)
    result.__dict__["_modules"] = {**model._modules, **parts}
    return result.eval()
