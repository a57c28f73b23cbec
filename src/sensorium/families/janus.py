"""Janus (Wu et al., 2024): an image tower and two maps as eyes, a Llama, and a codec whose tokens it writes to draw."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import (
    DrawingConfig,
    ImageEncoderConfig,
    MultimodalConfig,
    StackConfig,
)
from sensorium.errors import CheckpointError
from sensorium.families import janus_vqgan, llama
from sensorium.families._fields import (
    PUBLISHED_ACTIVATIONS,
    read_activation,
    read_float,
    read_int,
    read_patches,
    write_patches,
)
from sensorium.families._table import Family, Rule, rules_like
from sensorium.families.clip import section

TEXT, IMAGES = "model.language_model.", "model.vision_model."
MOST_MAPS = 8
"""The rules are written out for so many."""


def _patches(config: MultimodalConfig) -> tuple[int, ...]:
    return config.image.stem.convolution


def _tower() -> tuple[Rule, ...]:
    layer, published = "image.stack.layers.{i}", f"{IMAGES}encoder.layers.{{i}}"
    attention = f"{published}.self_attn"
    return (
        Rule("image.stem.patches.weight", (f"{IMAGES}embeddings.patch_embedding.weight",), _patches),
        Rule("image.stem.patches.bias", (f"{IMAGES}embeddings.patch_embedding.bias",)),
        Rule("image.stem.positions.weight", (f"{IMAGES}embeddings.position_embedding.weight",)),
        *rules_like(f"{layer}.attention.qkv", tuple(f"{attention}.{name}_proj" for name in "qkv"), "join"),
        *rules_like(f"{layer}.attention.output", f"{attention}.projection_layer"),
        *rules_like(f"{layer}.attention_norm", f"{published}.layer_norm1"),
        *rules_like(f"{layer}.mlp.up", f"{published}.mlp.fc1"),
        *rules_like(f"{layer}.mlp.down", f"{published}.mlp.fc2"),
        *rules_like(f"{layer}.mlp_norm", f"{published}.layer_norm2"),
        *rules_like("image.stack.final_norm", f"{IMAGES}post_layernorm"),
    )


def _maps(ours: str, theirs: str) -> tuple[Rule, ...]:
    """The first map has a name of its own, the others numbers."""
    others = (rules_like(f"{ours}.{n}", f"{theirs}.hidden_layers.{n - 1}") for n in range(1, MOST_MAPS))
    return (*rules_like(f"{ours}.0", f"{theirs}.fc1"), *(rule for rules in others for rule in rules))


def _of_text(rule: Rule) -> Rule:
    return replace(rule, ours=f"text.{rule.ours}", theirs=tuple(name.replace("{base}", TEXT) for name in rule.theirs))


RULES = (
    *_tower(),
    *_maps("projector", "model.aligner"),
    *janus_vqgan.codec_rules("drawing.codec.", "model.vqmodel."),
    Rule("drawing.tokens.weight", ("model.generation_embeddings.weight",)),
    *_maps("drawing.maps", "model.generation_aligner"),
    *rules_like("drawing.head", "model.generation_head.proj_out"),
    *rules_like("drawing.vocabulary", "model.generation_head.vision_head"),
    *(_of_text(rule) for rule in llama.RULES),
)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> MultimodalConfig:
    """``config.json`` → our config. Raises ``CheckpointError`` where its parts do not fit together."""
    text, vision, codec = (section(raw, name) for name in ("text_config", "vision_config", "vq_config"))
    if text.get("model_type", "llama") != "llama":
        raise CheckpointError(f"config.json: the decoder is {text['model_type']!r}; only 'llama' is known here")
    stack = _read_tower(vision)
    patches = read_patches(vision, stack.hidden_size, image_size=384, patch_size=16, class_token=False)
    tied = bool(raw.get("tie_word_embeddings", True))  # whatever is said of the decoder
    decoder = llama.read_config({**text, "tie_word_embeddings": tied}, {"language_model"})
    maps, drawn_maps = read_int(vision, "depth", 2), read_int(codec, "num_hidden_layers", 2)
    if max(maps, drawn_maps) > MOST_MAPS:
        raise CheckpointError(f"config.json: there are {max(maps, drawn_maps)} maps; up to {MOST_MAPS} are known")
    for said, key, default in (
        (vision, "projection_dim", 2048), (codec, "projection_dim", 2048), (codec, "image_token_embed_dim", 2048),
    ):  # fmt: skip
        if read_int(said, key, default) != decoder.stack.hidden_size:
            raise CheckpointError(
                f"config.json: {key} is {read_int(said, key, default)}; the decoder's vectors have "
                f"{decoder.stack.hidden_size} numbers"
            )
    drawing = DrawingConfig(
        # The published code takes the grid from the image tower, whatever is said of the codec's.
        janus_vqgan.read_config({**codec, "num_patches": patches.grid}, ()),
        drawn_maps,
        read_activation(codec, "hidden_act", "gelu"),
    )
    return MultimodalConfig(
        image=ImageEncoderConfig(patches, stack),
        text=decoder,
        image_token_id=read_int(raw, "image_token_id", 100581),
        image_blocks=None,
        maps=maps,
        activation=stack.activation,
        drawing=drawing,
    )


def _read_tower(vision: Mapping[str, Any]) -> StackConfig:
    size = read_int(vision, "hidden_size", 1024)
    biased = vision.get("attention_bias", True)
    return StackConfig(
        hidden_size=size,
        num_layers=read_int(vision, "num_hidden_layers", 24),
        num_heads=read_int(vision, "num_attention_heads", 16),
        mlp_size=int(size * read_float(vision, "mlp_ratio", 4.0)),
        norm_place="pre",
        norm_eps=read_float(vision, "layer_norm_eps", 1e-6),
        final_norm=True,
        activation=read_activation(vision, "hidden_act", "gelu"),
        attention_dropout=read_float(vision, "attention_dropout", 0.0),
        biases=frozenset({"qkv", "output", "mlp"} if biased else {"output", "mlp"}),
    )


def write_config(config: MultimodalConfig) -> dict[str, Any]:
    """Our config → ``config.json``. Raises ``CheckpointError`` for what this family cannot say."""
    image, text, drawing = config.image, llama.write_config(config.text), config.drawing
    if drawing is None or config.image_blocks is not None or image.stem.class_token or not config.bias:
        raise CheckpointError("a janus model draws, and reads all vectors of patches and nothing else")
    if drawing.codec.grid != image.stem.grid:
        raise CheckpointError(
            f"a janus model draws as many tokens a side as it sees patches; these are {drawing.codec.grid} and "
            f"{image.stem.grid}"
        )
    if config.activation != image.stack.activation:
        raise CheckpointError("a janus model's maps have the activation of its image tower")
    size = config.text.stack.hidden_size
    return {
        "image_token_id": config.image_token_id,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "text_config": {"model_type": "llama", **text},
        "vision_config": {
            "model_type": "janus_vision_model",
            "hidden_size": image.stack.hidden_size,
            "num_hidden_layers": image.stack.num_layers,
            "num_attention_heads": image.stack.num_heads,
            "mlp_ratio": _ratio(image.stack),
            "hidden_act": PUBLISHED_ACTIVATIONS[image.stack.activation],
            "layer_norm_eps": image.stack.norm_eps,
            "attention_dropout": image.stack.attention_dropout,
            "attention_bias": "qkv" in image.stack.biases,
            **write_patches(image.stem),
            "num_image_tokens": image.stem.grid**2,
            "projection_dim": size,
            "depth": config.maps,
        },
        "vq_config": {
            "model_type": "janus_vqgan",
            **janus_vqgan.write_config(drawing.codec),
            "projection_dim": size,
            "image_token_embed_dim": size,
            "num_hidden_layers": drawing.maps,
            "hidden_act": PUBLISHED_ACTIVATIONS[drawing.activation],
        },
    }


def _ratio(stack: StackConfig) -> float:
    """What the width is multiplied by, and rounded down, to give the size of the MLP."""
    ratio = stack.mlp_size / stack.hidden_size
    return ratio if int(stack.hidden_size * ratio) == stack.mlp_size else math.nextafter(ratio, math.inf)


FAMILY = Family(
    name="janus",
    base="",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=frozenset(["image_token_id", "tie_word_embeddings", "text_config", "vision_config", "vq_config"]),
    sections={
        "text_config": llama.FAMILY.keys | llama.FAMILY.inert,
        "vision_config": frozenset(
            [
                "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "hidden_act", "layer_norm_eps",
                "attention_dropout", "attention_bias", "image_size", "patch_size", "num_channels", "num_image_tokens",
                "projection_dim", "depth",
            ]
        ),
        "vq_config": janus_vqgan.KEYS | janus_vqgan.OF_DECODERS,
    },
    architectures={"JanusForConditionalGeneration": ("language_model",)},
    markers={},
    requires={"double_latent": False, "use_qk_norm": False, "hidden_dropout_rate": 0.0, "projection_dropout": 0.0},
    inert=frozenset(["vocab_size"]),
    copies={"lm_head.weight": "text.stem.tokens.weight"},
    processor="JanusImageProcessor",
)  # fmt: skip
