"""Chats: messages → one text in the form a model was taught → token ids.

A chat template is a program in a checkpoint, so it runs in a worker (``sensorium.worker``). What it writes itself may
be special tokens; what people wrote never is. Before a template sees messages, the text of every special token in them
gives way to a stand-in that nobody can guess, and it comes back after the special tokens were found.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sensorium.errors import CheckpointError, UsageError, missing_extra
from sensorium.storage import read_object, read_text
from sensorium.text import Tokenizer
from sensorium.text.template import render
from sensorium.worker import Limits, Worker

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
"""A role is the template's word, not a person's: some templates make a special token of it."""
MAX_TEMPLATE_BYTES = 2**20
_PRIVATE, _MOST = 0xE000, 0x1000
"""Characters without a meaning, of which stand-ins are made."""
JINJA_FILE = "chat_template.jinja"

_render = Worker(render, what="the chat template", limits=Limits(seconds=5.0, memory=128 * 2**20))


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tokenizer: Tokenizer | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The text of a chat, as ``apply_chat_template(tokenize=False)`` of ``transformers`` gives it.

    Templates know the tokenizer's special tokens by name (``bos_token``); ``variables`` are their further settings.
    ``add_generation_prompt`` ends the text where the assistant begins. Raises ``UsageError`` for messages that are
    none, a template that fails or refuses them, and one that takes too long or too much memory.
    """
    if find_spec("jinja2") is None:
        raise missing_extra("jinja2", "chat")
    named = {} if tokenizer is None else tokenizer.special_tokens
    said = {
        **named,
        **(variables or {}),
        "messages": check_messages(messages),
        "tools": None if tools is None else [dict(tool) for tool in tools],
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
    }
    try:
        text = _render(template, said)
    except (TypeError, RecursionError) as problem:  # before it leaves for the worker
        raise UsageError(f"messages and tools hold JSON values: texts, numbers, lists, objects; {problem}") from problem
    if not isinstance(text, str):
        raise UsageError("the chat template gave something that is no text")
    return text


def encode_chat(
    tokenizer: Tokenizer,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    continue_final: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """Token ids of a chat: those of ``transformers``, but for special tokens written out in messages: they are text.

    ``continue_final`` ends the text within the last message, so that it can be gone on with. Raises what
    ``render_chat`` raises.
    """
    special = _SpecialTexts(tokenizer)
    stand_ins = _StandIns(special)
    guarded = [_guarded(message, stand_ins) for message in check_messages(messages)]
    end = "".join(chr(_PRIVATE + secrets.randbelow(_MOST)) for _ in range(8))
    if continue_final:
        guarded[-1]["content"] = with_more(guarded[-1].get("content"), end)
    text = render_chat(
        template,
        guarded,
        tokenizer=tokenizer,
        tools=None if tools is None else [_replaced(tool, stand_ins) for tool in tools],
        add_generation_prompt=add_generation_prompt and not continue_final,
        variables=None if variables is None else _replaced(variables, stand_ins),
    )
    if continue_final:
        text, found, _ = text.rpartition(end)
        if not found:
            raise UsageError("the last message can't be gone on with: the chat template leaves it out")
    if not stand_ins.texts:
        return tokenizer.encode_plain(text)
    ids: list[int] = []
    for piece, token_id in special.split(text):
        ids += _as_text(tokenizer, stand_ins.restored(piece)) if token_id is None else [token_id]
    return ids


def check_messages(messages: Any) -> list[dict[str, Any]]:
    """Messages as dictionaries, without keys that hold ``None``. Raises ``UsageError`` naming the first bad one."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise UsageError('a chat is a list of messages such as {"role": "user", "content": "Hello"}')
    checked = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise UsageError(
                f"message {number} is {type(message).__name__}; an object with role and content is expected"
            )
        plain = {key: value for key, value in message.items() if value is not None}
        if plain.get("role") not in ROLES:
            raise UsageError(f"message {number} has the role {plain.get('role')!r}; known are {', '.join(ROLES)}")
        if not isinstance(plain.get("content", ""), str | list) or not plain.keys() - {"role"}:
            raise UsageError(f"message {number} has no content: a text, or a list of parts, is expected")
        checked.append(plain)
    return checked


def read_chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """A checkpoint's chat template: ``chat_template.jinja``, ``chat_template.json``, else in ``tokenizer_config.json``.

    Of several named ones it is ``default``. Raises ``CheckpointError`` for one that is no text, or absurdly long.
    """
    if (folder / JINJA_FILE).is_file():
        return read_text(folder / JINJA_FILE, max_bytes=MAX_TEMPLATE_BYTES)
    path = folder / "chat_template.json"
    said = read_object(path) if path.is_file() else tokenizer_config
    return chosen_template(
        said.get("chat_template"), where=path if path.is_file() else folder / "tokenizer_config.json"
    )


def chosen_template(said: Any, *, where: Path) -> str | None:
    """The template among what a file says: a text, or a list of named ones."""
    if isinstance(said, list):
        named = {one.get("name"): one.get("template") for one in said if isinstance(one, Mapping)}
        said = named.get("default", next(iter(named.values()), None) if len(named) == 1 else None)
        if said is None:
            raise CheckpointError(f"{where}: of the chat templates {', '.join(map(str, named))} none is named default")
    if said is None:
        return None
    if not isinstance(said, str) or len(said) > MAX_TEMPLATE_BYTES:
        raise CheckpointError(f"{where}: the chat template is no text of at most {MAX_TEMPLATE_BYTES:,} characters")
    return said


def with_more(content: Any, text: str) -> str | list[Any]:
    """The content of a message with a text behind its own. Raises ``UsageError`` where it ends with none.

    >>> with_more([{"type": "text", "text": "A dog"}], " runs.")
    [{'type': 'text', 'text': 'A dog runs.'}]
    """
    if isinstance(content, str):
        return content + text
    last = content[-1] if isinstance(content, list | tuple) and content else None
    if not isinstance(last, Mapping) or last.get("type") != "text" or not isinstance(last.get("text"), str):
        raise UsageError("only a last message whose content ends with a text can be gone on with")
    return [*content[:-1], {**last, "text": last["text"] + text}]


# --- people's words and the template's -------------------------------------------------------------------------------


class _SpecialTexts:
    """The texts that are special tokens, found as the tokenizer finds them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.backend.get_added_tokens_decoder()
        self.ids = {token.content: token_id for token_id, token in added.items() if token.special and token.content}
        self.ids = dict(sorted(self.ids.items(), key=lambda item: -len(item[0])))  # the longest first
        self.bare = re.compile("|".join(map(re.escape, self.ids)) or "(?!)")
        taking_spaces = []  # some take the spaces beside them along
        for text, token_id in self.ids.items():
            token = added[token_id]
            before, after = (r"\s*" if takes else "" for takes in (token.lstrip, token.rstrip))
            taking_spaces.append(f"{before}(?:{re.escape(text)}){after}")
        self.pattern = re.compile("|".join(taking_spaces) or "(?!)")
        self.longest = max(map(len, self.ids), default=0)
        self.beginnings = {text[:cut] for text in self.ids for cut in range(1, len(text))}
        self.ends = {text[cut:] for text in self.ids for cut in range(1, len(text))}

    def split(self, text: str) -> list[tuple[str, int | None]]:
        """(piece of text, ``None``) and (special text, its id), in order."""
        pieces: list[tuple[str, int | None]] = []
        position = 0
        for match in self.pattern.finditer(text):
            token = match[0] if match[0] in self.ids else next(text for text in self.ids if text in match[0])
            pieces += [(text[position : match.start()], None), (token, self.ids[token])]
            position = match.end()
        pieces.append((text[position:], None))
        return [piece for piece in pieces if piece[0]]


@dataclass
class _StandIns:
    """What stands in for the texts of special tokens: an unguessable word of private characters, and a number."""

    special: _SpecialTexts
    texts: list[str] = field(default_factory=list)
    word: str = field(default_factory=lambda: "".join(chr(_PRIVATE + secrets.randbelow(_MOST)) for _ in range(8)))

    def replaced(self, text: str) -> str:
        """Special texts give way, and so do the ends of a text that the template's words could make whole."""
        text = self.special.bare.sub(lambda match: self._for(match[0]), text)
        body = text.strip()
        if not body:
            return text
        before, after = text[: text.index(body)], text[text.index(body) + len(body) :]
        for size in range(min(self.special.longest - 1, len(body)), 0, -1):
            if body[-size:] in self.special.beginnings:
                body = body[:-size] + self._for(body[-size:])
                break
        for size in range(min(self.special.longest - 1, len(body)), 0, -1):
            if body[:size] in self.special.ends:
                body = self._for(body[:size]) + body[size:]
                break
        return before + body + after

    def restored(self, text: str) -> str:
        """The words as people wrote them."""
        return re.sub(f"{self.word}([\ue000-\uefff])", lambda match: self.texts[ord(match[1]) - _PRIVATE], text)

    def _for(self, text: str) -> str:
        if text not in self.texts:
            if len(self.texts) == _MOST:
                raise UsageError(f"the messages hold more than {_MOST:,} different pieces of special tokens")
            self.texts.append(text)
        return f"{self.word}{chr(_PRIVATE + self.texts.index(text))}"


def _guarded(message: Mapping[str, Any], stand_ins: _StandIns) -> dict[str, Any]:
    """A message, everything but its role replaced."""
    return {
        **_replaced({key: value for key, value in message.items() if key != "role"}, stand_ins),
        "role": message["role"],
    }


def _replaced(value: Any, stand_ins: _StandIns) -> Any:
    """A JSON value whose texts, keys among them, hold no special token."""
    if isinstance(value, str):
        return stand_ins.replaced(value)
    if isinstance(value, Mapping):
        return {_replaced(key, stand_ins): _replaced(one, stand_ins) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(one, stand_ins) for one in value]
    return value


def _as_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of people's and the template's plain words. Raises ``UsageError`` where special tokens come of them."""
    with tokenizer.specials_as_text():
        ids = tokenizer.encode_plain(text)
    if wrong := tokenizer.special_ids.difference([tokenizer.unk_id]).intersection(ids):
        raise UsageError(f"a message holds {tokenizer.token(min(wrong))!r}, which this tokenizer can't read as text")
    return ids
