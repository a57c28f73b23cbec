"""The documentation is executed: each page from top to bottom, in a folder with tiny models and nothing else.

A block with a title is a file to write; ``python`` runs in one namespace a page; in ``bash`` each line that begins with
``sensorium`` is run. Anything else (``text``, ``console``) is only to be read.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.DOTALL | re.MULTILINE)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if BLOCK.search(page.read_text(encoding="utf-8"))]


def run_commands(code: str, folder: Path) -> None:
    """Run the lines that call sensorium, with this interpreter."""
    for line in code.replace("\\\n", " ").splitlines():
        if line.startswith("sensorium "):
            command = [sys.executable, "-m", *shlex.split(line, comments=True)]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ, timeout=300)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
@pytest.mark.filterwarnings("ignore::sensorium.tasks.UntrainedHeadWarning")
def test_page_runs(page: Path, tiny_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    shutil.copytree(tiny_hub, folder)
    monkeypatch.chdir(folder)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        language, title, code = block["language"], block["title"], block["code"]
        if title:
            path = folder / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
        elif language == "python":
            exec(compile(code, str(page), "exec"), namespace)
        elif language == "bash":
            run_commands(code, folder)


def test_every_decision_is_listed() -> None:
    index = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (DOCS / "decisions").glob("*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()
