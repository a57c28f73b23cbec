"""What every dataclass that describes a model checks of itself."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args, get_type_hints

from sensorium.errors import UsageError


class Checked:
    """Checks every ``Literal`` field and every count at construction."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):  # type: ignore[arg-type]
            value, hint = getattr(self, field.name), hints[field.name]
            choices = get_args(hint)
            if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
                raise UsageError(
                    f"{type(self).__name__}.{field.name} is {value!r}; it must be one of {', '.join(choices)}"
                )
            if hint is int and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise UsageError(
                    f"{type(self).__name__}.{field.name} is {value!r}; it must be a whole number, 0 or more"
                )
