from __future__ import annotations

from pathlib import Path

import pytest

from sensorium import native


def best(processor: dict[str, bool], installed: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the library that is taken."""
    for name in installed:
        (folder / name).touch()
    possible = {folder / name: there for name, there in processor.items()}
    monkeypatch.setattr(native, "_possible", lambda: possible)
    return native.best.__wrapped__().name


@pytest.mark.parametrize(
    ("processor", "installed", "taken"),
    [
        ({"avx512": True, "avx2": True}, ["avx512", "avx2"], "avx512"),
        ({"avx512": False, "avx2": True}, ["avx512", "avx2"], "avx2"),
        ({"avx512": True, "avx2": True}, ["avx2"], "avx2"),
    ],
)
def test_the_fastest_kernels_that_are_installed_and_run_here_are_taken(
    processor: dict[str, bool], installed: list[str], taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert best(processor, installed, tmp_path, monkeypatch) == taken


@pytest.mark.parametrize(
    ("processor", "installed", "why"),
    [
        ({"avx512": False, "avx2": False}, ["avx512", "avx2"], "no AVX2"),
        ({"avx512": False, "avx2": True}, ["avx512"], "not installed"),
    ],
)
def test_where_no_kernels_run_it_is_said_why(
    processor: dict[str, bool], installed: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match=why):
        best(processor, installed, tmp_path, monkeypatch)
