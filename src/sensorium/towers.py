"""Two towers that are models of their own, in the form in which sentence-transformers publishes them: as a router.

``modules.json`` names a router, and ``router_config.json`` the modules of its routes ``text`` and ``image``, a folder
each: a checkpoint, how its vectors become one, a linear map into the space where both meet, a scaling to length 1. What
that form has no place for, the scale of the products, stands beside it in ``matching.json``.

Shapes: P size of the space, D hidden size of a tower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.config import DualEncoderConfig, TextVector
from sensorium.errors import CheckpointError
from sensorium.models.build import Model
from sensorium.models.decoder import DecoderLM
from sensorium.models.dual_encoder import DualEncoder
from sensorium.models.encoder import EncoderLM
from sensorium.models.image_encoder import ImageEncoder
from sensorium.sentence import Pooling, read_pooling, write_pooling
from sensorium.storage import inside, read_json, read_object, read_tensors, write_json, write_weights

MODULES, ROUTER, MATCHING = "modules.json", "router_config.json", "matching.json"
ROUTES = ("text", "image")
KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
TEXT_VECTORS: dict[Pooling, TextVector] = {"mean": "mean", "cls": "first", "lasttoken": "last"}
SCALE_ELSEWHERE = math.log(20)
"""Of a folder that does not say its scale: what sentence-transformers trains with."""
IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True)
class Route:
    """What becomes of the inputs of one kind."""

    folder: Path
    """Of the tower's checkpoint."""
    pooling: Pooling
    projection: Tensor
    """[P, D]."""
    bias: Tensor | None
    """[P]."""


@dataclass(frozen=True)
class Towers:
    """What a router's folder says, but for the towers themselves."""

    text: Route
    image: Route
    logit_scale: float
    logit_bias: float | None


def is_router(folder: Path) -> bool:
    """Whether a folder holds two towers."""
    return (folder / ROUTER).is_file() and not (folder / "config.json").is_file()


def pair_of(family: str) -> tuple[str, str] | None:
    """The families of the image tower and of the text tower; ``None`` for what is one family.

    >>> pair_of("vit+bert"), pair_of("clip")
    (('vit', 'bert'), None)
    """
    image, plus, text = family.partition("+")
    return (image, text) if plus else None


def published_parts(model: Model, family: str) -> dict[str, tuple[Model, str]]:
    """The models that a model is published as, with their families, by the folder in which each stands."""
    pair = pair_of(family)
    if pair is None or not isinstance(model, DualEncoder):
        return {"": (model, family)}
    return {"image_0_Transformer": (model.image, pair[0]), "text_0_Transformer": (model.text, pair[1])}


def headless(config: Any) -> Any:
    """A tower's config without heads and poolers: how its vectors become one is the router's to say."""
    return type(config)(config.stem, config.stack)


def read_router(folder: Path) -> Towers:
    """Raises ``CheckpointError`` for a router of anything but one tower for texts and one for images."""
    modules = read_json(folder / MODULES)
    first = modules[0] if isinstance(modules, list) and modules and isinstance(modules[0], dict) else {}
    kinds = [_kind(module.get("type")) for module in modules if isinstance(module, dict)] if first else []
    if kinds not in (["Router"], ["Router", "Normalize"]) or first.get("path") != "":
        raise CheckpointError(f"{folder / MODULES}: a router in this folder, perhaps with Normalize, is expected")
    path = folder / ROUTER
    described = read_object(path)
    types, structure = described.get("types"), described.get("structure")
    if not isinstance(types, dict) or not isinstance(structure, dict) or set(structure) != set(ROUTES):
        raise CheckpointError(f"{path}: a route 'text' and a route 'image' are expected, and no others")
    text, image = (_read_route(folder, structure[name], types, path) for name in ROUTES)
    if image.pooling != "cls" or image.bias is not None:
        raise CheckpointError(f"{path}: the first vector of an image, mapped without a bias, is what is known here")
    if text.pooling not in TEXT_VECTORS:
        raise CheckpointError(f"{path}: texts are pooled by {text.pooling!r}; known are {', '.join(TEXT_VECTORS)}")
    if len(text.projection) != len(image.projection):
        raise CheckpointError(
            f"{path}: texts become vectors of {len(text.projection)}, images of {len(image.projection)} numbers"
        )
    matching = read_object(folder / MATCHING) if (folder / MATCHING).is_file() else {}
    scale, bias = matching.get("logit_scale", SCALE_ELSEWHERE), matching.get("logit_bias")
    for name, number in (("logit_scale", scale), ("logit_bias", bias)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise CheckpointError(f"{folder / MATCHING}: {name} is {number!r}; a number is expected")
    return Towers(text, image, scale, bias)


def join(towers: Towers, image: Model, text: Model, *, where: Path) -> DualEncoder:
    """Two opened towers → the model that compares their vectors. Raises ``CheckpointError`` for other models."""
    if not isinstance(image, ImageEncoder) or not image.config.stem.class_token:
        raise CheckpointError(f"{where}: what looks at images has no first vector that stands for one; vit has")
    if not isinstance(text, EncoderLM | DecoderLM):
        raise CheckpointError(f"{where}: an encoder or a decoder is expected to read texts")
    config = DualEncoderConfig(
        headless(image.config), headless(text.config), len(towers.text.projection),
        text_vector=TEXT_VECTORS[towers.text.pooling], text_bias=towers.text.bias is not None,
        logit_bias=towers.logit_bias is not None,
    )  # fmt: skip
    dtype = next(image.parameters()).dtype
    given = {
        "image_projection.weight": towers.image.projection,
        "text_projection.weight": towers.text.projection,
        "text_projection.bias": towers.text.bias,
        "logit_scale": torch.tensor(towers.logit_scale),
        "logit_bias": None if towers.logit_bias is None else torch.tensor(towers.logit_bias),
    }
    weights = {name: tensor.to(dtype) for name, tensor in given.items() if tensor is not None}
    for prefix, tower in (("image.", image), ("text.", text)):
        weights |= {prefix + name: parameter for name, parameter in tower.named_parameters()}
    with torch.device("meta"):
        model = DualEncoder(config)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise CheckpointError(f"{where}: {name} is {list(weights[name].shape)}; {list(shape)} is expected")
    model.load_state_dict({name: weights[name] for name in shapes}, assign=True)
    return model.eval()


def write_router(folder: Path, model: DualEncoder) -> None:
    """All but the towers' checkpoints, which stand where ``published_parts`` says."""
    config = model.config
    assert model.image_projection is not None
    pooling = next(pooling for pooling, vector in TEXT_VECTORS.items() if vector == config.text_vector)
    poolings: dict[str, Pooling] = {"text": pooling, "image": "cls"}
    projections = {"text": model.text_projection, "image": model.image_projection}
    sizes = {"text": config.text.stack.hidden_size, "image": config.image.stack.hidden_size}
    structure = {route: [f"{route}_{i}_{kind}" for i, kind in enumerate(KINDS)] for route in ROUTES}
    for route, (tower, pool, dense, normalize) in structure.items():
        for name in (tower, pool, dense, normalize):
            (folder / name).mkdir(exist_ok=True)
        answer = {"method": "forward", "method_output_name": "last_hidden_state"}
        write_json(
            folder / tower / "sentence_bert_config.json",
            {
                "transformer_task": "feature-extraction",
                "modality_config": {route: answer},
                "module_output_name": "token_embeddings",
            },
        )
        write_pooling(folder / pool, poolings[route], hidden_size=sizes[route])
        weights = {f"linear.{name}": parameter for name, parameter in projections[route].named_parameters()}
        write_weights(folder / dense, weights)
        write_json(
            folder / dense / "config.json",
            {
                "in_features": sizes[route],
                "out_features": config.projection_size,
                "bias": "linear.bias" in weights,
                "activation_function": IDENTITY,
                "module_input_name": "sentence_embedding",
                "module_output_name": "sentence_embedding",
            },
        )
        write_json(folder / normalize / "config.json", {})
    types = {name: _module(name.rpartition("_")[2]) for names in structure.values() for name in names}
    parameters = {"default_route": "text", "allow_empty_key": True, "route_mappings": {}}
    write_json(folder / ROUTER, {"types": types, "structure": structure, "parameters": parameters})
    write_json(folder / MODULES, [{"idx": 0, "name": "0", "path": "", "type": _module("Router")}])
    bias = None if model.logit_bias is None else model.logit_bias.item()
    write_json(folder / MATCHING, {"logit_scale": model.logit_scale.item(), "logit_bias": bias})


# --- details ---------------------------------------------------------------------------------------------------------


def _kind(module: Any) -> str:
    return str(module).rpartition(".")[2]


def _module(kind: str) -> str:
    """The name by which every version of sentence-transformers finds a module."""
    return f"sentence_transformers.models.{kind}"


def _read_route(folder: Path, names: Any, types: dict[str, Any], path: Path) -> Route:
    names = names if isinstance(names, list) else []
    kinds = [_kind(types.get(name)) for name in names]
    if kinds not in (list(KINDS), list(KINDS[:3])):
        raise CheckpointError(f"{path}: a route is {kinds or 'empty'}; {', '.join(KINDS)} are expected, in that order")
    tower, pool, dense = (inside(folder, str(name), source=path) for name in names[:3])
    described = read_object(dense / "config.json")
    activation = described.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation != IDENTITY or described.get("use_residual"):
        raise CheckpointError(f"{dense / 'config.json'}: {activation} after the map; a plain linear map is expected")
    tensors = read_tensors(dense)
    projection, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
    if projection is None or projection.dim() != 2 or (bias is not None and bias.shape != projection.shape[:1]):
        raise CheckpointError(f"{dense}: linear.weight [P, D], and perhaps linear.bias [P], are expected")
    return Route(tower, read_pooling(pool / "config.json"), projection, bias)
