"""`sensorium index` and `sensorium search`, as they are typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sensorium import cli
from sensorium.checkpoint import Checkpoint
from sensorium.search import index as indexing

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sensorium", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return run


def test_a_folder_is_indexed_and_asked(call: Call, folder: Path, matching: Checkpoint) -> None:
    (folder / "cut.png").write_bytes(b"\x89PNG")
    status, out, err = call("index", folder, "--model", matching.folder)
    assert status == 0
    assert out.startswith("6 read, 0 unchanged, 0 gone\n1 could not be read:\n  cut.png: ")
    assert err.endswith("6 of 6 files\n")
    assert (folder / ".sensorium" / "index.sqlite").is_file()
    assert call("index", folder, "--model", matching.folder)[1].startswith("0 read, 6 unchanged, 0 gone")

    status, out, _ = call("search", "a red square", "--folder", folder, "--top", 2)
    assert status == 0
    assert out.splitlines()[0].split()[-1] == "red.png"
    assert len(out.splitlines()) == 2
    assert " % " in out
    _, out, _ = call("search", "--image", folder / "blue.png", "--folder", folder, "--find", "text", "--top", 1)
    assert "notes.md:3  a blue square" in out
    _, out, _ = call("search", "--image", folder / "blue.png", "--folder", folder, "--top", 1)
    assert out.split() == ["+1.000", "blue.png"]


def test_answers_are_json_for_programs(call: Call, folder: Path, matching: Checkpoint, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere.sqlite"
    report = json.loads(call("index", folder, "--model", matching.folder, "--store", place, "--json")[1])
    assert report == {"read": 5, "unchanged": 0, "forgotten": 0, "problems": {}}
    answer: dict[str, Any] = json.loads(call("search", "a red square", "--store", place, "--json")[1])
    assert answer["count"] == 4
    assert answer["matches"][0]["path"] == "red.png"
    assert set(answer["matches"][0]) == {"path", "kind", "line", "text", "score", "probability"}


def test_an_index_on_a_server_is_named_by_its_address(
    call: Call, folder: Path, matching: Checkpoint, database: Callable[[], str]
) -> None:
    address = database()
    status, out, _ = call("index", folder, "--model", matching.folder, "--store", address)
    assert (status, out) == (0, "5 read, 0 unchanged, 0 gone\n")
    assert not (folder / ".sensorium").exists()
    status, out, _ = call("search", "a red square", "--store", address, "--top", 1)
    assert (status, out.split()[-1]) == (0, "red.png")
    status, out, err = call("search", "a red square", "--store", "postgresql:///b?host=/nowhere&password=hush")
    assert (status, out) == (2, "")
    assert "postgresql:///nowhere/b: connection is bad" in err
    assert "hush" not in err


def test_what_is_not_there_is_said_not_to_be(
    call: Call, folder: Path, matching: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("index", folder, "--model", matching.folder)
    monkeypatch.setattr("sensorium.search.searcher.LIKELY", 1.1)
    status, out, err = call("search", "a red square", "--folder", folder)
    assert (status, len(out.splitlines())) == (0, 4)
    assert err == "none of 4 is likely what was meant\n"


def test_an_interruption_is_said_and_the_same_command_goes_on(
    call: Call, folder: Path, matching: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(indexing, "_entries", interrupted)
        status, _, err = call("index", folder, "--model", matching.folder)
        assert status == 130
        assert "what was read is kept, and the same command goes on" in err
    assert call("index", folder, "--model", matching.folder)[1].startswith("5 read")


def test_another_model_needs_an_index_anew(call: Call, folder: Path, matching: Checkpoint, tiny_hub: Path) -> None:
    call("index", folder, "--model", matching.folder)
    status, _, err = call("index", folder, "--model", tiny_hub / "clip")
    assert status == 2
    assert "use that model, or index anew with --anew" in err
    assert call("index", folder, "--model", tiny_hub / "clip", "--anew")[0] == 0
    assert call("search", "a cat", "--folder", folder)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search",), "give what to look for: words, or --image; one of them"),
        (("search", "a cat", "--image", "b.png"), "give what to look for: words, or --image; one of them"),
        (("search", "a cat", "--folder", "{folder}"), "there is no index; make one with: sensorium index FOLDER"),
        (("index", "{folder}/nowhere", "--model", "{hub}/clip"), "nowhere: there is no such folder"),
        (("index", "{folder}", "--model", "{hub}/vit"), "a vit model does not match images with texts (clip)"),
        (("index", "{folder}", "--model", "{hub}/nothing"), "nothing: there is no such checkpoint folder"),
    ],
)
def test_mistakes_are_one_sentence(
    call: Call, folder: Path, tiny_hub: Path, arguments: tuple[str, ...], words: str
) -> None:
    status, out, err = call(*(argument.format(folder=folder, hub=tiny_hub) for argument in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (folder / ".sensorium").exists()
