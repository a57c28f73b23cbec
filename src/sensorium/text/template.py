"""A chat template rendered: what the worker of ``text.chat`` runs in its child process.

A template is a program that came with a checkpoint. It runs in Jinja's immutable sandbox, with the functions that
``transformers`` gives to templates and no others, over plain JSON values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The template's text. Raises what Jinja raises: a broken template, an unsafe one, one that refuses the messages.

    >>> render("{% for message in messages %}[{{ message.role }}] {{ message['content'] }}{% endfor %}", {
    ...     "messages": [{"role": "user", "content": "Hello"}]
    ... })
    '[user] Hello'
    """
    text: str = _compiled(template).render(variables)
    return text


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_extension()]
    )
    del environment.globals["lipsum"]
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: Jinja's own filter writes ``<`` and ``'`` as HTML needs them."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    """How a template refuses messages."""
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    """The date and time of now, locally."""
    return datetime.now().strftime(form)


def _generation_extension() -> type[Any]:
    """``{% generation %}`` … ``{% endgeneration %}``, which marks what the model wrote: here it is only rendered."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return Generation
