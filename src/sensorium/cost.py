"""Cost as arithmetic on a config: parameters, FLOPs, bytes. And what this machine can do at most.

Counted: matrix products (2 FLOPs a multiply-add), as in PaLM's appendix B (Chowdhery et al., 2022). Ignored: norms,
activations, softmax, embedding look-ups.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from sensorium.config import (
    CaptionerConfig,
    DrawingConfig,
    DualEncoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ImageCodecConfig,
    ImageEncoderConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    ModelConfig,
    MultimodalConfig,
    PatchStemConfig,
    PoolerConfig,
    ProbePoolerConfig,
    StackConfig,
    TokenStemConfig,
)


def stack_parameters(config: StackConfig) -> int:
    """Weights and biases of the blocks and the final norm."""
    d = config.hidden_size
    norm = d if config.norm == "rms" else 2 * d
    heads, middles = config.qkv_sizes, 2 if config.mlp == "gated" else 1
    biases = {"qkv": sum(heads), "output": d, "mlp": middles * config.mlp_size + d}
    if config.memory_size is not None:  # queries, keys, values and output once more, and a norm
        biases["qkv"], biases["output"] = biases["qkv"] + 3 * heads[0], 2 * d
    block = block_weights(config) + sum(biases[name] for name in config.biases)
    block += memory_weights(config) + (2 if config.memory_size is None else 3) * norm
    block += 2 * config.head_size if config.qk_norm else 0
    distances = 0 if config.relative is None else config.relative.buckets * config.num_heads
    return config.num_layers * block + distances + (norm if config.final_norm else 0)


def block_weights(config: StackConfig) -> int:
    """Weights of one block's linear maps, without biases: a token is multiplied with each once."""
    d = config.hidden_size
    maps = 3 if config.mlp == "gated" else 2
    return d * sum(config.qkv_sizes) + config.qkv_sizes[0] * d + maps * d * config.mlp_size


def memory_weights(config: StackConfig) -> int:
    """Weights of one block's attention to another stack, without biases; 0 where there is none."""
    return 0 if config.memory_size is None else config.qkv_sizes[0] * 2 * (config.hidden_size + config.memory_size)


def stem_parameters(stem: TokenStemConfig) -> int:
    """All tables of a stem, and its norm."""
    d = stem.hidden_size
    table = stem.positions.size if isinstance(stem.positions, LearnedPositions) else 0
    return d * (stem.vocabulary_size + table + stem.num_segments) + (0 if stem.norm_eps is None else 2 * d)


def patch_stem_parameters(stem: PatchStemConfig) -> int:
    """The map of patches, the places, the class token, and the norm."""
    d, first = stem.hidden_size, int(stem.class_token)
    rows = stem.patch_values + stem.bias + first + (first + stem.grid**2)
    return d * rows + (0 if stem.norm_eps is None else 2 * d)


def parameters(config: ModelConfig) -> int:
    """All parameters of a model, a tied matrix once."""
    if isinstance(config, ImageCodecConfig):
        return codec_parameters(config)
    d = config.stack.hidden_size
    if isinstance(config, DualEncoderConfig):
        width = config.image.stack.hidden_size if config.image_projection else 0
        projections = (width + config.text.stack.hidden_size + config.text_bias) * config.projection_size
        return parameters(config.image) + parameters(config.text) + projections + 1 + config.logit_bias
    if isinstance(config, MultimodalConfig):
        inputs = config.image.stack.hidden_size + config.bias
        maps = d * (inputs + (config.maps - 1) * (d + config.bias))
        count = parameters(config.image) + parameters(config.text) + maps
        return count if config.drawing is None else count + drawing_parameters(config.drawing, d)
    if isinstance(config, ImageEncoderConfig):
        count = patch_stem_parameters(config.stem) + stack_parameters(config.stack)
        count += d * d + d if isinstance(config.pooler, PoolerConfig) else 0
        if isinstance(config.pooler, ProbePoolerConfig):
            count += d + 4 * (d * d + d) + 2 * d + 2 * d * config.stack.mlp_size + config.stack.mlp_size + d
        return count + (len(config.sequence.labels) * (d + 1) if config.sequence else 0)
    stem = config.stem
    if isinstance(config, CaptionerConfig):
        count = parameters(config.image) + stem_parameters(stem) + stack_parameters(config.stack)
        return count + _masked_token_parameters(config.language_model, stem)
    if isinstance(config, EncoderDecoderConfig):
        written = config.decoder_stem.vocabulary_size
        count = stem_parameters(stem) + stem_parameters(config.decoder_stem)
        count -= written * d if config.shared_tokens else 0
        count += stack_parameters(config.encoder_stack) + stack_parameters(config.decoder_stack)
        head = config.language_model
        count += written if head is not None and head.bias else 0
        return count + (written * d if head is not None and not head.tied else 0)
    count = stack_parameters(config.stack) + stem_parameters(stem)
    if not isinstance(config, EncoderConfig):
        head = config.language_model
        return count + (stem.vocabulary_size * d if head is not None and not head.tied else 0)
    dense = d * d + d
    count += dense if config.pooler else 0
    count += _masked_token_parameters(config.masked_token, stem)
    count += 2 * (d + 1) if config.next_sentence else 0
    if config.sequence is not None:
        count += (dense if config.sequence.dense else 0) + len(config.sequence.labels) * (d + 1)
    count += len(config.token.labels) * (d + 1) if config.token else 0
    return count + (2 * (d + 1) if config.span else 0)


def _masked_token_parameters(head: MaskedTokenHeadConfig | None, stem: TokenStemConfig) -> int:
    if head is None:
        return 0
    d, vocabulary = stem.hidden_size, stem.vocabulary_size
    return d * d + d + 2 * d + vocabulary + (0 if head.tied else vocabulary * d)


def drawing_parameters(config: DrawingConfig, size: int) -> int:
    """The codec, a table of its tokens, the maps from there to vectors of ``size``, and the head over its codes."""
    codec = config.codec
    maps = size * (codec.code_size + 1) + (config.maps - 1) * size * (size + 1)
    head = size * (size + 1) + codec.num_codes * (size + 1)
    return codec_parameters(codec) + codec.num_codes * codec.code_size + maps + head


def convolutions(config: ImageCodecConfig) -> Iterator[tuple[int, int, int, int]]:
    """Of every convolution of a codec: channels in and out, side of its kernel, and at how many places for a token."""
    sizes, coarsest = config.levels, len(config.levels) - 1

    def block(inputs: int, outputs: int, places: int) -> Iterator[tuple[int, int, int, int]]:
        yield from ((inputs, outputs, 3, places), (outputs, outputs, 3, places))
        if inputs != outputs:
            yield inputs, outputs, 1, places

    yield config.image_channels, config.channels, 3, 4**coarsest
    yield sizes[0], config.image_channels, 3, 4**coarsest
    for level, size in enumerate(sizes):
        places = 4 ** (coarsest - level)
        finer, coarser = (config.channels, *sizes)[level], sizes[min(level + 1, coarsest)]
        for number in range(config.blocks):
            yield from block(finer if number == 0 else size, size, places)
        for number in range(config.blocks + 1):
            yield from block(coarser if number == 0 else size, size, places)
        if level < coarsest:
            yield size, size, 3, places // 4  # down
        if level:
            yield size, size, 3, 4 * places  # up
    last = sizes[-1]
    for _ in range(4):  # two blocks on each side, between which all places attend
        yield from block(last, last, 1)
    yield from [(last, last, 1, 1)] * 4 * (2 * config.blocks + 3)
    yield from ((last, config.latent_size, 3, 1), (config.latent_size, last, 3, 1))
    yield from ((config.latent_size, config.code_size, 1, 1), (config.code_size, config.latent_size, 1, 1))


def codec_parameters(config: ImageCodecConfig) -> int:
    """All convolutions, the norms before them, and the codes."""
    sizes = config.levels
    weights = sum(inputs * outputs * side**2 + outputs for inputs, outputs, side, _ in convolutions(config))
    norms = sizes[0] + sizes[-1] * (1 + 8 + 2 * config.blocks + 3)  # last ones, of the middle, of attention
    for level, size in enumerate(sizes):
        finer, coarser = (config.channels, *sizes)[level], (*sizes, sizes[-1])[level + 1]
        norms += coarser + (2 * config.blocks + 1) * size  # of the way back, which has a block more
        norms += finer + (2 * config.blocks - 1) * size if config.blocks else 0
    return weights + 2 * norms + config.num_codes * config.code_size


def codec_flops(config: ImageCodecConfig, lengths: Sequence[int]) -> int:
    """FLOPs of an image there and back, for images of so many tokens."""
    products = sum(2 * inputs * outputs * side**2 * places for inputs, outputs, side, places in convolutions(config))
    attention = 4 * config.levels[-1] * (2 * config.blocks + 3)
    return products * sum(lengths) + attention * sum(length * length for length in lengths)


def forward_flops(
    config: ModelConfig,
    lengths: Iterable[int],
    *,
    vocabulary_rows: int = 0,
    source_lengths: Sequence[int] | None = None,
) -> int:
    """FLOPs of one forward pass over sequences of these lengths.

    An image's length is its patches, class token included. ``vocabulary_rows`` is how many rows go through a
    vocabulary-wide head. A model that reads one text and writes another reads ``source_lengths`` and writes
    ``lengths``; raises ``TypeError`` when it is given only one of them. Of a model that matches images with texts, or
    writes about them, ``source_lengths`` are those of the images.
    """
    sizes = list(lengths)
    if isinstance(config, ImageCodecConfig):
        return codec_flops(config, sizes)
    if isinstance(config, ImageEncoderConfig):
        return stack_flops(config.stack, sizes) + 2 * config.stem.patch_values * config.stem.hidden_size * sum(sizes)
    if isinstance(config, DualEncoderConfig):
        return stack_flops(config.text.stack, sizes) + forward_flops(config.image, source_lengths or ())
    head = 2 * vocabulary_rows * config.stack.hidden_size * config.stem.vocabulary_size
    if not isinstance(config, EncoderDecoderConfig | CaptionerConfig):
        return stack_flops(config.stack, sizes) + head
    if source_lengths is None:
        raise TypeError("an encoder–decoder's FLOPs need the lengths of both texts")
    writes = memory_flops(config.stack, sizes, source_lengths) + head
    if isinstance(config, CaptionerConfig):
        transform = 2 * vocabulary_rows * config.stack.hidden_size**2
        return forward_flops(config.image, source_lengths) + writes + transform
    return stack_flops(config.encoder_stack, source_lengths) + writes


def stack_flops(config: StackConfig, lengths: Sequence[int]) -> int:
    """FLOPs of a stack over sequences of these lengths, without what it attends to in another one."""
    attention = sum(4 * config.qkv_sizes[0] * length * length for length in lengths) * config.num_layers
    if config.mask == "causal":
        attention //= 2
    return 2 * block_weights(config) * config.num_layers * sum(lengths) + attention


def memory_flops(stack: StackConfig, lengths: Sequence[int], source_lengths: Sequence[int]) -> int:
    """FLOPs of a decoder: its own stack, and its attention to the sources."""
    width = stack.qkv_sizes[0]
    ours = 4 * width * stack.hidden_size  # a token's query and output
    theirs = 4 * width * (stack.memory_size or 0)  # a source token's key and value
    scores = sum(4 * width * t * s for t, s in zip(lengths, source_lengths, strict=True))
    memory = ours * sum(lengths) + theirs * sum(source_lengths) + scores
    return stack_flops(stack, lengths) + stack.num_layers * memory


def training_flops(
    config: ModelConfig,
    lengths: Iterable[int],
    *,
    vocabulary_rows: int = 0,
    source_lengths: Sequence[int] | None = None,
) -> int:
    """Forward and backward: three times the forward pass."""
    return 3 * forward_flops(config, lengths, vocabulary_rows=vocabulary_rows, source_lengths=source_lengths)


def weight_bytes(config: ModelConfig, item_bytes: int = 4) -> int:
    """Bytes of the weights."""
    return item_bytes * parameters(config)


def training_bytes(config: ModelConfig, *, bf16: bool = True) -> int:
    """Bytes that training holds for each weight: master, two moments, gradient, and the bf16 copy with its gradient."""
    return parameters(config) * (4 * 4 + (4 if bf16 else 0))


@lru_cache
def peak_flops(dtype_name: str, device: str = "cpu") -> float:
    """FLOP/s of a large matrix product on this machine in a dtype ("float32", "bfloat16"): measured once, ~0.1 s.

    On the processor the product is as large as a model's; a GPU ("cuda") needs a larger one to be busy.
    """
    import torch

    rows, inputs, outputs = (2048, 768, 3072) if device == "cpu" else (8192, 8192, 8192)
    dtype = getattr(torch, dtype_name)
    x, weight = (torch.randn(n, inputs, device=device).to(dtype) for n in (rows, outputs))
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * rows * inputs * outputs / best
