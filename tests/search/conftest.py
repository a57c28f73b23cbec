"""A folder of squares and notes, a model that has learnt which colour is which, and places for an index."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.tasks.matching import ImageTextVectors
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.search.postgres import throwaway_server
from tests.train.conftest import COLOURS, write_matcher

QUIET = ["train.precision=fp32", "train.validate_every=1000", "train.checkpoint_every=1000"]


@pytest.fixture(scope="session")
def matching(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A CLIP of some thousand weights, trained for two seconds."""
    folder = tmp_path_factory.mktemp("matching")
    path = write_matcher(folder)
    pairs = folder / "pairs.jsonl"
    pairs.write_text(re.sub(", (top|low) (left|right)", "", pairs.read_text()))  # the colour is all there is to say
    run_recipe(read_recipe(path, [*QUIET, "model.family=clip", "train.epochs=60"]), quiet=True)
    return open_checkpoint(folder / "model")


@pytest.fixture
def vectors(matching: Checkpoint) -> ImageTextVectors:
    return ImageTextVectors(matching)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, one in a folder of its own, and a text of two paragraphs."""
    place = tmp_path / "things"
    (place / "more").mkdir(parents=True)
    for name, colour in COLOURS.items():
        inner = place / "more" if name == "black" else place
        square(inner / f"{name}.png", colour)
    (place / "notes.md").write_text("# a red square\n\na blue\nsquare\n")
    (place / "data.bin").write_bytes(b"\0")
    (place / ".hidden.png").write_bytes(b"\0")
    return place


def square(path: Path, colour: tuple[int, int, int]) -> Path:
    picture = Image.new("RGB", (16, 16), "white")
    picture.paste(colour, (0, 0, 8, 8))
    picture.save(path)
    return path


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server of these tests' own, in a temporary folder."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra postgres)")
    with throwaway_server() as address:
        yield address


@pytest.fixture
def database(server: str) -> Callable[[], str]:
    """Gives the address of an empty schema."""
    import psycopg

    def fresh() -> str:
        name = f"index_{secrets.token_hex(4)}"
        with psycopg.connect(server) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{server}&options=-csearch_path%3D{name}"

    return fresh


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an index may be made: a file, or a server's database."""
    if request.param == "sqlite":
        return os.fspath(tmp_path / "deep" / "index.sqlite")
    fresh: Callable[[], str] = request.getfixturevalue("database")
    return fresh()
