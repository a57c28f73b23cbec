"""Checkpoint families: each one small file with a name map and a config map, both walked in both directions."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sensorium.errors import CheckpointError, nearest
from sensorium.families._table import Family

FAMILIES = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "xlm_roberta",
    "distilbert": "distilbert",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "bart": "bart",
    "mbart": "mbart",
    "marian": "marian",
    "t5": "t5",
    "mt5": "mt5",
    "vit": "vit",
    "clip": "clip",
    "siglip": "siglip",
    "llava": "llava",
    "janus": "janus",
    "janus_vqgan": "janus_vqgan",
    "blip": "blip",
}
"""``model_type`` in ``config.json`` → module in this folder."""


def get_family(name: Any, *, where: str) -> Family:
    """The family of a ``model_type``. Raises ``CheckpointError`` naming the families there are."""
    if not isinstance(name, str) or name not in FAMILIES:
        raise CheckpointError(
            f"{where}: model_type is {name!r}, which is not a known family ({', '.join(FAMILIES)})"
            + nearest(str(name), FAMILIES)
        )
    family: Family = import_module(f"sensorium.families.{FAMILIES[name]}").FAMILY
    return family
