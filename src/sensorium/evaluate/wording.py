"""How figures are said: on the report page and in EVIDENCE.md, the same words for the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sensorium.evaluate.evaluation import LOWER_IS_BETTER, SHARES, TITLES, Comparison, Evaluation
from sensorium.evaluate.statistics import Estimate

Kind = Literal["good", "bad", "unclear"]


@dataclass(frozen=True)
class Verdict:
    """What a comparison shows, long and short."""

    kind: Kind
    sentence: str
    short: str


def metric_title(metric: str) -> str:
    """A metric's name on a page.

    >>> metric_title("macro_f1")
    'F1, macro'
    """
    return TITLES.get(metric, metric.replace("_", " ").capitalize())


def number(amount: float, metric: str) -> str:
    """A value of a metric, without its unit: per cent to one decimal, else three digits.

    >>> number(0.9315, "accuracy"), number(41.2345, "perplexity"), number(0.51234, "spearman")
    ('93.2', '41.2', '0.512')
    """
    if metric in SHARES:
        return f"{amount * 100:.1f}".replace("-", "−")
    digits = 3 if abs(amount) <= 1 else 2 if abs(amount) < 10 else 1
    return f"{amount:,.{digits}f}".replace("-", "−")


def value(estimate: Estimate, metric: str) -> str:
    """The value with its unit.

    >>> value(Estimate(0.9315, 0.92, 0.94, 1000, 0.004), "accuracy")
    '93.2%'
    """
    return number(estimate.value, metric) + _unit(metric)


def interval(estimate: Estimate, metric: str) -> str:
    """The interval without the unit; a dash where a single item, or items all alike, allow none.

    >>> interval(Estimate(0.9315, 0.92, 0.94, 1000, 0.004), "accuracy")
    '92.0 – 94.0'
    """
    if estimate.method == "none":
        return "–"
    return f"{number(estimate.low, metric)} – {number(estimate.high, metric)}"


def interval_words(estimate: Estimate, metric: str) -> str:
    """The interval as a sentence's end, with the number of items."""
    items = f"{estimate.n:,} item{'' if estimate.n == 1 else 's'}"
    if estimate.method == "none":
        return f"{items}; no interval can be drawn from them"
    return f"{estimate.confidence:.0%} interval {interval(estimate, metric)}, from {items}"


def amount(size: float, metric: str) -> str:
    """A difference without sign: per cent differ by points.

    >>> amount(0.0123, "accuracy"), amount(1.5, "perplexity")
    ('1.2 points', '1.50')
    """
    return number(size, metric) + (" points" if metric in SHARES else "")


def difference(comparison: Comparison) -> str:
    """A signed difference, "+1.2" points or units."""
    return _signed(comparison.difference.value, comparison.metric)


def difference_interval(comparison: Comparison) -> str:
    """The interval of a difference, signed."""
    found = comparison.difference
    return f"{_signed(found.low, comparison.metric)} to {_signed(found.high, comparison.metric)}"


def p_value(probability: float) -> str:
    """A p-value with no more digits than it deserves.

    >>> p_value(0.00003), p_value(0.0312), p_value(0.4)
    ('< 0.001', '0.031', '0.40')
    """
    if probability < 0.001:
        return "< 0.001"
    return f"{probability:.3f}" if probability < 0.1 else f"{probability:.2f}"


def reading(comparison: Comparison, probability: float) -> str:
    """What a comparison shows, in two or three words."""
    if probability >= 1 - comparison.difference.confidence:
        return "no difference shown"
    better = (comparison.difference.value > 0) != (comparison.metric in LOWER_IS_BETTER)
    return "first is better" if better else "second is better"


def verdict(evaluation: Evaluation) -> Verdict:
    """The model against the strongest baseline, on the headline metric."""
    metric = evaluation.headline
    sign = -1 if metric in LOWER_IS_BETTER else 1
    rivals = [one for one in evaluation.baselines if metric in one.metrics]
    tests = {one.b: one for one in evaluation.comparisons if one.metric == metric and one.a == evaluation.model}
    if not rivals or not tests:
        return Verdict("unclear", "Compared with no baseline.", "no baseline")
    strongest = max((one for one in rivals if one.name in tests), key=lambda one: sign * one.metrics[metric].value)
    test = tests[strongest.name]
    found, probability = test.difference, test.p_value
    said = p_value(probability)
    p_words = (f"p {said}" if said.startswith("<") else f"p = {said}").replace(" ", "\N{NO-BREAK SPACE}")
    size = amount(abs(found.value), metric)
    if probability >= 1 - found.confidence:
        sentence = (
            f"Cannot be told from {strongest.name}: the difference is {_signed(found.value, metric)} "
            f"({difference_interval(test)}, {p_words}), and these items show differences from about "
            f"{amount(found.smallest, metric)} on."
        )
        return Verdict("unclear", sentence, f"cannot be told from {strongest.name}")
    better = sign * found.value > 0
    side = "better" if better else "worse"
    sentence = f"{size} {side} than {strongest.name} ({difference_interval(test)}, paired, {p_words})."
    return Verdict("good" if better else "bad", sentence, f"{size} {side} than {strongest.name}")


def leakage_words(evaluation: Evaluation) -> list[tuple[Kind, str]]:
    """What is known of leakage, as sentences with their kind."""
    found = evaluation.leakage
    if found is None:
        return [("unclear", "Leakage was not checked: no training data was given.")]
    leaked = found.exact + found.near
    if not leaked:
        checked = f"{found.num_training:,} training texts"
        return [("good", f"None of the {found.num_items:,} texts stands in the {checked}, nor nearly.")]
    sentence = (
        f"{leaked:,} of {found.num_items:,} texts ({leaked / found.num_items:.1%}) also stand in the training data: "
        f"{found.exact:,} exactly, {found.near:,} nearly."
    )
    if found.clean is not None:
        metric = evaluation.headline
        sentence += f" Without them: {value(found.clean, metric)} ({interval(found.clean, metric)})."
    return [("bad", sentence)]


def duration(seconds: float) -> str:
    """Seconds in the unit one would say.

    >>> duration(0.042), duration(75), duration(7300)
    ('0.04 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))


def _unit(metric: str) -> str:
    return "%" if metric in SHARES else ""


def _signed(size: float, metric: str) -> str:
    text = number(abs(size), metric)
    return text if float(text.replace(",", "")) == 0 else ("+" if size > 0 else "−") + text
