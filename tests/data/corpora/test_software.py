"""Texts of software in two languages: cleaned, aligned, and split by the English text."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from sensorium.data.corpora import read_corpus, software
from sensorium.data.corpora.sides import SIDES
from sensorium.data.corpora.software import HELP, PLACEHOLDER, clean_pairs, jupyter_strings, libreoffice_help
from sensorium.data.splits import normalise
from sensorium.errors import DataError, UsageError

MAC = '<span class="switchinline"><span hidden="true" class="MAC"><span class="key">{mac}</span></span>'
PAGE = """<html><body><h1 id="hd_id1">{title}</h1><p id="par_id1" dir="auto">{text}, <span class="emph">{more}</span>.
</p><p id="par_id2">{switch}<span hidden="true" id="default1">{key}</span></span></p><p>{more}</p></body></html>"""


def help_folder(folder: Path) -> Path:
    pages = {
        "en-US": {"title": "Printing pages", "text": "Choose print", "more": "or press a key", "key": "Press Ctrl+P"},
        "de": {"title": "Seiten drucken", "text": "Wähle Drucken", "more": "oder drücke", "key": "Drücke Strg+P"},
    }
    for language, words in pages.items():
        path = folder / language / "text" / "shared" / "a.html"
        path.parent.mkdir(parents=True)
        path.write_text(PAGE.format(**words, switch=MAC.format(mac="Command")))
    return folder


def test_help_is_aligned_by_file_and_number_and_says_what_this_system_shows(tmp_path: Path) -> None:
    assert libreoffice_help("de", help_folder(tmp_path)) == [
        {"text": "Printing pages", "target": "Seiten drucken"},
        {"text": "Choose print, or press a key.", "target": "Wähle Drucken, oder drücke."},
        {"text": "Press Ctrl+P", "target": "Drücke Strg+P"},
    ]
    with pytest.raises(UsageError, match="zh-CN: is not there; install it with: apt-get install .*libreoffice-help-zh"):
        libreoffice_help("zh", tmp_path)


def test_pairs_that_cannot_be_learned_from_are_left_out() -> None:
    good = [("Delete {name}?", "{name} löschen?"), ("Save", "Speichern")]
    bad = [
        ("Delete {name}?", "Diesen löschen?"),  # the placeholder is lost
        ("SAVE", "Sichern"),  # the same English text again
        ("Home", "home"),  # not translated
        ("100 %", "100 v. H."),
        ("{n, plural, one {day} other {days}}", "{n, plural, one {Tag} other {Tage}}"),
        ("No", "Nein, das wird auf keinen Fall so gemacht"),
        ("word " * 200, "Wort " * 200),
    ]
    assert clean_pairs([*good, *bad], "de") == [{"text": text, "target": target} for text, target in good]
    assert clean_pairs([("Open the file", "Open that file"), ("Open it", "打开")], "zh") == [
        {"text": "Open it", "target": "打开"}
    ]


def test_a_catalogue_of_messages_is_read_without_contexts_and_with_the_first_of_its_plurals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software, "installed_file", lambda package, name, *, extra: tmp_path)
    messages = {
        "": {"language": "zh_CN"},
        "menu\x04Save  %1": ["保存 %1"],
        "One cell": ["一个单元格", "多个"],
        "Run": [""],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(messages))
    assert jupyter_strings("zh") == [
        {"text": "Save %1", "target": "保存 %1"},
        {"text": "One cell", "target": "一个单元格"},
    ]
    path.write_text('["Save"]')
    with pytest.raises(DataError, match="a.json: not a catalogue of messages"):
        jupyter_strings("zh")


@pytest.mark.skipif(
    find_spec("jupyterlab_language_pack_zh_CN") is None, reason="jupyterlab-language-pack-zh-CN is not installed"
)
def test_strings_of_jupyterlab_are_real_and_no_english_text_is_on_two_sides() -> None:
    sides = {side: read_corpus(f"jupyter_strings:zh/{side}") for side in SIDES}
    assert len(sides["train"]) > 2500
    assert len(sides["test"]) > 100
    assert not {normalise(pair["text"]) for pair in sides["train"]} & {
        normalise(pair["text"]) for pair in sides["test"]
    }
    assert {"text": "Select All", "target": "全选"} in [pair for side in sides.values() for pair in side]


@pytest.mark.skipif(find_spec("hass_frontend") is None, reason="home-assistant-frontend is not installed")
@pytest.mark.parametrize("language", ["de", "zh"])
def test_interface_strings_are_real_and_no_english_text_is_on_two_sides(language: str) -> None:
    sides = {side: read_corpus(f"interface_strings:{language}/{side}") for side in SIDES}
    assert len(sides["train"]) > 3000
    assert len(sides["test"]) > 100
    assert sum(map(len, sides.values())) == len(read_corpus(f"interface_strings:{language}"))
    texts = {side: {normalise(record["text"]) for record in records} for side, records in sides.items()}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    for record in sides["train"]:
        assert Counter(PLACEHOLDER.findall(record["text"])) == Counter(PLACEHOLDER.findall(record["target"]))


@pytest.mark.skipif(not HELP.is_dir(), reason="Debian's libreoffice-help packages are not installed")
@pytest.mark.skipif(find_spec("hass_frontend") is None, reason="home-assistant-frontend is not installed")
def test_the_two_corpora_agree_on_the_side_of_a_text() -> None:
    trained, measured = read_corpus("libreoffice_help:de/train"), read_corpus("interface_strings:de")
    sides = {record["text"]: side for side in SIDES for record in read_corpus(f"interface_strings:de/{side}")}
    assert len(trained) > 20_000
    shared = {normalise(one["text"]) for one in trained} & {normalise(one["text"]) for one in measured}
    assert len(shared) > 100
    assert {sides[one["text"]] for one in measured if normalise(one["text"]) in shared} == {"train"}


def test_a_language_there_is_not_and_a_broken_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs a language, de or zh"):
        read_corpus("interface_strings:fr")
    with pytest.raises(UsageError, match="not 'dev'"):
        read_corpus("libreoffice_help:de/dev")
    (tmp_path / f"en-{'0' * 32}.json").write_text(json.dumps(["no strings"]))
    monkeypatch.setattr("sensorium.data.corpora.software.installed_file", lambda package, name, extra: tmp_path)
    with pytest.raises(DataError, match=r"en-0+\.json: not a file of strings"):
        read_corpus("interface_strings:de")
