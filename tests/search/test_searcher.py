"""What is asked for is found, with a probability; and what is not there is said not to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.search import Searcher, open_store, update_index
from sensorium.tasks.matching import ImageTextVectors


@pytest.fixture
def searcher(folder: Path, tmp_path: Path, vectors: ImageTextVectors) -> Searcher:
    store = open_store(tmp_path / "index", create=True)
    update_index(folder, store, vectors)
    return Searcher(store, vectors)


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_words_find_pictures_and_pictures_words(searcher: Searcher, folder: Path, colour: str) -> None:
    answer = searcher.search(f"a {colour} square", most=3)
    assert answer.matches[0].path == f"{colour}.png"
    assert answer.count == 4
    assert len(answer.matches) == 3
    chances = [match.probability for match in answer.matches]
    assert all(chance is not None and 0 <= chance <= 1 for chance in chances)
    assert chances == sorted(chances, reverse=True)  # type: ignore[type-var]
    found = searcher.search_image(folder / f"{colour}.png", kind="text")
    assert {match.line for match in found.matches} == {1, 3}
    if colour != "green":
        assert colour in found.matches[0].text


def test_pictures_find_pictures(searcher: Searcher, folder: Path) -> None:
    answer = searcher.search_image(folder / "blue.png")
    assert answer.matches[0].path == "blue.png"
    assert answer.matches[0].score == pytest.approx(1, abs=1e-4)
    assert answer.matches[0].probability is answer.likely is None


def test_probabilities_are_those_of_the_calibration(searcher: Searcher, matching: Checkpoint) -> None:
    """Of all images together, computed without the store."""
    assert matching.calibration is not None
    [query] = searcher.vectors.texts(["a red square"])
    found = searcher.store.nearest(query, "image", 4)
    model: Any = matching.model
    scaled = model.logit_scale.exp().item() * np.array([one.cosine for one in found])
    ratio = scaled - np.log(np.exp(scaled).mean())
    odds = np.exp(matching.calibration.slope * ratio + matching.calibration.offset) / 4
    expected = odds / (1 + odds)
    assert [match.probability for match in searcher.search("a red square").matches] == pytest.approx(expected, rel=1e-3)


def test_nonsense_is_refused(searcher: Searcher, tmp_path: Path, vectors: ImageTextVectors) -> None:
    with pytest.raises(UsageError, match="the query is empty"):
        searcher.search("  ")
    with pytest.raises(UsageError, match="at least one match must be asked for, not 0"):
        searcher.search("red", most=0)
    with pytest.raises(UsageError, match="the index holds no images"):
        Searcher(open_store(tmp_path / "empty", create=True), vectors).search("red")


def test_the_calibration_is_saved_beside_the_model(matching: Checkpoint) -> None:
    found = json.loads((matching.folder / "calibration.json").read_text())
    assert matching.calibration is not None
    assert found == {"slope": matching.calibration.slope, "offset": matching.calibration.offset}
    assert matching.calibration.slope > 0
