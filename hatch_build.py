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

COMMON = "-O3 -std=c++17 -fPIC -fopenmp -mfma".split()
KINDS = {
    "avx512": "-mprefer-vector-width=512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mavx512vnni".split(),
    "avx2": "-mprefer-vector-width=256 -mavx2".split(),
}
"""The flags for each kind of processor; ``sensorium.native`` takes the first that this one can run."""


class Kernels(BuildHookInterface):  # type: ignore[type-arg]
    """``src/sensorium/native/*.cpp`` → ``_stack_avx512.so`` and ``_stack_avx2.so`` beside them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is made, an editable one too."""
        folder = Path(self.root) / "src" / "sensorium" / "native"
        compiler = os.environ.get("CXX") or shutil.which("g++")
        if compiler is None or platform.system() != "Linux" or platform.machine() != "x86_64":
            return
        try:
            failed = _compile(compiler, sorted(folder.glob("*.cpp")), folder)
        except OSError as error:
            failed = str(error)
        if failed:
            self.app.display_warning(f"the kernels were not compiled: {failed[-500:]}")
            return
        build_data["artifacts"] += [f"src/sensorium/native/_stack_{kind}.so" for kind in KINDS]
        build_data["pure_python"], build_data["infer_tag"] = False, True


def _compile(compiler: str, sources: list[Path], folder: Path) -> str:
    """Both libraries, or what the compiler said; those that were there stay if it fails."""
    with tempfile.TemporaryDirectory() as objects, ThreadPoolExecutor(os.cpu_count()) as pool:
        # A process a file: one after the other they take minutes.
        parts = {kind: [str(Path(objects) / f"{source.stem}.{kind}.o") for source in sources] for kind in KINDS}
        fresh = {kind: folder / f"_stack_{kind}.so.new" for kind in KINDS}
        done = list(pool.map(_run, [
            [compiler, *COMMON, *KINDS[kind], "-c", str(source), "-o", to]
            for kind in KINDS for source, to in zip(sources, parts[kind], strict=True)
        ]))  # fmt: skip
        done += [_run([compiler, "-shared", "-fopenmp", *parts[kind], "-o", str(fresh[kind])]) for kind in KINDS]
        if failed := [result for result in done if result.returncode]:
            return failed[0].stderr
        for path in fresh.values():
            os.replace(path, path.with_suffix(""))  # a process may have the old one open
    return ""


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace")
