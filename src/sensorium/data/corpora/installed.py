"""Files of installed packages, found without importing their code."""

from __future__ import annotations

import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from sensorium.errors import UsageError, missing_extra


def installed_file(package: str, name: str, *, extra: str = "demo") -> Path:
    """A file or folder of an installed package. Raises ``UsageError`` naming the ``extra`` that brings it."""
    try:
        path = Path(str(distribution(package).locate_file(name)))
    except PackageNotFoundError as error:
        raise missing_extra(package, extra) from error
    if not path.exists():
        raise UsageError(f"{package} is installed, but without {name}; install the version the extra {extra!r} names")
    return path


def standard_library() -> Path:
    """The folder of the standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def site_packages() -> Path:
    """The folder where pure Python packages are installed."""
    return Path(sysconfig.get_paths()["purelib"])
