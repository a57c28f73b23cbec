"""Where a checkpoint lies: a folder, a GGUF file, or a name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from sensorium.errors import CheckpointError

GGUF = ".gguf"
HUB_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.spm", "*.safetensors")
"""Of a snapshot and its folders."""


def find_folder(name_or_path: str | Path) -> Path:
    """A local folder or GGUF file, or the hub's snapshot of that name, downloaded if need be.

    Raises ``CheckpointError`` where there is neither.
    """
    local = Path(name_or_path).expanduser()
    if local.is_dir() or (local.is_file() and local.suffix == GGUF):
        return local
    name = str(name_or_path)
    if local.exists() or isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(f"{name}: there is no such checkpoint folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{name}: no local folder of that name, and the hub did not give it ({type(error).__name__}); check the "
            "name and the connection, or pass the path of a downloaded folder"
        ) from error


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that a path means, ``None`` for a folder in the published form. Raises ``CheckpointError``."""
    if path.is_file():
        return path
    files = sorted(path.glob(f"*{GGUF}"))
    if not files or (path / "config.json").is_file() or any(path.glob("*.safetensors")):
        return None
    if len(files) > 1:
        raise CheckpointError(f"{path}: holds {len(files)} GGUF files; give the path of one, such as {files[0].name}")
    return files[0]
