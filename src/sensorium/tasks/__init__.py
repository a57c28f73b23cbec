"""Tasks: a user's words in, a user's words out. ``pipeline(task, model)`` finds one."""

from sensorium.tasks._pipeline import pipeline
from sensorium.tasks._task import UntrainedHeadWarning

__all__ = ["UntrainedHeadWarning", "pipeline"]
