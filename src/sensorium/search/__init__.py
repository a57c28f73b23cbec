"""Search: an index on disk of a folder's images and texts, and what answers from it."""

from sensorium.search.index import Report, update_index
from sensorium.search.searcher import Answer, Match, Searcher
from sensorium.search.store import open_store

__all__ = ["Answer", "Match", "Report", "Searcher", "open_store", "update_index"]
