"""From a config to a model: built, and initialised."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import nn

from sensorium.config import (
    CaptionerConfig,
    DecoderConfig,
    DualEncoderConfig,
    EncoderConfig,
    ImageCodecConfig,
    ImageEncoderConfig,
    ModelConfig,
    MultimodalConfig,
)
from sensorium.models.captioner import Captioner
from sensorium.models.decoder import DecoderLM
from sensorium.models.dual_encoder import DualEncoder, first_value
from sensorium.models.encoder import EncoderLM
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.models.image_codec import ImageCodec
from sensorium.models.image_encoder import ImageEncoder
from sensorium.models.multimodal import MultimodalLM
from sensorium.nn.block import Block, MemoryAttention
from sensorium.nn.convolution import PlaceAttention, ResidualBlock

OneStack = EncoderLM | DecoderLM | ImageEncoder
LanguageModel = EncoderLM | DecoderLM | EncoderDecoder
"""What reads tokens, and nothing else."""
WithStack = OneStack | EncoderDecoder | DualEncoder | MultimodalLM | Captioner
"""What is a Transformer, or several."""
Model = WithStack | ImageCodec
INITIAL_STD = 0.02
"""Standard deviation of new weights, in BERT and in GPT-2."""


def build(config: ModelConfig) -> Model:
    """A model with the weights torch gives it; call ``initialise``, or load a checkpoint's."""
    if isinstance(config, EncoderConfig):
        return EncoderLM(config)
    if isinstance(config, ImageEncoderConfig):
        return ImageEncoder(config)
    if isinstance(config, DualEncoderConfig):
        return DualEncoder(config)
    if isinstance(config, MultimodalConfig):
        return MultimodalLM(config)
    if isinstance(config, ImageCodecConfig):
        return ImageCodec(config)
    if isinstance(config, CaptionerConfig):
        return Captioner(config)
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

    What reads one text and writes another, matches images with texts or writes about them is trained from nothing on
    little data, where 0.02 starts too low: there a matrix has deviation √(2 / (inputs + outputs)) (Glorot & Bengio,
    2010), the token table and the class token 1/√D.

    There, and in pre-norm stacks, what writes to the residual stream is divided by √(2L), L layers (Radford et al.,
    2019, §2.3), so that a token is still itself at the top. Else the norms of a post-norm stack halve its share at each
    part of a block, and attention to the source, which begins as a search for what resembles the token (keys are made
    as queries are, Trockman & Kolter, 2023), finds nothing for thousands of steps.

    A convolution's deviation is 1/√inputs, and the last of what is added to what came in is zero (Goyal et al., 2017,
    §5.1), so that a codec begins as the few steps between its sizes.

    ``only`` names the parameters to fill; ``None``: all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = {id(part.weight) for part in model.modules() if isinstance(part, nn.LayerNorm | nn.RMSNorm)}
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    norms |= {id(part.weight) for part in model.modules() if isinstance(part, nn.GroupNorm)}
    residual, shrink = set[int](), 1.0
    if not isinstance(model, ImageCodec):
        residual, shrink = _residual_writers(model), (2 * model.config.stack.num_layers) ** -0.5
    silent = {id(part.weight) for block in model.modules() for part in _last_of(block)}
    two_sides = isinstance(model, EncoderDecoder | DualEncoder | MultimodalLM | Captioner | ImageCodec)
    drawn = ("class_token", "probe") if two_sides else ()

    def deviation(parameter: nn.Parameter) -> float:
        if parameter.dim() > 2:  # a convolution: what goes through it keeps its size
            return float(parameter[0].numel() ** -0.5)
        outputs, inputs = parameter.shape
        spread = math.sqrt(1 / inputs if id(parameter) in tables else 2 / (inputs + outputs))
        return (spread if two_sides else INITIAL_STD) * (shrink if id(parameter) in residual else 1.0)

    for name, parameter in model.named_parameters():
        if only is not None and name not in only:
            continue
        if isinstance(model, DualEncoder) and not parameter.dim():
            parameter.fill_(first_value(model.config, name))
        elif id(parameter) in norms:
            parameter.fill_(1.0)
        elif id(parameter) in silent or (parameter.dim() < 2 and name.rpartition(".")[2] not in drawn):
            parameter.zero_()
        elif parameter.dim() < 2:
            parameter.normal_(0.0, len(parameter) ** -0.5, generator=generator)
        else:
            parameter.normal_(0.0, deviation(parameter), generator=generator)
    # Sides of different widths have no such keys; a head that is added to an opened model leaves its attention alone.
    for part in model.modules() if only is None else ():
        if isinstance(part, MemoryAttention) and part.query.in_features == part.key_value.in_features:
            part.key_value.weight[: len(part.query.weight)] = part.query.weight


def _last_of(block: nn.Module) -> list[nn.Module]:
    """What a part of a codec adds to what came in."""
    if isinstance(block, ResidualBlock):
        return [block.second]
    return [block.output] if isinstance(block, PlaceAttention) else []


def _residual_writers(model: WithStack) -> set[int]:
    """The matrices whose small beginning keeps the residual stream what it is; none in a post-norm stack of one text,
    which begins as BERT did.
    """
    if model.config.stack.norm_place != "pre" and not isinstance(model, EncoderDecoder | Captioner):
        return set()
    found = set()
    for block in model.modules():
        if isinstance(block, Block):
            parts = [block.attention.output, block.mlp.down]
            if block.memory_attention is not None:
                parts.append(block.memory_attention.output)
            found |= {id(part.weight) for part in parts}
    return found
