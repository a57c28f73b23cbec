"""From a config to a model: built, and initialised."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import nn

from sensorium.config import DecoderConfig, EncoderConfig, ModelConfig
from sensorium.models.decoder import DecoderLM
from sensorium.models.encoder import EncoderLM
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.nn.block import Block

OneStack = EncoderLM | DecoderLM
Model = OneStack | EncoderDecoder
INITIAL_STD = 0.02
"""Standard deviation of new weights, in BERT and in GPT-2."""


def build(config: ModelConfig) -> Model:
    """A model with the weights torch gives it; call ``initialise``, or load a checkpoint's."""
    if isinstance(config, EncoderConfig):
        return EncoderLM(config)
    return DecoderLM(config) if isinstance(config, DecoderConfig) else EncoderDecoder(config)


def new_model(config: ModelConfig, *, seed: int) -> Model:
    """A model with fresh weights: the same seed gives the same weights."""
    with torch.device("meta"):
        model = build(config)
    model.to_empty(device="cpu")
    initialise(model, seed=seed)
    return model.eval()


@torch.no_grad()
def initialise(model: Model, *, seed: int, only: Collection[str] | None = None) -> None:
    """Fill parameters with fresh values: matrices normal with deviation 0.02, norms 1, biases 0.

    Pre-norm stacks draw what writes to the residual stream with 0.02/√(2L), so that its variance does not grow with
    depth (Radford et al., 2019, §2.3). What reads one text and writes another is trained from nothing on little data,
    where 0.02 starts too low: its matrices have deviation √(2 / (inputs + outputs)) (Glorot & Bengio, 2010), its token
    table 1/√D. ``only`` names the parameters to fill; ``None``: all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    residual_std: float = INITIAL_STD / (2 * model.config.stack.num_layers) ** 0.5
    residual = {
        id(part.weight)
        for block in model.modules()
        if isinstance(block, Block) and model.config.stack.norm_place == "pre"
        for part in (block.attention.output, block.mlp.down)
    }
    norms = {id(part.weight) for part in model.modules() if isinstance(part, nn.LayerNorm | nn.RMSNorm)}
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}

    def deviation(parameter: nn.Parameter) -> float:
        if id(parameter) in residual:
            return residual_std
        if not isinstance(model, EncoderDecoder):
            return INITIAL_STD
        outputs, inputs = parameter.shape
        return math.sqrt(1 / inputs if id(parameter) in tables else 2 / (inputs + outputs))

    for name, parameter in model.named_parameters():
        if only is not None and name not in only:
            continue
        if id(parameter) in norms:
            parameter.fill_(1.0)
        elif parameter.dim() < 2:
            parameter.zero_()
        else:
            parameter.normal_(0.0, deviation(parameter), generator=generator)
