"""Markdown (CommonMark, tables, strikethrough), read with markdown-it; only places are taken from it.

Its blocks know their lines, and its inline rules are watched while they read: whatever a rule takes that is not text is
markup. Code, addresses, images, front matter and definitions of links stay.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sensorium.errors import missing_extra
from sensorium.text.documents._html import INLINE, VOID, read_html
from sensorium.text.documents._plain import line_break, text_pieces
from sensorium.text.documents._sentence import Part, Piece, Sentence, sentences_of

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

_LINE_END = re.compile(r"\r\n?|\n")
_FRONT_MATTER = re.compile(
    r"\A(---|\+\+\+)[ \t]*(?:\r\n?|\n)(?:.*?(?:\r\n?|\n))??(?:\1|\.\.\.)[ \t]*(?:(?:\r\n?|\n)|\Z)", re.DOTALL
)
_FOOTNOTE = re.compile(r"\[\^[^\]\s]{1,100}\]:?")
_TAG = re.compile(r"<(?P<close>/?)(?P<name>[a-zA-Z][\w-]*)")
_HEADING = re.compile(r"[ \t>*+\-\d.)]*#{1,6}[ \t]+")
_BLOCK_START = re.compile(r"(#{1,6}(?=\s|$)|>|[-+*](?=\s|$)|\d{1,9}(?=[.)](?:\s|$)))")
_ENTITY = re.compile(r"&(?=#?\w+;)")


class _Took(NamedTuple):
    """What an inline rule took: places in the block's content, and the tokens it made."""

    rule: str
    start: int
    end: int
    label_end: int
    tokens: tuple[Any, ...]


def read_markdown(text: str) -> list[Part]:
    """The sentences of a Markdown text and what stands between them."""
    front = _FRONT_MATTER.match(text)
    offset = front.end() if front else 0
    lines = _lines(text, offset)
    parser, took = _parser()
    env: dict[str, Any] = {}
    tokens = parser.parse("\n".join(text[start:end] for start, end in lines), env)
    done, block = 0, 0
    parts: list[Part] = []
    for start, found in _regions(text, lines, tokens, parser, env, took):
        if start < done or not found:
            continue
        source = "".join(part if isinstance(part, str) else part.source for part in found)
        if text[start : start + len(source)] != source:
            continue  # a block that can't be placed stays
        parts.append(text[done:start])
        parts += [part if isinstance(part, str) else Sentence(part.pieces, block, part.special) for part in found]
        done = start + len(source)
        block += 1
    return [part for part in [*parts, text[done:]] if part]


def escape_markdown(text: str) -> str:
    """What would be read as markup, escaped."""
    text = re.sub(r"([\\`*\[\]<~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    return _ENTITY.sub("&amp;", _BLOCK_START.sub(_escaped_start, text, count=1) if _BLOCK_START.match(text) else text)


# --- blocks ----------------------------------------------------------------------------------------------------------


def _escaped_start(match: re.Match[str]) -> str:
    return match[0] + "\\" if match[0].isdigit() else "\\" + match[0]


def _lines(text: str, offset: int) -> list[tuple[int, int]]:
    """Where each line begins and ends, its ending left out."""
    ends = [(match.start(), match.end()) for match in _LINE_END.finditer(text, offset)]
    starts = [offset, *(end for _, end in ends)]
    return list(zip(starts, [*(start for start, _ in ends), len(text)], strict=True))


def _regions(
    text: str,
    lines: Sequence[tuple[int, int]],
    tokens: Sequence[Token],
    parser: MarkdownIt,
    env: dict[str, Any],
    took: list[_Took],
) -> Iterator[tuple[int, list[Part]]]:
    """Stretches of the text that hold sentences: where each begins, and its parts."""
    row: list[int] = [0, 0]
    cursor = 0
    for n, token in enumerate(tokens):
        if token.type == "tr_open":
            row, cursor = token.map or row, 0
        elif token.type == "html_block" and token.map:
            start, end = lines[token.map[0]][0], lines[min(token.map[1], len(lines)) - 1][1]
            yield start, read_html(text[start:end])
        elif token.type == "inline" and token.content.strip():
            parent = tokens[n - 1].type
            if parent in ("th_open", "td_open"):
                places = _cell(text, lines[row[0]], token.content, cursor)
                cursor = places[-1][1] if places else cursor
            else:
                places = _paragraph(text, lines, token, heading=tokens[n - 1].markup.startswith("#"))
            if not places:
                continue
            content = token.content if parent in ("th_open", "td_open") else _unindented(token.content)
            special = "|" if parent in ("th_open", "td_open") else ""
            pieces = list(_pieces(text, content, places, parser, env, took))
            yield places[0][0], sentences_of(pieces, 0, special)


def _unindented(content: str) -> str:
    """Lines without the white space they begin with, which means nothing in a paragraph."""
    return "\n".join(line.lstrip(" \t") for line in content.split("\n"))


def _paragraph(text: str, lines: Sequence[tuple[int, int]], token: Token, *, heading: bool) -> list[tuple[int, int]]:
    """Where each character of a block's content stands in the text; nothing where it can't be found."""
    if token.map is None:
        return []
    places: list[tuple[int, int]] = []
    for n, line in enumerate(_unindented(token.content).split("\n")):
        if token.map[0] + n >= len(lines):
            return []
        start, end = lines[token.map[0] + n]
        source, body = text[start:end], line.rstrip(" \t")
        if heading:
            marks = _HEADING.match(source)
            place = source.find(body, marks.end() if marks else 0)
        else:
            place = len(source.rstrip(" \t")) - len(body) if source.rstrip(" \t").endswith(body) else -1
        if place < 0:
            return []
        if places:  # the line's end, whatever stands before the next one's text
            places.append((places[-1][1], start + place))
        places += [(start + place + i, start + place + i + 1) for i in range(len(line))]
    return places


def _cell(text: str, line: tuple[int, int], content: str, cursor: int) -> list[tuple[int, int]]:
    """Where each character of a table's cell stands, a ``|`` with the backslash before it."""
    pattern = "".join(r"\\?\|" if character == "|" else re.escape(character) for character in content)
    match = re.compile(pattern).search(text, max(line[0], cursor), line[1])
    if match is None:
        return []
    places, at = [], match.start()
    for character in content:
        width = 2 if character == "|" and text[at] == "\\" else 1
        places.append((at, at + width))
        at += width
    return places


# --- within a block --------------------------------------------------------------------------------------------------


def _parser() -> tuple[MarkdownIt, list[_Took]]:
    """A parser of blocks, whose inline rules note what they take."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise missing_extra("markdown-it-py", "documents") from error
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    parser.core.ruler.enableOnly(["normalize", "block"])
    parser.inline.ruler2.disable("fragments_join")  # it would join the tokens that are looked at
    took: list[_Took] = []
    for rule in parser.inline.ruler.get_all_rules():
        function = next(one.fn for one in parser.inline.ruler.__rules__ if one.name == rule)
        parser.inline.ruler.at(rule, _watched(rule, function, took))
    return parser, took


def _watched(
    name: str, rule: Callable[[StateInline, bool], bool], took: list[_Took]
) -> Callable[[StateInline, bool], bool]:
    def watched(state: StateInline, silent: bool) -> bool:
        start, before = state.pos, len(state.tokens)
        if name in ("emphasis", "strikethrough"):
            before += bool(state.pending)  # what waits becomes a token before theirs
        done = rule(state, silent)
        if done and not silent:
            label_end = state.md.helpers.parseLinkLabel(state, start, True) if name == "link" else 0
            took.append(_Took(name, start, state.pos, label_end, tuple(state.tokens[before:])))
        return done

    return watched


def _pieces(
    text: str,
    content: str,
    places: Sequence[tuple[int, int]],
    parser: MarkdownIt,
    env: dict[str, Any],
    took: list[_Took],
) -> Iterator[Piece]:
    """The content of a block as pieces whose sources, in order, are the text from its first place to its last."""
    took.clear()
    parser.inline.parse(content, parser, env, [])
    cuts = {start: (end, piece) for start, end, piece in _cuts(content, took)}
    for match in _FOOTNOTE.finditer(content):
        if not any(start < match.end() and end > match.start() for start, (end, _) in _near(cuts, match)):
            cuts[match.start()] = (match.end(), Piece("", kind="single"))
    order = sorted(cuts)
    at = 0
    while at < len(content):
        if at in cuts:
            end, piece = cuts[at]
            yield piece._replace(source=text[places[at][0] : places[end - 1][1]])
        else:
            following = bisect_left(order, at)
            end = order[following] if following < len(order) else len(content)
            yield from _plain_pieces(text, content, places, at, end)
        at = end


def _near(cuts: dict[int, tuple[int, Piece]], match: re.Match[str]) -> Iterator[tuple[int, tuple[int, Piece]]]:
    """The cuts that begin within a match."""
    return ((start, cuts[start]) for start in range(match.start(), match.end()) if start in cuts)


def _plain_pieces(text: str, content: str, places: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[Piece]:
    source = text[places[start][0] : places[end - 1][1]]
    if source == content[start:end]:
        yield from text_pieces(source)
    else:  # escaped bars within a table
        yield from (Piece(text[a:b], content[start + n]) for n, (a, b) in enumerate(places[start:end]))


def _cuts(content: str, took: Sequence[_Took]) -> Iterator[tuple[int, int, Piece]]:
    """Stretches of a block's content that are not just text, with what they are; the source is put in later."""
    covered = 0
    for one in sorted(took, key=lambda one: (one.start, -one.end)):
        if one.start < covered:
            continue
        made = [token for token in one.tokens if token.content or token.type != "text"]
        kind = one.tokens[-1].type if one.tokens else ""
        if one.rule == "link":
            yield one.start, one.start + 1, Piece("", kind="open")
            yield one.label_end, one.end, Piece("", kind="close", instead=_full_reference(content, one))
        elif one.rule in ("emphasis", "strikethrough"):
            yield from _delimiters(one.start, made)
        elif one.rule in ("newline", "escape") and kind in ("softbreak", "hardbreak"):
            soft = line_break("", content[: one.start].rstrip()[-1:], content[one.end : one.end + 1])
            yield one.start, one.end, Piece("", "\n\n", "end") if kind == "hardbreak" else soft
        elif one.rule in ("escape", "entity") and one.tokens:
            shown = one.tokens[-1].content or html.unescape(content[one.start : one.end])
            yield one.start, one.end, Piece("", shown or " ")
        elif one.rule == "html_inline":
            yield one.start, one.end, _tag(content[one.start : one.end])
            covered = one.end
        elif one.rule in ("autolink", "image") or kind == "code_inline":
            shown = {"image": "", "autolink": content[one.start + 1 : one.end - 1]}
            yield one.start, one.end, Piece("", shown.get(one.rule, one.tokens[-1].content), "single")
            covered = one.end


def _full_reference(content: str, link: _Took) -> str | None:
    """The end of a link whose label is its reference: the label stays where its wording changes."""
    if content[link.label_end : link.end] in ("]", "][]"):
        return "][" + content[link.start + 1 : link.label_end] + "]"
    return None


def _delimiters(start: int, tokens: Sequence[Token]) -> Iterator[tuple[int, int, Piece]]:
    """Runs of ``*``, ``_`` and ``~``: those that belong together, while the others are text."""
    at = start
    for token in tokens:
        width = len(token.content if token.type == "text" else token.markup)
        if token.type != "text":
            yield at, at + width, Piece("", kind="open" if token.nesting > 0 else "close")
        at += width


def _tag(source: str) -> Piece:
    match = _TAG.match(source)
    name = match["name"].lower() if match else ""
    if name == "br":
        return Piece("", "\n\n", "end")
    if match is None or name in VOID or source.endswith("/>") or name not in INLINE:
        return Piece("", kind="single")
    return Piece("", kind="close" if match["close"] else "open")
