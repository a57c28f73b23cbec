"""LLaVA (Liu et al., 2023; 2024): a CLIP's image tower, two linear maps, and a Llama that reads what comes out of them
among its tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import ImageEncoderConfig, MultimodalConfig
from sensorium.errors import CheckpointError
from sensorium.families import clip, llama
from sensorium.families._fields import PUBLISHED_ACTIVATIONS, read_activation, read_int, read_patches, write_patches
from sensorium.families._table import Family, Rule, rules_like

TEXT, IMAGES = "language_model.model.", "vision_tower."
MAPS = 2


def _of_tower(rule: Rule) -> Rule:
    return replace(rule, theirs=tuple(name.replace("vision_model.", IMAGES) for name in rule.theirs))


def _of_text(rule: Rule) -> Rule:
    names = (f"language_model.{name}" if name.startswith("lm_head") else name for name in rule.theirs)
    return replace(rule, ours=f"text.{rule.ours}", theirs=tuple(name.replace("{base}", TEXT) for name in names))


RULES = (
    *(_of_tower(rule) for rule in clip.TOWERS if rule.ours.startswith("image.")),
    *rules_like("projector.0", "multi_modal_projector.linear_1"),
    *rules_like("projector.1", "multi_modal_projector.linear_2"),
    *(_of_text(rule) for rule in llama.RULES),
)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> MultimodalConfig:
    """``config.json`` → our config."""
    text, vision = (clip.section(raw, name) for name in ("text_config", "vision_config"))
    for said, known in ((text.get("model_type", "llama"), "llama"), (vision.get("model_type"), "clip_vision_model")):
        if said not in (known, None):
            raise CheckpointError(f"config.json: a tower is {said!r}; only {known!r} is known here")
    stack = clip.read_tower(vision, "bidirectional", 1024, 16)
    patches = read_patches(
        vision, stack.hidden_size, image_size=336, patch_size=14, bias=False, norm_eps=stack.norm_eps
    )
    layer = raw.get("vision_feature_layer", -2)
    if isinstance(layer, bool) or not isinstance(layer, int) or not -stack.num_layers <= layer <= stack.num_layers:
        raise CheckpointError(f"config.json: vision_feature_layer is {layer!r}; one of the tower's layers is expected")
    strategy = raw.get("vision_feature_select_strategy", "default")
    if strategy not in ("default", "full"):
        raise CheckpointError(f"config.json: vision_feature_select_strategy is {strategy!r}; known are default, full")
    tied = bool(raw.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False))
    return MultimodalConfig(
        image=ImageEncoderConfig(patches, stack),
        text=llama.read_config({**text, "tie_word_embeddings": tied}, {"language_model"}),
        image_token_id=read_int(raw, "image_token_index", 32000),
        image_blocks=layer if layer > 0 else stack.num_layers + 1 + layer,
        class_vector=strategy == "full",
        activation=read_activation(raw, "projector_hidden_act", "gelu"),
        bias=bool(raw.get("multimodal_projector_bias", True)),
    )


def write_config(config: MultimodalConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    image, text, blocks = config.image, llama.write_config(config.text), config.image_blocks
    if blocks is None or config.maps != MAPS or config.drawing is not None:
        raise CheckpointError(
            f"a llava model reads vectors before the tower's final norm, through {MAPS} maps, and does not draw"
        )
    return {
        "image_token_index": config.image_token_id,
        "image_seq_length": image.stem.grid**2 + config.class_vector,
        "projector_hidden_act": PUBLISHED_ACTIVATIONS[config.activation],
        "vision_feature_layer": blocks - image.stack.num_layers - 1,
        "vision_feature_select_strategy": "full" if config.class_vector else "default",
        "multimodal_projector_bias": config.bias,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "text_config": {"model_type": "llama", **text},
        "vision_config": {
            "model_type": "clip_vision_model",
            **write_patches(image.stem),
            **clip.write_tower(image.stack),
        },
    }


FAMILY = Family(
    name="llava",
    base="",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=frozenset(
        [
            "image_token_index", "projector_hidden_act", "vision_feature_layer", "vision_feature_select_strategy",
            "multimodal_projector_bias", "tie_word_embeddings", "text_config", "vision_config",
        ]
    ),
    sections={
        "text_config": llama.FAMILY.keys | llama.FAMILY.inert,
        "vision_config": clip.FAMILY.sections["vision_config"] | {"projection_dim", "initializer_factor"},
    },
    architectures={"LlavaForConditionalGeneration": ("language_model",)},
    markers={},
    # How many places an image takes follows from its size, and where it stands from the text.
    inert=frozenset(["image_seq_length", "ignore_index", "vocab_size"]),
    moved=(("vision_tower.vision_model.", IMAGES),),
    ignored=(f"{IMAGES}embeddings.position_ids", f"{TEXT}layers.{{i}}.self_attn.rotary_emb.inv_freq"),
    copies={"language_model.lm_head.weight": "text.stem.tokens.weight"},
    processor="CLIPImageProcessor",
)  # fmt: skip
