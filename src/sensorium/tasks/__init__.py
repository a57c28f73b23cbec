"""Tasks: a user's words in, a user's words out. ``pipeline(task, model)`` finds one."""

from sensorium.tasks._pipeline import call_options, pipeline
from sensorium.tasks._task import UntrainedHeadWarning

__all__ = ["UntrainedHeadWarning", "call_options", "pipeline"]
