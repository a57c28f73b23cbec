"""What a family is made of, and the two walks over its table: load and save.

A family is data: rules that pair our parameter names with the published ones, and two pure functions between
``config.json`` and our config. Loading and saving walk the same rules in opposite directions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor

from sensorium.config import ImageCodecConfig, ModelConfig, StackConfig, num_layers
from sensorium.errors import CheckpointError
from sensorium.families._keys import INERT, LABEL_KEYS, REQUIRES

Op = Literal["same", "transpose", "join", "row"] | Callable[[Any], tuple[int, ...]]
"""What stands between the two sides. ``join``: the published queries, keys and values (or keys and values) are ours
end to end; ``row``: a published matrix of one row is our vector; a function of our config: the same numbers in the
same order, in the shape that it gives."""


@dataclass(frozen=True)
class Rule:
    """One parameter (or one in each layer, ``{i}``) under both names.

    ``theirs`` holds one published name, or several in the order in which ``join`` lays them end to end; ``{base}`` is
    the prefix of the headless model (``bert.``), which a headless checkpoint leaves out.
    """

    ours: str
    theirs: tuple[str, ...]
    op: Op = "same"
    also: str | None = None
    """Another name of the same tensor: read where the first is absent, written beside it."""
    apart: str | None = None
    """Where our model has this parameter, ``also`` may differ: the published code does not use it then."""
    when: str | None = None
    """The rule holds for models that have this parameter."""
    unless: str | None = None
    """The rule holds for models that lack this parameter."""


@dataclass(frozen=True)
class Family:
    """A checkpoint family."""

    name: str
    """``model_type`` in ``config.json``."""
    base: str
    """Prefix of the headless model's weights where there is a head."""
    rules: tuple[Rule, ...]
    read_config: Callable[[Mapping[str, Any], Collection[str]], ModelConfig]
    """(``config.json``, parts present: head names and "pooler") → our config."""
    write_config: Callable[[Any], dict[str, Any]]
    """Our config → ``config.json``, without ``architectures``."""
    keys: frozenset[str]
    """Keys of ``config.json`` that ``read_config`` reads."""
    architectures: Mapping[str, tuple[str, ...]]
    """Published class → the heads it has. The first one that fits is written to ``config.json``."""
    markers: Mapping[str, str]
    """Part ("pooler" or a head) → a weight whose presence shows it."""
    requires: Mapping[str, Any] = field(default_factory=dict)
    """Keys that would change the arithmetic in a way not implemented here: they must hold this value."""
    inert: frozenset[str] = frozenset()
    """Keys of this family that do not change what the model computes."""
    sections: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Objects within ``config.json`` that describe a tower each, and their keys; the rest holds for them as well."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(ending, ending today) of weights that older files spell otherwise."""
    moved: tuple[tuple[str, str], ...] = ()
    """(beginning, beginning today) of such weights."""
    ignored: tuple[str, ...] = ()
    """Buffers that are known and not wanted. ``{i}`` stands for a layer."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Weights that repeat a tied one of ours: they must equal it. ``{base}`` may stand in their names."""
    processor: str = ""
    """The published class that makes images ready, of a family that looks at them."""
    constants: Mapping[str, Callable[[Any], Tensor]] = field(default_factory=dict)
    """Weights that follow from the config: where a file has them, they must be what it says. Written like others."""


def rules_like(ours: str, theirs: str | tuple[str, ...], op: Op = "same", *, bias: bool = True) -> tuple[Rule, ...]:
    """The rules of a module's ``weight`` and ``bias``.

    >>> weight, bias = rules_like("pooler.dense", "{base}pooler.dense")
    >>> bias.ours, bias.theirs
    ('pooler.dense.bias', ('{base}pooler.dense.bias',))
    """
    names = (theirs,) if isinstance(theirs, str) else theirs
    weight = Rule(f"{ours}.weight", tuple(f"{name}.weight" for name in names), op)
    # Only matrices are stored transposed; a bias has one axis.
    bias_rule = Rule(f"{ours}.bias", tuple(f"{name}.bias" for name in names), "same" if op == "transpose" else op)
    return (weight, bias_rule) if bias else (weight,)


# --- config ----------------------------------------------------------------------------------------------------------


def check_config(family: Family, raw: Mapping[str, Any], *, where: str) -> None:
    """Account for every key of a ``config.json``.

    Raises ``CheckpointError`` for a key that would change the arithmetic in a way not implemented, or that is unknown.
    """
    for name, keys in family.sections.items():
        if isinstance(raw.get(name), Mapping):
            check_config(replace(family, keys=keys, sections={}), raw[name], where=f"{where}: {name}")
    required = {key: value for key, value in REQUIRES.items() if key not in family.keys} | dict(family.requires)
    for key, value in required.items():
        if key in raw and raw[key] != value and not (value in ({}, None, False) and not raw[key]):
            raise CheckpointError(
                f"{where}: {key} is {raw[key]!r}; only {value!r} is supported for family {family.name}"
            )
    known = family.keys | family.inert | INERT | LABEL_KEYS | set(required)
    unknown = sorted(set(raw) - known)
    if unknown:
        raise CheckpointError(
            f"{where}: the key {unknown[0]!r} is not known for family {family.name}, and it might change what the "
            "model computes; remove it from the file if it does not"
        )


def find_parts(family: Family, raw: Mapping[str, Any], names: Collection[str]) -> frozenset[str]:
    """Which parts ("pooler" and heads) a checkpoint has: those whose weights are there, or whose class says so."""
    declared = {head for name in raw.get("architectures") or () for head in family.architectures.get(name, ())}
    base = base_prefix(family, names)
    by_weight = {part for part, marker in family.markers.items() if marker.replace("{base}", base) in names}
    if {"sequence", "token"} <= by_weight:
        # One published name, `classifier.weight`, serves two heads: the class tells them apart.
        by_weight.discard("sequence" if "token" in declared else "token")
    weightless = {head for head in declared if head not in family.markers}  # a tied head has no weight of its own
    return frozenset(by_weight | weightless)


def architecture(family: Family, heads: Collection[str]) -> str:
    """The published class for a set of heads: the one that has most of them and no others."""
    fitting = [name for name, theirs in family.architectures.items() if set(theirs) <= set(heads)]
    return max(fitting, key=lambda name: len(family.architectures[name]))


# --- weights ---------------------------------------------------------------------------------------------------------


def base_prefix(family: Family, names: Iterable[str]) -> str:
    """``family.base`` where the weights carry it, else nothing."""
    return family.base if any(name.startswith(family.base) for name in names) else ""


def load(
    family: Family, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], config: ModelConfig, *, where: str
) -> dict[str, Tensor]:
    """Published tensors → ours, every name on both sides accounted for.

    ``shapes`` says what our model needs. Raises one ``CheckpointError`` that lists what is missing, what is left over
    and what has another shape.
    """
    tensors = {_today(family, name): tensor for name, tensor in tensors.items()}
    base = base_prefix(family, tensors)
    ours: dict[str, Tensor] = {}
    layers = num_layers(config)
    used: set[str] = set()
    missing: list[str] = []
    for rule, theirs in expand(family, base, layers, wanted=shapes):
        if rule.also is not None:
            used.add(rule.also)
            theirs = _either(rule, theirs[0], tensors, shapes, where=where)
        absent = [name for name in theirs if name not in tensors]
        missing += absent
        used.update(theirs)
        if not absent:
            found = [tensors[name] for name in theirs]
            ours[rule.ours] = _load_op(rule.op, found, config, shapes[rule.ours], where=f"{where}: {theirs[0]!r}")
    known = set(_expand_names(family.ignored, base, max(layers.values(), default=0))) | _check_constants(
        family, tensors, config, base, where=where
    )
    originals = {name.replace("{base}", base): original for name, original in family.copies.items()}
    copies = {name: originals[name] for name in tensors if name not in used and name in originals}
    extra = [name for name in tensors if name not in used and name not in known and copies.get(name) not in ours]
    if missing or extra:
        raise CheckpointError(f"{where}: the weights do not fit the config: " + _differences(missing, extra))
    for name, original in copies.items():
        if not torch.equal(tensors[name], ours[original]):
            raise CheckpointError(f"{where}: {name!r} repeats a tied weight, but it differs")
    for name, tensor in ours.items():
        if tensor.shape != shapes[name]:
            raise CheckpointError(
                f"{where}: {name} has shape {list(tensor.shape)}, the config asks for {list(shapes[name])}"
            )
    return ours


def save(family: Family, parameters: Mapping[str, Tensor], config: ModelConfig, *, headless: bool) -> dict[str, Tensor]:
    """Our parameters → published tensors: ``load`` walked backwards."""
    base, layers = "" if headless else family.base, num_layers(config)
    theirs: dict[str, Tensor] = {}
    for rule, names in expand(family, base, layers, wanted=parameters):
        stack = _stack_of(config, rule.ours)
        theirs.update(zip(names, _save_op(rule.op, parameters[rule.ours], len(names), config, stack), strict=True))
        if rule.also is not None:
            theirs[rule.also] = parameters[rule.ours].clone()  # safetensors refuses two names for one memory
    dtype = next(iter(parameters.values())).dtype
    for pattern, make in family.constants.items():
        theirs[pattern.replace("{base}", base)] = make(config).to(dtype)
    unmapped = set(parameters) - {rule.ours for rule, _ in expand(family, base, layers, wanted=parameters)}
    if unmapped:
        raise CheckpointError(f"family {family.name} has no name for {sorted(unmapped)[0]}; save it as another family")
    return theirs


def _stack_of(config: ModelConfig, ours: str) -> StackConfig | None:
    """The stack that a parameter is part of, where the model has any."""
    if isinstance(config, ImageCodecConfig):
        return None
    return config.image.stack if ours.startswith("image.") else config.stack  # type: ignore[union-attr]


def expand(
    family: Family, base: str, layers: Mapping[str, int], wanted: Collection[str]
) -> Iterable[tuple[Rule, tuple[str, ...]]]:
    """Every rule at every layer whose parameter is wanted: (rule with our name filled in, their names)."""
    for rule in family.rules:
        in_stack = [number for prefix, number in layers.items() if rule.ours.startswith(prefix) and "{i}" in rule.ours]
        for i in range(in_stack[0] if in_stack else 1):
            ours, when, unless = ((name or "").replace("{i}", str(i)) for name in (rule.ours, rule.when, rule.unless))
            if ours in wanted and (not when or when in wanted) and unless not in wanted:
                names = tuple(name.replace("{i}", str(i)).replace("{base}", base) for name in rule.theirs)
                also = None if rule.also is None else rule.also.replace("{base}", base)
                yield replace(rule, ours=ours, also=also), names


def _either(
    rule: Rule, first: str, tensors: Mapping[str, Tensor], shapes: Collection[str], *, where: str
) -> tuple[str]:
    """The name to read of a tensor that has two."""
    also = rule.also or first
    if first not in tensors or also not in tensors:
        return (also,) if also in tensors else (first,)
    if rule.apart not in shapes and not torch.equal(tensors[first], tensors[also]):
        raise CheckpointError(f"{where}: {first!r} and {also!r} are tied, but they differ")
    return (first,)


def _expand_names(patterns: Iterable[str], base: str, num_layers: int) -> Iterable[str]:
    for pattern in patterns:
        for i in range(num_layers) if "{i}" in pattern else (0,):
            yield pattern.replace("{i}", str(i)).replace("{base}", base)


def _load_op(op: Op, tensors: list[Tensor], config: ModelConfig, shape: torch.Size, *, where: str) -> Tensor:
    if callable(op):
        published = op(config)
        if tuple(tensors[0].shape) != published:
            raise CheckpointError(f"{where} has shape {list(tensors[0].shape)}, the config asks for {list(published)}")
        return tensors[0].reshape(shape)
    if op == "join":
        try:
            return torch.cat(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"{where} and its neighbours do not fit together: {error}") from error
    if op == "row":
        if tensors[0].dim() != 2 or len(tensors[0]) != 1:
            raise CheckpointError(f"{where} has shape {list(tensors[0].shape)}; a matrix of one row is expected")
        return tensors[0][0]
    if op == "transpose":
        if tensors[0].dim() != 2:
            raise CheckpointError(f"{where} has shape {list(tensors[0].shape)}; a matrix is expected")
        return tensors[0].t().contiguous()
    return tensors[0]


def _save_op(op: Op, tensor: Tensor, count: int, config: ModelConfig, stack: StackConfig | None) -> list[Tensor]:
    if callable(op):
        return [tensor.reshape(op(config)).clone()]
    if op == "join":
        return [part.clone() for part in tensor.split(part_sizes(len(tensor), count, stack))]
    if op == "row":
        return [tensor[None].clone()]
    return [tensor.t().contiguous()] if op == "transpose" else [tensor]


def part_sizes(rows: int, count: int, stack: StackConfig | None) -> list[int]:
    """Rows of each of the ``count`` published tensors that are one of ours: queries, keys and values, or equal ones."""
    sizes = [] if stack is None else list(stack.qkv_sizes)
    return sizes if count == 3 and sum(sizes) == rows else [rows // count] * count


def _check_constants(
    family: Family, tensors: Mapping[str, Tensor], config: ModelConfig, base: str, *, where: str
) -> set[str]:
    """The names of weights that follow from the config. Raises ``CheckpointError`` where a file says otherwise."""
    known = set()
    for pattern, make in family.constants.items():
        name = pattern.replace("{base}", base)
        known.add(name)
        if name in tensors:
            expected = make(config)
            same = tensors[name].shape == expected.shape and torch.allclose(tensors[name].float(), expected, atol=1e-4)
            if not same:
                raise CheckpointError(f"{where}: {name!r} follows from the config, but the file has other numbers")
    return known


def _today(family: Family, name: str) -> str:
    for old, new in family.renamed:
        if name.endswith(old):
            return name[: -len(old)] + new
    for old, new in family.moved:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def _differences(missing: list[str], extra: list[str], most: int = 10) -> str:
    """Both lists, shortened, each missing name with the left-over name most like it."""
    parts = []
    if missing:
        named = []
        for name in missing[:most]:
            match = get_close_matches(name, extra, n=1)
            named.append(f"{name} (is it {match[0]}?)" if match else name)
        parts.append(f"{len(missing)} missing: {', '.join(named)}{', …' if len(missing) > most else ''}")
    if extra:
        parts.append(f"{len(extra)} left over: {', '.join(extra[:most])}{', …' if len(extra) > most else ''}")
    return "; ".join(parts)
