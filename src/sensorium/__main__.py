"""``python -m sensorium``: the command line."""

from __future__ import annotations

from sensorium.cli import main

if __name__ == "__main__":
    main()
