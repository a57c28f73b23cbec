"""The decode worker: what it answers, and what becomes of functions that would never end, eat all memory or fall over.

Most functions are the standard library's, so that the child can find them by name.
"""

from __future__ import annotations

import base64
import io
import json
import math
import operator
import os
import re
import resource
import signal
import sys
import threading
import time
from typing import Any

import pytest
from PIL import Image

from sensorium.errors import CheckpointError, UsageError
from sensorium.image.decode import decode
from sensorium.worker import Limits, Worker, WorkerPool


def worker(function: Any, **limits: Any) -> Worker:
    return Worker(function, what="the sum", limits=Limits(**limits))


def test_a_call_gives_what_the_function_gives() -> None:
    assert worker(operator.add)(["a", 1], [None, {"ü": 2.5}]) == ["a", 1, None, {"ü": 2.5}]
    assert worker(operator.add)("漢\ud800", "\0") == "漢\ud800\0"


def test_bytes_beside_an_answer_come_as_they_are_within_the_limit() -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (1, 2, 255)).save(file, format="PNG")
    data = base64.b64encode(file.getvalue()).decode()
    assert worker(decode)("", data, {}) == ([20, 30], b"\1\2\xff" * 600)
    with pytest.raises(UsageError, match="the sum gave more than 1,800 bytes"):
        worker(decode, output=1800)("", data, {})


def test_calls_share_a_warm_child_and_cost_little() -> None:
    where = worker(os.getpid)
    first = where()
    assert first != os.getpid()
    began = time.perf_counter()
    assert {where() for _ in range(100)} == {first}
    assert (time.perf_counter() - began) / 100 < 0.05


def test_a_failure_is_one_clean_sentence_and_the_child_lives_on() -> None:
    root = worker(math.sqrt)
    with pytest.raises(UsageError, match=r"^the sum failed: (math domain error|expected a nonnegative input.*)$"):
        root(-1.0)
    assert root(4.0) == 2.0


def test_the_error_is_of_the_class_that_was_asked_for() -> None:
    with pytest.raises(CheckpointError, match="the file failed: .*No such file"):
        Worker(os.stat, what="the file", error=CheckpointError)("/nowhere")


ATTACKS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], str]] = {
    "sleeps for ever": (time.sleep, (1e6,), {"seconds": 0.3}, "took longer than 0.3 seconds and was stopped"),
    "counts for ever": (math.factorial, (10**7,), {"seconds": 0.3}, "took longer than 0.3 seconds and was stopped"),
    "backtracks for ever": (
        re.match, (r"(a+)+$", "a" * 40 + "b"), {"seconds": 0.3}, "took longer than 0.3 seconds",
    ),
    "takes all memory": (operator.mul, ("a", 10**10), {}, "needed more memory than it may have"),
    "takes all memory bit by bit": (operator.mul, ([0], 10**9), {}, "needed more memory than it may have"),
    "talks without end": (operator.mul, ("a", 10**7), {"output": 10**6}, "gave more than 1,000,000 bytes"),
    "nests without end": (json.loads, ("[" * 10**6,), {}, "nests too deeply"),
    "falls over": (os.abort, (), {}, r"ended its process \(SIGABRT\)"),
    "leaves": (os._exit, (7,), {}, r"ended its process \(status 7\)"),
    "gives no JSON": (operator.itemgetter, ("a",), {}, "failed: Object of type"),
    "exits": (sys.exit, ("now",), {}, "ended its process"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "limits", "message"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_ends_in_a_sentence_and_the_next_call_is_served(
    function: Any, arguments: tuple[Any, ...], limits: dict[str, Any], message: str
) -> None:
    attacked = worker(function, **{"seconds": 20.0, **limits})
    for _ in range(2):
        with pytest.raises(UsageError, match=f"^the sum {message}") as error:
            attacked(*arguments)
        assert "\n" not in str(error.value)


def test_after_an_attack_the_same_worker_answers() -> None:
    product = worker(operator.mul)
    with pytest.raises(UsageError, match="needed more memory"):
        product("a", 10**10)
    assert product("a", 3) == "aaa"


def test_what_is_printed_is_no_answer() -> None:
    assert worker(print)('{"value": 1}') is None


def test_the_child_writes_no_files_and_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    assert worker(os.getenv)("SECRET_TOKEN") is None
    assert worker(resource.getrlimit)(resource.RLIMIT_FSIZE) == [0, 0]
    assert worker(resource.getrlimit)(resource.RLIMIT_NPROC) == [0, 0]


def test_a_child_that_was_killed_is_replaced() -> None:
    where = worker(os.getpid)
    first = where()
    os.kill(first, signal.SIGKILL)
    time.sleep(0.2)
    assert where() != first


def test_a_closed_worker_begins_again_and_leaves_no_child() -> None:
    where = worker(os.getpid)
    first = where()
    where.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert where() != first


def test_threads_share_a_worker_and_each_gets_its_own_answer() -> None:
    add, answers = worker(operator.add), {}

    def ask(number: int) -> None:
        answers[number] = [add(number, turn) for turn in range(20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [number + turn for turn in range(20)] for number in range(4)}


def test_large_arguments_pass() -> None:
    assert worker(len)("a" * 5_000_000) == 5_000_000


def test_a_child_whose_parent_is_gone_ends_by_itself() -> None:
    limited = worker(resource.getrlimit, seconds=3.0)
    soft, _hard = limited(resource.RLIMIT_CPU)
    assert 3 <= soft <= 10


def test_a_function_that_cannot_be_named_is_refused() -> None:
    with pytest.raises(UsageError, match="does not stand at the top of its module"):
        Worker(lambda: 1, what="nothing")


# --- pools -----------------------------------------------------------------------------------------------------------


def pool(function: Any, size: int = 3, **limits: Any) -> WorkerPool:
    return WorkerPool(function, size, what="the sum", limits=Limits(**limits))


def said(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except UsageError as error:
        return str(error)


def test_a_pool_answers_in_the_order_of_the_calls_from_several_children() -> None:
    sleepers, seconds = pool(time.sleep), [0.3, 0.0, 0.1, 0.0]
    assert list(sleepers.map(lambda one: (sleepers(one), one)[1], seconds)) == seconds
    where = pool(os.getpid)
    assert len(set(where.map(lambda _: (time.sleep(0.05), where())[1], range(12)))) == 3
    assert where() == where()  # one that is warm


def test_a_pool_looks_a_few_calls_ahead_and_takes_calls_without_end() -> None:
    product, seen = pool(operator.mul), []

    def endless() -> Any:
        for number in range(10**9):
            seen.append(number)
            yield number

    answers = product.map(lambda one: product(one, 2), endless())
    assert [next(answers) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(seen) <= 5 + 2 * 3
    answers.close()  # type: ignore[attr-defined]
    assert product(7, 3) == 21


def test_what_befalls_one_child_of_a_pool_costs_the_others_nothing() -> None:
    timed = pool(math.factorial, seconds=1.0)
    answers = list(timed.map(lambda one: said(timed, one), [3, 10**7, 4, 5, -1, 3]))
    assert [answers[i] for i in (0, 2, 3, 5)] == [6, 24, 120, 6]
    assert answers[1] == "the sum took longer than 1 seconds and was stopped"
    assert answers[4] == "the sum failed: factorial() not defined for negative values"
    leaving = pool(os._exit)
    assert list(leaving.map(lambda one: said(leaving, one), [7, 8])) == [
        f"the sum ended its process (status {status})" for status in (7, 8)
    ]
    leaving.close()


def test_what_a_call_raises_is_raised_in_its_place() -> None:
    root = pool(math.sqrt)
    answers = root.map(root, [4.0, -1.0, 9.0])
    assert next(answers) == 2.0
    with pytest.raises(UsageError, match="the sum failed"):
        next(answers)
