"""What a command line changes of a recipe: ``section.key=value``."""

from __future__ import annotations

import tomllib
from typing import Any

from sensorium.errors import UsageError


def apply_override(tables: dict[str, Any], override: str) -> None:
    """Set one key of the tables; a value is TOML, or a bare word. Raises ``UsageError`` for what is of another form.

    >>> tables = {"train": {"epochs": 1}}
    >>> apply_override(tables, "train.epochs=3"), apply_override(tables, "model.open=runs/a"), tables
    (None, None, {'train': {'epochs': 3}, 'model': {'open': 'runs/a'}})
    """
    name, equals, value = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot:
        raise UsageError(f"{override!r} is not of the form section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word
    table = tables.setdefault(section, {})
    if not isinstance(table, dict):
        raise UsageError(f"{override!r}: {section!r} is not a section")
    table[key] = parsed
