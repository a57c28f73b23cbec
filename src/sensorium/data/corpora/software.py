"""What software says, in English and another language: strings of an interface, and paragraphs of its help.

Sides are drawn by the normalised English text, and by nothing else, so no English text of one corpus is on another side
of the other. Only pairs that can be learned from are kept (`clean_pairs`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sensorium.data.corpora.installed import installed_file
from sensorium.data.corpora.sides import check_side, on_side
from sensorium.data.splits import deduplicate, normalise
from sensorium.errors import DataError, UsageError
from sensorium.storage import read_text

HELD_OUT = 0.05
"""Share of the English texts for validation, and as many for the test."""
LONGEST = 600
"""Characters of a text; longer ones are lists run together."""
RATIOS = {"de": (0.4, 3.0), "zh": (0.12, 1.5)}
"""Language → how many characters of a translation are to be expected for one of English."""
HELP = Path("/usr/share/libreoffice/help")
HELP_LANGUAGES = {"de": "de", "zh": "zh-CN"}
INTERFACE_LANGUAGES = {"de": "de", "zh": "zh-Hans"}
JUPYTER_LANGUAGES = {"de": "de_DE", "zh": "zh_CN"}

PLACEHOLDER = re.compile(r"\{\w+\}|%\w|</?\w+/?>")
"""What a program puts something in for, or marks up: both texts must have the same."""
MESSAGE_FORMAT = re.compile(r"\{\s*\w+\s*,")
"""Forms for numbers and kinds are a little language of their own; they are left out."""
OTHER_SYSTEMS = {"MAC", "UNIX"}
"""Classes of what is shown to users of other systems, beside what is shown otherwise."""
CHINESE = re.compile("[\u4e00-\u9fff]")

Record = dict[str, Any]
Texts = dict[str, str]
"""Key → text, in one language."""


def interface_strings(which: str) -> list[Record]:
    """Strings of Home Assistant's interface, ``language`` or ``language/side``: ``text`` (English), ``target``."""
    language, side = _parts(which, "interface_strings")
    folder = installed_file("home-assistant-frontend", "hass_frontend/static/translations", extra="recipes")
    english, other = (_interface(folder, name) for name in ("en", INTERFACE_LANGUAGES[language]))
    return _of_side(_paired(english, other), language, side)


def jupyter_strings(which: str) -> list[Record]:
    """Strings of JupyterLab and its extensions, ``language`` or ``language/side``: ``text`` (English), ``target``."""
    language, side = _parts(which, "jupyter_strings")
    name = JUPYTER_LANGUAGES[language]
    package = f"jupyterlab-language-pack-{name.replace('_', '-')}"
    place = f"{package.replace('-', '_')}/locale/{name}/LC_MESSAGES"
    folder = installed_file(package, place, extra="demo" if language == "zh" else "recipes")
    pairs = [pair for path in sorted(folder.glob("*.json")) for pair in _catalogue(path)]
    return _of_side(pairs, language, side)


def libreoffice_help(which: str, folder: Path = HELP) -> list[Record]:
    """Paragraphs of LibreOffice's help, ``language`` or ``language/side``: ``text`` (English), ``target``.

    Paragraphs belong together by file and number. Raises ``UsageError`` naming Debian's packages where they are absent.
    """
    language, side = _parts(which, "libreoffice_help")
    name = HELP_LANGUAGES[language]
    for needed in ("en-US", name):
        if not (folder / needed / "text").is_dir():
            packages = f"libreoffice-help-en-us libreoffice-help-{name.lower()}"
            raise UsageError(f"{folder / needed}: is not there; install it with: apt-get install {packages}")
    return _of_side(_paired(_help(folder / "en-US" / "text"), _help(folder / name / "text")), language, side)


def clean_pairs(pairs: Iterable[tuple[str, str]], language: str) -> list[Record]:
    """The pairs that can be learned from, each English text once.

    Left out are texts that were not translated, that hold no word, are too long or of lengths that cannot belong
    together, and pairs that do not hold the same placeholders.

    >>> clean_pairs([("Open {name}", "{name} öffnen"), ("Open {name}", "Öffnen"), ("OK", "OK")], "de")
    [{'text': 'Open {name}', 'target': '{name} öffnen'}]
    """
    return deduplicate([{"text": text, "target": target} for text, target in pairs if _serves(text, target, language)])


# --- details ---------------------------------------------------------------------------------------------------------


def _parts(which: str, corpus: str) -> tuple[str, str]:
    language, _, side = which.partition("/")
    if language not in RATIOS:
        raise UsageError(f"corpus:{corpus} needs a language, {' or '.join(RATIOS)}, perhaps with a side: de/train")
    check_side(side)
    return language, side


def _of_side(pairs: list[tuple[str, str]], language: str, side: str) -> list[Record]:
    return on_side(clean_pairs(pairs, language), lambda pair: normalise(pair["text"]), side, held_out=HELD_OUT)


def _paired(english: Texts, other: Texts) -> list[tuple[str, str]]:
    return [(text, other[key]) for key, text in english.items() if key in other]


def _serves(text: str, target: str, language: str) -> bool:
    least, most = RATIOS[language]
    if not any(character.isalpha() for character in text) or text.casefold() == target.casefold():
        return False
    if language == "zh" and not CHINESE.search(target):
        return False
    if max(len(text), len(target)) > LONGEST or not least <= (len(target) + 2) / (len(text) + 2) <= most:
        return False
    if MESSAGE_FORMAT.search(text) or MESSAGE_FORMAT.search(target):
        return False
    return Counter(PLACEHOLDER.findall(text)) == Counter(PLACEHOLDER.findall(target))


def _interface(folder: Path, language: str) -> Texts:
    """All strings of a language; the files of the interface's parts stand in folders of their own."""
    texts: Texts = {}
    for path in sorted(folder.rglob(f"{language}-*.json")):
        if not re.fullmatch(rf"{re.escape(language)}-[0-9a-f]{{32}}\.json", path.name):
            continue  # another language of a longer name
        try:
            strings = json.loads(read_text(path))
            texts.update({f"{path.parent.name} {key}": " ".join(text.split()) for key, text in strings.items()})
        except (ValueError, AttributeError) as error:
            raise DataError(f"{path}: not a file of strings: {error}") from error
    return texts


def _catalogue(path: Path) -> list[tuple[str, str]]:
    """The pairs of a catalogue of messages: English, perhaps behind a context → translations, of the singular first."""
    try:
        strings = json.loads(read_text(path))
        found = [(key.rpartition("\x04")[2], forms[0]) for key, forms in strings.items() if key and forms]
        return [(" ".join(text.split()), " ".join(target.split())) for text, target in found]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a catalogue of messages: {error}") from error


def _help(folder: Path) -> Texts:
    """All paragraphs and headings, by file and number."""
    texts: Texts = {}
    for path in sorted(folder.rglob("*.html")):
        parser = _Paragraphs()
        parser.feed(read_text(path))
        name = path.relative_to(folder)
        texts.update({f"{name} {number}": text for number, text in parser.texts.items() if text})
    return texts


class _Paragraphs(HTMLParser):
    """Text of the elements ``par_id…`` and ``hd_id…``, without what is shown on other systems only."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: Texts = {}
        self.number = ""
        self.pieces: list[str] = []
        self.hidden = 0
        """Open spans inside one that is not shown, that one included."""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        number = given.get("id") or ""
        if tag in ("p", "h1", "h2", "h3", "h4", "h5") and number.startswith(("par_id", "hd_id")):
            self.number, self.pieces, self.hidden = number, [], 0
        elif tag == "span" and (self.hidden or given.get("class") in OTHER_SYSTEMS):
            self.hidden += 1
        elif tag == "br":
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "span" and self.hidden:
            self.hidden -= 1
        elif self.number and (tag == "p" or tag[0] == "h"):
            self.texts.setdefault(self.number, " ".join("".join(self.pieces).split()))
            self.number = ""

    def handle_data(self, data: str) -> None:
        if self.number and not self.hidden:
            self.pieces.append(data)
