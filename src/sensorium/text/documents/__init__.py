"""Documents as sentences that can be replaced, and everything else, kept byte for byte.

    >>> document = parse_document("# Hello\\n\\nA *small* dog. `x = 1` is code.\\n", "markdown")
    >>> [sentence.text for sentence in document.sentences]
    ['Hello', 'A small dog.', 'x = 1 is code.']
    >>> document.replaced([document.rendered(one, one.marked().upper()) for one in document.sentences])
    '# HELLO\\n\\nA *SMALL* DOG. `x = 1` IS CODE.\\n'

A document is untrusted: its size is bounded, nothing it names is opened or fetched, no entity expands into another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sensorium.errors import DataError, UsageError, nearest
from sensorium.text.documents._html import escape_html, read_html
from sensorium.text.documents._markdown import escape_markdown, read_markdown
from sensorium.text.documents._places import Place, plain_text
from sensorium.text.documents._plain import read_plain
from sensorium.text.documents._sentence import MARK, STYLES, Part, Piece, Sentence, render
from sensorium.text.documents._subtitles import escape_subtitles, read_subtitles
from sensorium.text.sentences import space_between

__all__ = [
    "MARK", "STYLES", "Document", "Format", "Piece", "Place", "Sentence", "format_of", "open_document",
    "parse_document", "plain_text",
]  # fmt: skip

Format = Literal["markdown", "html", "text", "srt", "vtt"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: Mapping[str, Format] = {
    ".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".xhtml": "html", ".txt": "text",
    ".srt": "srt", ".vtt": "vtt",
}  # fmt: skip
MAX_BYTES = 5_000_000
"""Of a document: a long novel has a million."""

_READ: Mapping[Format, Callable[[str], list[Part]]] = {
    "markdown": read_markdown, "html": read_html, "text": read_plain, "srt": read_subtitles, "vtt": read_subtitles,
}  # fmt: skip
_ESCAPE: Mapping[Format, Callable[[str], str]] = {
    "markdown": escape_markdown, "html": escape_html, "text": str, "srt": escape_subtitles, "vtt": escape_html,
}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """What a file says, in order: sentences, and between them whatever stays."""

    format: Format
    parts: tuple[Part, ...]

    @property
    def source(self) -> str:
        """The document as it was read."""
        return "".join(map(_source, self.parts))

    @property
    def sentences(self) -> list[Sentence]:
        """What can be translated."""
        return [part for part in self.parts if isinstance(part, Sentence)]

    def rendered(self, sentence: Sentence, marked: str, mark: str = MARK) -> str | None:
        """Another wording of a sentence, its markup as ``sentence.marked(mark)`` writes it, in this document's form.

        ``None`` when a mark is missing, stands twice or closes what is not open. What the format would read as markup
        is escaped; the wording the sentence has already gives its own source back.
        """
        return render(sentence, marked, _ESCAPE[self.format], style=mark, keep_breaks=self.format in ("srt", "vtt"))

    def escaped(self, text: str) -> str:
        """A text as this format writes it."""
        return _ESCAPE[self.format](text)

    def replaced(self, sources: Sequence[str | None]) -> str:
        """The document with other sources for its sentences, in their order; ``None`` leaves one as it is.

        Between two that change, a space stands as their language has it: none behind a Chinese sentence. Raises
        ``UsageError`` when there are more or fewer than sentences.
        """
        sentences = self.sentences
        if len(sources) != len(sentences):
            raise UsageError(f"{len(sources):,} sentences for a document of {len(sentences):,}")
        given = iter(sources)
        news = [next(given) if isinstance(part, Sentence) else None for part in self.parts]
        written = [_source(part) if new is None else new for part, new in zip(self.parts, news, strict=True)]
        changed = [new is not None and new != _source(part) for part, new in zip(self.parts, news, strict=True)]
        joined = written[:1]
        for n in range(1, len(written)):
            if isinstance(self.parts[n], Sentence) and isinstance(self.parts[n - 1], Sentence):
                both = changed[n - 1] and changed[n]
                joined.append(space_between("", written[n - 1], written[n]) if both else "")
            elif 1 <= n < len(written) - 1 and changed[n - 1] and changed[n + 1]:
                written[n] = space_between(written[n], written[n - 1], written[n + 1])
            joined.append(written[n])
        return "".join(joined)


def _source(part: Part) -> str:
    return part if isinstance(part, str) else part.source


def format_of(path: str | Path) -> Format:
    """The format of a file by its suffix. Raises ``UsageError`` for an unknown one.

    >>> format_of("README.md")
    'markdown'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: not a known kind of document; known are {', '.join(SUFFIXES)}, or name its format")
    return SUFFIXES[suffix]


def open_document(path: str | Path, format: Format | None = None) -> Document:
    """Read a UTF-8 file; ``format`` None: by its suffix. Raises ``DataError`` for a broken or too large one."""
    path = Path(path).expanduser()
    chosen = format_of(path) if format is None else format
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: more than {MAX_BYTES:,} bytes; cut it into several documents")
    try:
        return parse_document(content.decode("utf-8"), chosen)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start + 1}") from error


def parse_document(text: str, format: Format) -> Document:
    """The document that a text is. Raises ``UsageError`` for an unknown format, ``DataError`` for a too large text."""
    if format not in FORMATS:
        raise UsageError(f"format is {format!r}{nearest(str(format), FORMATS)}; known are {', '.join(FORMATS)}")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise DataError(f"the document has more than {MAX_BYTES:,} bytes; cut it into several")
    return Document(format, tuple(_READ[format](text)))
