"""Evaluation texts that the model has seen in training."""

from __future__ import annotations

from collections.abc import Sequence

from sensorium.data.splits import overlap
from sensorium.evaluate import _shared
from sensorium.evaluate._shared import Settings, Text
from sensorium.evaluate.evaluation import Leakage, Measured


def find_leakage(
    training: Sequence[Text] | None, texts: Sequence[Text], part: Measured, settings: Settings, *, metric: int = 0
) -> Leakage | None:
    """Look for each text among the training texts: equal after normalising, or nearly (`sensorium.data.splits`).

    Returns None when there is no training data to look in. ``part`` holds the outcomes of the texts, and its metric
    number ``metric`` is measured again on those that were not found.
    """
    if training is None:
        return None
    found = overlap([_joined(text) for text in training], [_joined(text) for text in texts])
    leaked = {number for _, number in (*found.exact, *found.near)}
    keep = [number not in leaked for number in range(len(texts))]
    clean = None
    if leaked and any(keep):
        rest = Measured(part.names, _shared.subset(part.items, keep), part.statistic, best=part.best)
        clean = _shared.estimate(rest, settings)[part.names[metric]]
    examples = dict.fromkeys((b, a) for a, b in (*found.near, *found.exact))
    return Leakage(
        num_training=len(training),
        num_items=len(texts),
        exact=len({b for _, b in found.exact}),
        near=len(leaked) - len({b for _, b in found.exact}),
        examples=tuple(
            (_shared.shown(texts[b]), _shared.shown(training[a])) for b, a in list(examples)[: settings.examples]
        ),
        clean=clean,
    )


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(text)
