"""The main job, on real text: from nothing to a measured model, in minutes, on a CPU."""

from sensorium.demo.story import run_demo

__all__ = ["run_demo"]
