"""Decode workers: what strangers wrote is worked on in a process of its own, with limits of time, memory and output.

A ``Worker`` runs one named function in a child process that stays warm between calls, so that a call costs a fraction
of a millisecond. Arguments and answers cross as JSON, never pickled, with bytes beside an answer where there are many;
a child that goes over a limit is killed and replaced, and the caller gets one clear sentence. A ``WorkerPool`` has
several such children, and makes many calls side by side.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sensorium.errors import SensoriumError, UsageError

AHEAD = 2
"""Calls of a pool that are begun before their answers are asked for, for each of its children."""
START_SECONDS = 60.0
"""For a child to begin and to import its function."""
MOST_CHARACTERS = 300
"""Of what a function says about its failure."""
PASSED_ON = ("LD_LIBRARY_PATH", "TZ")
"""Variables of the environment that a child gets; no other, so that there are no secrets in it."""


@dataclass(frozen=True)
class Limits:
    """What one call may use."""

    seconds: float = 5.0
    memory: int = 256 * 2**20
    """Bytes beyond those that the child holds before its first call. Held on Linux alone."""
    output: int = 4 * 2**20
    """Bytes of the answer as JSON, and of those beside it."""


class Worker:
    """Calls a function in a child process: ``Worker(render, what="the chat template")(template, messages)``.

    The function stands at the top of a module, takes JSON values and gives one, or a pair of one and bytes. Threads may
    share a worker; their calls follow one another.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        what: str,
        limits: Limits | None = None,
        error: type[SensoriumError] = UsageError,
    ) -> None:
        """``what`` begins the sentences about failures, which are raised as ``error``."""
        self.name = (function.__module__, function.__qualname__)
        if getattr(import_module(self.name[0]), self.name[1], None) is not function:
            raise UsageError(f"{'.'.join(self.name)} does not stand at the top of its module; a worker can't find it")
        self.what, self.limits, self.error = what, limits or Limits(), error
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._close: Callable[[], object] = _nothing
        self._owner = 0

    def __call__(self, *arguments: Any) -> Any:
        """The function's answer. Raises ``error`` where it fails or goes over a limit."""
        request = json.dumps(arguments).encode()
        with self._lock:
            process = self._ready()
            try:
                deadline = time.monotonic() + self.limits.seconds
                _send(process, request, deadline)
                answer = json.loads(_receive(process, self.limits.output + 1024, deadline))
                beside = _receive(process, self.limits.output, deadline) if answer.get("bytes") else b""
            except TimeoutError as problem:
                self.close()
                raise self._failure(f"took longer than {self.limits.seconds:g} seconds and was stopped") from problem
            except (OSError, EOFError, ValueError, RecursionError) as problem:
                raise self._failure(f"ended its process ({self._ending(process)})") from problem
            except BaseException:  # Ctrl-C: the answer to this call must not be taken for that to the next
                self.close()
                raise
            if answer.get("spent"):
                self.close()
        if "value" in answer:
            return (answer["value"], beside) if answer.get("bytes") else answer["value"]
        raise self._failure(str(answer.get("problem")))

    def close(self) -> None:
        """End the child, if there is one; the next call begins another."""
        self._close()
        self._process, self._close = None, _nothing

    def _failure(self, problem: str) -> SensoriumError:
        return self.error(f"{self.what} {problem}")

    def _ready(self) -> subprocess.Popen[bytes]:
        """The child, begun if need be. One that a parent process began is not ours to use."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self.close()
        process = _start(self.name, self.limits)
        self._process, self._owner = process, os.getpid()
        self._close = weakref.finalize(self, _stop, process, self._owner)
        try:
            _receive(process, 1024, time.monotonic() + START_SECONDS)
        except (TimeoutError, EOFError, OSError) as problem:
            raise self._failure(f"could not be begun in a process of its own ({self._ending(process)})") from problem
        return process

    def _ending(self, process: subprocess.Popen[bytes]) -> str:
        """How a child that no longer answers ended, in a word."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        code = process.poll()
        self.close()
        if code is None:
            return "it answers no more"
        return f"status {code}" if code >= 0 else signal.Signals(-code).name


class WorkerPool:
    """Up to ``size`` children for one function; each begins when all that are there are busy.

    Threads may share a pool: a call takes a child that is free, the one used last first, or waits for one.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        size: int,
        *,
        what: str,
        limits: Limits | None = None,
        error: type[SensoriumError] = UsageError,
    ) -> None:
        """As ``Worker``."""
        self.workers = [Worker(function, what=what, limits=limits, error=error) for _ in range(size)]
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in reversed(self.workers):
            self._free.put(worker)

    def __call__(self, *arguments: Any) -> Any:
        """The function's answer. Raises as ``Worker``: whatever befalls one child, the others go on."""
        worker = self._free.get()
        try:
            return worker(*arguments)
        finally:
            self._free.put(worker)

    def map(self, function: Callable[..., Any], calls: Iterable[Any]) -> Iterator[Any]:
        """``function(call)`` of each call, in their order, as many at once as there are children.

        ``function`` is the caller's, in a thread here, and calls the pool. ``calls`` may be without end: a few are
        looked at ahead. What ``function`` raises, the iteration raises in its place.
        """
        threads = ThreadPoolExecutor(len(self.workers), thread_name_prefix="worker-pool")
        begun: deque[Future[Any]] = deque()
        try:
            for call in calls:
                begun.append(threads.submit(function, call))
                if len(begun) >= AHEAD * len(self.workers):
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """End all children; the next call begins another."""
        for worker in self.workers:
            worker.close()


# --- the parent's side -----------------------------------------------------------------------------------------------


def _start(name: tuple[str, str], limits: Limits) -> subprocess.Popen[bytes]:
    paths = [os.path.abspath(path) for path in sys.path if path]
    passed = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
    process = subprocess.Popen(
        [
            sys.executable, "-P", "-c", "from sensorium.worker import serve; serve()",
            *name, str(limits.seconds), str(limits.memory), str(limits.output),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**passed, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C is for us
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    os.set_blocking(process.stdin.fileno(), False)
    os.set_blocking(process.stdout.fileno(), False)
    return process


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _nothing() -> None:
    """There is no child to end."""


def _send(process: subprocess.Popen[bytes], message: bytes, deadline: float) -> None:
    """Write a length and a message. Raises ``TimeoutError`` when the child does not take them in time."""
    assert process.stdin is not None
    left = memoryview(struct.pack("<Q", len(message)) + message)
    while left:
        _wait(process.stdin.fileno(), select.POLLOUT, deadline)
        left = left[os.write(process.stdin.fileno(), left) :]


def _receive(process: subprocess.Popen[bytes], most: int, deadline: float) -> bytes:
    """Read a length and a message. Raises ``TimeoutError``, and ``EOFError`` when the child has ended or lies."""
    assert process.stdout is not None
    received, wanted = bytearray(), 8
    while len(received) < wanted:
        _wait(process.stdout.fileno(), select.POLLIN, deadline)
        piece = os.read(process.stdout.fileno(), min(2**16, wanted - len(received)))
        if not piece:
            raise EOFError
        received += piece
        if wanted == 8 and len(received) == 8:
            wanted += struct.unpack("<Q", received)[0]
            if wanted - 8 > most:
                raise EOFError
    return bytes(received[8:])


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


# --- the child's side ------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer calls until the pipe is closed: the whole life of a child."""
    module, name, seconds, memory, output = sys.argv[1:]
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # what the function prints is no answer
        os.dup2(nowhere, descriptor)
    function = getattr(import_module(module), name)
    _limit(int(memory))
    _answer(answers, b"{}")
    while len(head := requests.read(8)) == 8:
        arguments = json.loads(requests.read(struct.unpack("<Q", head)[0]))
        _limit_time(float(seconds))
        for message in _call(function, arguments, int(output)):
            _answer(answers, message)


def _call(function: Callable[..., Any], arguments: list[Any], most: int) -> list[bytes]:
    """The answer as JSON: ``value``, or ``problem``; ``spent`` where the child should be replaced; ``bytes`` where a
    second message holds the bytes beside the value.
    """
    try:
        value = function(*arguments)
        beside = []
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], bytes):
            value, beside = value[0], [value[1]]
        answer = json.dumps({"value": value, "bytes": bool(beside)}).encode()
        if len(answer) + sum(map(len, beside)) <= most:
            return [answer, *beside]
        problem, spent = f"gave more than {most:,} bytes", True
    except MemoryError:
        problem, spent = "needed more memory than it may have and was stopped", True
    except RecursionError:
        problem, spent = "nests too deeply", True
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:MOST_CHARACTERS]
        problem, spent = f"failed: {said}", False
    return [json.dumps({"problem": problem, "spent": spent}).encode()]


def _answer(answers: Any, message: bytes) -> None:
    answers.write(struct.pack("<Q", len(message)) + message)
    answers.flush()


def _limit(memory: int) -> None:
    """For good: memory, no core files, nothing written to disk, no processes."""
    import resource

    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))


def _limit_time(seconds: float) -> None:
    """For the next call: should the parent be gone, nobody else would end a loop without end."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 2, hard))
