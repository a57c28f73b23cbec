"""The door: what is wrong is one line and exit status 2, and nothing unexpected is hidden."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest

import sensorium
from sensorium import cli
from sensorium.errors import DataError


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a command in the place of `info` that ends with this error."""

    def info() -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "info", info)


def test_help_names_every_command(call: Any) -> None:
    answer = call("--help")
    assert answer.status == 0
    assert all(name in answer.out for name in [*cli.COMMANDS, *cli.GROUPS])


@pytest.mark.parametrize("command", [*cli.COMMANDS, *cli.GROUPS])
def test_every_command_explains_itself(command: str, call: Any) -> None:
    answer = call(command, "--help")
    assert answer.status == 0
    assert len(answer.out.splitlines()) > 4


def test_version(call: Any) -> None:
    assert call("--version") == (0, f"sensorium {sensorium.__version__}\n", "")


@pytest.mark.parametrize("error", [DataError("rows.csv:3: no label"), FileNotFoundError(2, "No such file", "rows.csv")])
def test_an_error_raised_on_purpose_is_one_line_and_exit_2(
    error: Exception, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(error, monkeypatch)
    assert call("info") == (2, "", f"sensorium: {error}\n")


@pytest.mark.parametrize(
    ("arguments", "error"), [(["-v", "info"], DataError("no label")), (["info"], ZeroDivisionError("ours"))]
)
def test_the_traceback_is_there_where_it_is_asked_for_or_the_defect_is_ours(
    arguments: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(error, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["sensorium", *arguments])
    with pytest.raises(type(error), match=str(error)):
        cli.main()


def test_ctrl_c_ends_quietly_with_130(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(KeyboardInterrupt(), monkeypatch)
    answer = call("info")
    assert answer.status == 130
    assert "Traceback" not in answer.err


def test_a_warning_is_one_line(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def info() -> None:
        warnings.warn("the head is untrained", stacklevel=1)

    monkeypatch.setitem(cli.COMMANDS, "info", info)
    warnings.simplefilter("default")
    assert call("info") == (0, "", "sensorium: warning: the head is untrained\n")


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["no-such-command"], ["info"], ["info", "a", "b"]])
def test_a_wrong_command_line_is_exit_2(arguments: list[str], call: Any) -> None:
    answer = call(*arguments)
    assert answer.status == 2
    assert "Error: " in answer.err
    assert "Traceback" not in answer.err
