"""Compiles the kernels when Sensorium is installed; without a compiler, or on another processor, it goes on without."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = """
    -O3 -std=c++17 -fPIC -fopenmp -mprefer-vector-width=512 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq
    -mavx512bf16 -mavx512vnni
""".split()


class Kernels(BuildHookInterface):  # type: ignore[type-arg]
    """``src/sensorium/native/*.cpp`` → ``_stack.so`` beside them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is made, an editable one too."""
        folder = Path(self.root) / "src" / "sensorium" / "native"
        compiler = os.environ.get("CXX") or shutil.which("g++")
        if compiler is None or platform.system() != "Linux" or platform.machine() != "x86_64":
            return
        fresh, library = folder / "_stack.so.new", folder / "_stack.so"
        with tempfile.TemporaryDirectory() as objects:
            sources = sorted(folder.glob("*.cpp"))
            compiled = [str(Path(objects) / f"{source.stem}.o") for source in sources]
            try:
                # One process a file: together they take more than a minute.
                commands = [
                    [compiler, *FLAGS, "-c", str(source), "-o", target]
                    for source, target in zip(sources, compiled, strict=True)
                ]
                with ThreadPoolExecutor() as pool:
                    done = list(pool.map(_run, commands))
                done.append(_run([compiler, "-shared", "-fopenmp", *compiled, "-o", str(fresh)]))
            except OSError as error:
                self.app.display_warning(f"the kernels were not compiled: {error}")
                return
        if failed := [result for result in done if result.returncode]:
            self.app.display_warning(f"the kernels were not compiled: {failed[0].stderr[-500:]}")
            return
        os.replace(fresh, library)  # a process may have the old one open
        build_data["artifacts"].append(str(library.relative_to(self.root)))
        build_data["pure_python"], build_data["infer_tag"] = False, True


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace")
