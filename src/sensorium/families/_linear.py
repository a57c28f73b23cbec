"""The linear maps of the blocks under both names: what an adapter is made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Size

from sensorium.config import StackedConfig, num_layers
from sensorium.families._table import Family, expand, part_sizes


@dataclass(frozen=True)
class LinearMap:
    """A published linear map, and the rows of ours that it is: published queries, keys and values are one of ours."""

    ours: str
    rows: slice
    theirs: str
    inputs: int
    is_transposed: bool
    """Published as [K, N]."""

    @property
    def target(self) -> str:
        """What people call it: ``q_proj``."""
        return self.theirs.rpartition(".")[2]

    @property
    def outputs(self) -> int:
        """Rows."""
        return int(self.rows.stop - self.rows.start)


def linear_maps(family: Family, shapes: Mapping[str, Size], config: StackedConfig) -> list[LinearMap]:
    """Those of all blocks, by the shapes [N, K] of their weights; ``shapes`` has all parameters of the model."""
    found = []
    for rule, theirs in expand(family, family.base, num_layers(config), wanted=shapes):
        shape = shapes[rule.ours]
        if ".layers." not in rule.ours or not rule.ours.endswith(".weight") or len(shape) != 2:
            continue
        start = 0
        for name, size in zip(theirs, part_sizes(shape[0], len(theirs), config.stack), strict=True):
            found.append(
                LinearMap(
                    rule.ours.removesuffix(".weight"), slice(start, start + size), name.removesuffix(".weight"),
                    shape[1], rule.op == "transpose",
                )
            )  # fmt: skip
            start += size
    return found
