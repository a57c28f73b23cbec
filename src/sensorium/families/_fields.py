"""Reading ``config.json``: typed fields with the key in the error, activations, labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.config import Activation, PatchStemConfig, SequenceHeadConfig, StackConfig, TokenHeadConfig
from sensorium.errors import CheckpointError

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "quick_gelu": "gelu_quick",
}
PUBLISHED_ACTIVATIONS: dict[Activation, str] = {
    "gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu", "tanh": "tanh", "gelu_quick": "quick_gelu",
}  # fmt: skip
PROBLEMS = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def read_int(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number ≥ 0. Raises ``CheckpointError`` naming the key."""
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CheckpointError(f"config.json: {key} is {value!r}; a whole number is expected")
    return value


def read_side(raw: Mapping[str, Any], key: str, default: int) -> int:
    """The side of a square, which may be given twice. Raises ``CheckpointError`` naming the key."""
    value = raw.get(key, default)
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if isinstance(value, list | tuple):
        raise CheckpointError(f"config.json: {key} is {value!r}; only squares are known")
    return read_int({key: value}, key)


def read_float(raw: Mapping[str, Any], key: str, default: float) -> float:
    """A finite number ≥ 0. Raises ``CheckpointError`` naming the key."""
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise CheckpointError(f"config.json: {key} is {value!r}; a number is expected")
    return float(value)


def read_activation(raw: Mapping[str, Any], key: str, default: str) -> Activation:
    """An activation's published name → ours. Raises ``CheckpointError`` naming those there are."""
    name = raw.get(key, default)
    if name not in ACTIVATIONS:
        raise CheckpointError(f"config.json: {key} is {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def read_labels(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Labels in the order of their ids; without ``id2label``: LABEL_0, LABEL_1, as the field does.

    Raises ``CheckpointError`` when the ids do not run from 0 without a gap.
    """
    id2label = raw.get("id2label")
    if id2label is None:
        count = raw.get("num_labels", raw.get("_num_labels", 2))
        return tuple(f"LABEL_{i}" for i in range(read_int({"num_labels": count}, "num_labels")))
    try:
        labels = {int(key): str(value) for key, value in id2label.items()}
    except (AttributeError, ValueError, TypeError) as error:
        raise CheckpointError("config.json: id2label is not a map of numbers to labels") from error
    if sorted(labels) != list(range(len(labels))):
        raise CheckpointError(f"config.json: the ids of id2label are not 0 to {len(labels) - 1} without a gap")
    return tuple(labels[i] for i in range(len(labels)))


def read_problem(raw: Mapping[str, Any]) -> Any:
    """``problem_type`` → ours; without it, one label means regression, as the field does."""
    name = raw.get("problem_type")
    if name is None:
        return "regression" if len(read_labels(raw)) == 1 else "single_label"
    ours = {theirs: ours for ours, theirs in PROBLEMS.items()}
    if name not in ours:
        raise CheckpointError(f"config.json: problem_type is {name!r}; known are {', '.join(ours)}")
    return ours[name]


def read_patches(
    raw: Mapping[str, Any], hidden_size: int, *, image_size: int, patch_size: int, **more: Any
) -> PatchStemConfig:
    """How images are cut, by the keys that all families have for it; what a file leaves out is as given.

    ``more`` are the fields of the stem that no key is for. Raises ``CheckpointError`` naming the key.
    """
    sides = read_side(raw, "image_size", image_size), read_side(raw, "patch_size", patch_size)
    return PatchStemConfig(hidden_size, *sides, read_int(raw, "num_channels", 3), **more)


def write_sizes(stack: StackConfig) -> dict[str, Any]:
    """The keys of a stack that most encoders name as BERT does."""
    return {
        "hidden_size": stack.hidden_size,
        "num_hidden_layers": stack.num_layers,
        "num_attention_heads": stack.num_heads,
        "intermediate_size": stack.mlp_size,
        "hidden_act": PUBLISHED_ACTIVATIONS[stack.activation],
        "layer_norm_eps": stack.norm_eps,
    }


def write_patches(stem: PatchStemConfig) -> dict[str, Any]:
    """Those keys."""
    return {"image_size": stem.image_size, "patch_size": stem.patch_size, "num_channels": stem.channels}


def write_labels(sequence: SequenceHeadConfig | None, token: TokenHeadConfig | None) -> dict[str, Any]:
    """The label keys of ``config.json``. Raises ``CheckpointError`` for two heads with different labels."""
    if sequence is not None and token is not None:
        raise CheckpointError("the published format has one label map: save the sequence and the token head apart")
    head = sequence or token
    if head is None:
        return {}
    keys: dict[str, Any] = {
        "id2label": {str(i): label for i, label in enumerate(head.labels)},
        "label2id": {label: i for i, label in enumerate(head.labels)},
    }
    if sequence is not None:
        keys["problem_type"] = PROBLEMS[sequence.problem]
    return keys
