"""Shows the doctests of docstrings as code: the docstrings are Markdown, where ``>>>`` would be a quotation."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"(?:^>>> .*\n(?:^(?!>>> )\S.*\n)*)+", re.MULTILINE)


class DoctestFences(griffe.Extension):
    """Puts a fence around every run of doctest lines."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring and ">>> " in obj.docstring.value:
            text = obj.docstring.value + "\n"
            obj.docstring.value = DOCTEST.sub(lambda found: f"\n```pycon\n{found.group()}```\n", text)
