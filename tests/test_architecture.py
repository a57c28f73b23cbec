"""Who may import whom, what `import sensorium` may load, how long a file may be, and what the public names are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sensorium

SOURCE = Path(sensorium.__file__).parent
FACE = SOURCE / "__init__.py"  # names rooms, and loads them only when asked
MODULES = sorted(SOURCE.rglob("*.py"))
ROOMS = [path for path in MODULES if path != FACE]

# The drawing of docs/architecture.md as a table: a room (a module or a folder of src/sensorium) and the rooms it may
# import. Arrows go down only, and rooms on one line do not see each other.
GROUND = {
    "errors", "config", "packed", "cost", "storage", "text", "image", "sentence", "machine", "native", "gguf", "worker",
    "finding", "calibration",
}  # fmt: skip
CHECKPOINT = GROUND | {"nn", "models", "families", "data", "adapters", "towers", "checkpoint"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "packed": {"errors"},
    "cost": {"errors", "config"},
    "machine": set(),
    "native": set(),
    "storage": {"errors"},
    "sentence": {"errors", "storage"},
    "finding": {"errors"},
    "calibration": {"errors", "storage"},
    "gguf": {"errors"},
    "worker": {"errors"},
    "text": {"errors", "storage", "worker"},
    "image": {"errors", "machine", "packed", "storage", "worker"},
    "nn": GROUND,
    "models": GROUND | {"nn"},
    "families": GROUND,
    "data": GROUND,
    "adapters": GROUND | {"nn", "models", "families"},
    "towers": GROUND | {"nn", "models"},
    "checkpoint": GROUND | {"nn", "models", "families", "adapters", "towers"},
    "infer": CHECKPOINT,
    "objectives": CHECKPOINT,
    "tasks": CHECKPOINT | {"infer"},
    "search": CHECKPOINT | {"infer", "tasks"},
    "train": CHECKPOINT | {"objectives"},
    "evaluate": CHECKPOINT | {"infer", "tasks"},
    "demo": CHECKPOINT | {"infer", "tasks", "objectives", "train", "evaluate"},
    "cli": CHECKPOINT | {"infer", "tasks", "search", "objectives", "train", "evaluate", "demo"},
    "__main__": {"cli"},
}
TORCH_FREE = {"errors", "config"}
"""Rooms that never name torch: they answer before it is loaded."""

PUBLIC_NAMES = {
    "CheckpointError",
    "DataError",
    "Packed",
    "SensoriumError",
    "TrainingError",
    "UsageError",
    "__version__",
    "open_checkpoint",
    "pipeline",
    "save_checkpoint",
}
LINES_CEILING = 400


def room_of(path: Path) -> str:
    """`train/loop.py` → `train`, `cost.py` → `cost`."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module a file imports, wherever in the file, with its line: lazily imported ones are arrows too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole module name, not a relative one"
            if node.module == "sensorium":  # a room, or a public name: then the room it lives in
                homes = sensorium._HOMES
                yield from ((node.lineno, homes.get(a.name, f"sensorium.{a.name}")) for a in node.names)
            elif node.module is not None:
                yield node.lineno, node.module


def arrows(path: Path) -> Iterator[tuple[int, str]]:
    """The rooms a file imports, with the line; its own room and the package's version left out."""
    for line, module in imported(path):
        package, _, inner = module.partition(".")
        room = inner.split(".")[0]
        if package == "sensorium" and room not in ("", "__version__", room_of(path)):
            yield line, room


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = room_of(path)
    assert own in MAY_IMPORT, f"{own} is a new room: say in MAY_IMPORT, and in docs/architecture.md, where it stands"
    wrong = [f"line {line}: {own} → {room}" for line, room in arrows(path) if room not in MAY_IMPORT[own]]
    assert not wrong, f"{path}: arrows that point up or sideways: {wrong}"


def test_the_allowed_arrows_hold_no_circle() -> None:
    left = {room: set(below) for room, below in MAY_IMPORT.items()}
    while left:
        ground = {room for room, below in left.items() if not below & left.keys()}
        assert ground, f"a circle among {sorted(left)}"
        left = {room: below for room, below in left.items() if room not in ground}


@pytest.mark.parametrize("room", sorted(TORCH_FREE))
def test_rooms_that_must_answer_before_torch_is_loaded_never_name_it(room: str) -> None:
    files = [path for path in ROOMS if room_of(path) == room]
    assert files
    assert not [module for path in files for _, module in imported(path) if module.split(".")[0] == "torch"]


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a statement loads in a fresh interpreter, beyond the standard library."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)


def test_importing_sensorium_loads_nothing_but_itself() -> None:
    assert loaded_by("import sensorium") == {"sensorium"}


def test_importing_the_errors_loads_nothing_but_sensorium() -> None:
    assert loaded_by("from sensorium import SensoriumError, DataError") == {"sensorium"}


def test_the_command_line_starts_without_torch() -> None:
    heavy = {"torch", "numpy", "tokenizers", "safetensors", "huggingface_hub", "pydantic", "rich", "sklearn", "pyarrow"}
    assert not loaded_by("import sensorium.cli") & heavy


def test_public_names() -> None:
    assert set(sensorium.__all__) == PUBLIC_NAMES == set(dir(sensorium))


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(sensorium, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pipelines'"):
        sensorium.pipelines  # noqa: B018


def test_no_file_is_longer_than_the_ceiling(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = sorted(((len(path.read_text(encoding="utf-8").splitlines()), path) for path in MODULES), reverse=True)
    with capsys.disabled():
        print(f"\n{sum(lines for lines, _ in sizes)} lines in {len(sizes)} files; the longest:")
        for lines, path in sizes[:10]:
            print(f"  {lines:4d}  {path.relative_to(SOURCE)}")
    assert [str(path) for lines, path in sizes if lines > LINES_CEILING] == []
