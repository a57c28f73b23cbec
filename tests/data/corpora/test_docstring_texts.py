"""Docstrings and their summaries: nothing of one side stands on another."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.data.corpora import docstrings
from sensorium.data.corpora.docstring_texts import all_docstrings, docstring_summaries, package_docstrings, summary_pair
from sensorium.data.corpora.sides import SIDES, side_of
from sensorium.data.splits import normalise
from sensorium.errors import UsageError

BODY = "The value is looked up in the table of the run, and in that of the run before it where there is none. " * 2


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A library and 60 packages, each with a text of its own, one they share, and one that is nearly shared."""
    library, packages = tmp_path / "library", tmp_path / "packages"
    for folder in (library / "test", packages):
        folder.mkdir(parents=True)
    (library / "a.py").write_text(f'"""Look a value of the library up.\n\n{BODY} In the library.\n"""\n')
    (library / "test" / "b.py").write_text(f'"""Test it.\n\n{BODY} In a test.\n"""\n')
    for number in range(60):
        own = packages / f"package{number}"
        own.mkdir()
        (own / "__init__.py").write_text(
            f'"""Look a value of package {number} up.\n\n{BODY} Package {number}.\n"""\n'
            f'class A:\n    def b(self):\n        """Close the shared thing.\n\n        {BODY} Shared.\n        """\n'
        )
        (own / "broken.py").write_text("def (:\n")
    monkeypatch.setattr("sensorium.data.corpora.docstring_texts.standard_library", lambda: library)
    monkeypatch.setattr("sensorium.data.corpora.docstring_texts.site_packages", lambda: packages)
    return library, packages


def test_every_docstring_is_found_once_and_tests_and_broken_files_are_passed_over(folders: tuple[Path, Path]) -> None:
    records = all_docstrings()
    assert len(records) == 62
    assert records[0]["package"] == "python"
    assert sum("Shared" in record["text"] for record in records) == 1
    assert not any("In a test" in record["text"] for record in records)


@pytest.mark.parametrize("read", [docstring_summaries, package_docstrings])
def test_no_package_and_no_text_is_on_two_sides(folders: tuple[Path, Path], read: object) -> None:
    assert callable(read)
    sides = {side: read(side) for side in SIDES}
    assert all(sides.values())
    assert sum(map(len, sides.values())) == len(read())
    for field in ("package", "text"):
        values = {side: {normalise(record[field]) for record in records} for side, records in sides.items()}
        assert not values["train"] & values["test"]
        assert not values["train"] & values["validation"]
        assert not values["validation"] & values["test"]


def test_the_real_docstrings_of_the_standard_library_make_summaries() -> None:
    pairs = [pair for record in docstrings() if (pair := summary_pair({**record, "package": "python"})) is not None]
    assert len(pairs) > 500
    assert all(normalise(pair["target"]) not in normalise(pair["text"]) for pair in pairs)
    assert all(120 <= len(pair["text"]) <= 1500 and "\n" not in pair["target"] for pair in pairs)


@pytest.mark.parametrize(
    "text",
    [
        f"Say what it does.\n{BODY}",  # the body does not stand apart
        f"Too short\n\n{BODY}",
        f"open(file, mode) -> the file\n\n{BODY}",
        f":class:`A` is for users\n\n{BODY}",
        f"Say what it does.\n\n{BODY} Say what it does.",  # the summary is in the body
        "Say what it does.\n\nThat is all.",
    ],
)
def test_what_is_no_summary_is_left_out(text: str) -> None:
    assert summary_pair({"text": text, "package": "a"}) is None
    assert summary_pair({"text": f"Say what it does.\n\n{BODY}", "package": "a"}) is not None


def test_a_long_body_is_cut_at_a_line() -> None:
    pair = summary_pair({"text": "Say what it does.\n\n" + "A line of the body that goes on.\n" * 200, "package": "a"})
    assert pair is not None
    assert 1400 < len(pair["text"]) <= 1500
    assert pair["text"].endswith("goes on.")


def test_a_side_is_decided_by_the_key_and_takes_its_share() -> None:
    sides = [side_of(str(number), 0.1) for number in range(5000)]
    assert sides == [side_of(str(number), 0.1) for number in range(5000)]
    assert 400 < sides.count("test") < 600
    assert 400 < sides.count("validation") < 600
    with pytest.raises(UsageError, match="train, validation, test, or left out; not 'dev'"):
        docstring_summaries("dev")
