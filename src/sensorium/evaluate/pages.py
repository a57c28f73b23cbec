"""HTML pages that need nothing else: one head for all of them, whose policy forbids scripts and network."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from sensorium.errors import missing_extra

TEMPLATES = Path(__file__).parent / "templates"


def page_templates(style: Path) -> Any:
    """Jinja's environment for the templates beside a style sheet, which extend ``page.html`` and say its ``title``.

    Everything that comes from data is escaped, and what is not given is an error. Raises ``UsageError`` when Jinja is
    not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise missing_extra("jinja2", "report") from error
    environment = Environment(
        loader=FileSystemLoader([style.parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(version=version("sensorium"), style=Markup(style.read_text(encoding="utf-8")))
    return environment
