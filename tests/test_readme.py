"""The README says what is so: its examples run, its commands exist, its map is the tree on disk."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sensorium.cli import Session, build_app
from sensorium.train.recipe import read_recipe

ROOT = Path(__file__).parent.parent
READMES = ["README.md", "README.zh-CN.md"]
ROOMS_ONLY = {"__main__.py", "py.typed", "machine.py"}
"""Files of the package that the map leaves out."""


def blocks(document: Path, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def mapped(document: Path) -> set[str]:
    """The paths of the tree in the README."""
    [tree] = blocks(document, "text")
    paths, folder = set(), ""
    for line in tree.splitlines():
        name, indented = line.split()[0], line.startswith("  ")
        folder = folder if indented else name
        paths.add(folder + name if indented else name)
    return paths


@pytest.mark.parametrize("readme", READMES)
@pytest.mark.filterwarnings("ignore::sensorium.tasks.UntrainedHeadWarning")
def test_python_examples_run(readme: str, tiny_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_hub)  # folders named as the models on the hub
    examples = blocks(ROOT / readme, "python")
    assert len(examples) == 3
    exec(compile("\n".join(examples), readme, "exec"), {})


@pytest.mark.parametrize("readme", READMES)
def test_commands_exist_with_their_options(readme: str) -> None:
    lines = [line for block in blocks(ROOT / readme, "bash") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("sensorium ")]
    assert len(commands) >= 3
    for command, *arguments in commands:
        answer = CliRunner().invoke(build_app(), [command, "--help"], obj=Session())
        assert answer.exit_code == 0, command
        for recipe in (argument for argument in arguments if argument.startswith("recipes/")):
            read_recipe(ROOT / recipe, [argument for argument in arguments if "=" in argument])
        for option in (argument for argument in arguments if argument.startswith("--")):
            assert option in answer.output, f"{readme}: sensorium {command} has no {option}"


@pytest.mark.parametrize("readme", READMES)
def test_the_map_is_the_tree_on_disk(readme: str) -> None:
    assert [path for path in mapped(ROOT / readme) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("readme", READMES)
def test_the_map_names_every_room(readme: str) -> None:
    source = ROOT / "src" / "sensorium"
    rooms = {path.name + "/" * path.is_dir() for path in source.iterdir()} - {"__pycache__/"} - ROOMS_ONLY
    assert {f"src/sensorium/{room}" for room in rooms} - mapped(ROOT / readme) == set()


def test_both_languages_show_the_same_map() -> None:
    assert mapped(ROOT / "README.md") == mapped(ROOT / "README.zh-CN.md")


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(readme: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / readme).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
