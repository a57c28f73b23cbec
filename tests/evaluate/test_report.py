"""The page: whole with parts missing, alone without the network, and safe with hostile text."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="the report page needs the extra 'report'")

from sensorium.errors import UsageError
from sensorium.evaluate import Evaluation, Settings, compare, evaluate_classification, write_report
from sensorium.evaluate.evaluation import Leakage
from sensorium.evaluate.report import forest, render_report

VOID = {"meta", "br", "wbr", "img", "link", "input"}
Evaluated = Callable[..., Evaluation]


class Page(HTMLParser):
    """Every element and attribute of a page; fails on elements left open or closed twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def log(steps: int) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = [{"kind": "train", "step": step, "loss": 3 / step} for step in range(1, steps)]
    return [*entries, {"kind": "validation", "step": steps, "loss": 0.5}, {"kind": "train", "step": steps}]


def test_the_figures_on_the_page_are_those_of_the_evaluation(evaluated: Evaluated) -> None:
    evaluation = evaluated(model="small", train=None)
    page = Page(render_report([evaluation], training_logs={"run": log(30)}, title="Reviews"))
    accuracy = evaluation.headline_estimate
    assert f"{accuracy.value * 100:.1f} %" in page.text
    assert f"95% interval {accuracy.low * 100:.1f} – {accuracy.high * 100:.1f}, from 60 items" in page.text
    assert f"{evaluation.metrics['matthews_correlation'].value:.3f}" in page.text
    assert evaluation.confusion is not None
    cells = [dict(a) for tag, a in page.elements if tag == "td" and "--share" in (a.get("style") or "")]
    assert len(cells) == 4
    for row in evaluation.confusion.counts:
        assert all(str(count) in page.words for count in row)
    for part in ("Confusion matrix", "Reliability", "Each class", "Mistakes", "Training", "held-out data"):
        assert part in page.text


@pytest.mark.parametrize(
    "missing",
    [
        {"confusion": None},
        {"calibration": ()},
        {"classes": ()},
        {"mistakes": ()},
        {"baselines": (), "comparisons": ()},
        {"comparisons": ()},
        {"smallest_difference": {}},
        {"notes": ()},
        {"leakage": Leakage(num_training=5, num_items=60, exact=2, near=1, examples=(("a", "b"),))},
        {"leakage": Leakage(num_training=5, num_items=60, exact=0, near=0)},
    ],
    ids=lambda missing: "+".join(missing),
)
def test_the_page_is_whole_with_a_part_missing(missing: dict[str, Any], evaluated: Evaluated) -> None:
    page = Page(render_report([replace(evaluated(), **missing)]))
    assert "All metrics" in page.text
    assert "None" not in re.findall(r"\w+", page.text.replace("None of the", ""))


def test_the_page_can_hold_nothing_a_log_without_losses_or_a_log_with_one_step() -> None:
    assert "Nothing was given" in Page(render_report()).text
    assert "no losses" in Page(render_report(training_logs={"run": [{"step": 1, "rate": 0.1}]})).text
    assert "Loss" in Page(render_report(training_logs={"run": [{"step": 1, "loss": 2.5}]})).text
    assert "Loss" in Page(render_report(training_logs={"run": [{"step": 1, "loss": float("nan")}, *log(4)]})).text


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


def test_hostile_text_stays_text() -> None:
    labels = [f"{HOSTILE}{number}" for number in range(3)]
    records = [{"text": f"{HOSTILE} {number}", "label": labels[number % 3]} for number in range(30)]
    evaluation = evaluate_classification(
        lambda texts: [{"label": labels[0], "score": 0.8}] * 30,
        records,
        labels=labels,
        model=HOSTILE,
        dataset=HOSTILE,
        settings=Settings(resamples=200),
    )
    evaluation = replace(evaluation, notes=(HOSTILE,), leakage=Leakage(3, 30, 1, 0, ((HOSTILE, HOSTILE),)))
    wide = replace(
        evaluation,
        confusion=replace(evaluation.confusion, labels=tuple(labels * 5), counts=tuple((1,) * 15 for _ in range(15))),
    )
    text = render_report(
        [evaluation, wide],
        title=HOSTILE,
        training_logs={HOSTILE: [{"step": 1, "losses": {HOSTILE: 1.0}}, {"step": 2, "losses": {HOSTILE: 1.0}}]},
        comparisons=compare(evaluation, wide),
    )
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert HOSTILE in page.text


def test_the_page_needs_nothing_else_and_forbids_scripts(evaluated: Evaluated) -> None:
    text = render_report([evaluated()], training_logs={"run": log(30)})
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", text)
    assert not re.findall(r"url\(|@import|https?://", text)
    (policy,) = [a["content"] for tag, a in Page(text).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'")


def test_several_models_get_a_summary_and_their_tests_are_corrected_together(evaluated: Evaluated) -> None:
    good, poor = evaluated(0.9, model="good"), evaluated(0.75, model="poor")
    comparisons = [one for one in compare(good, poor) if one.metric in ("accuracy", "macro_f1")]
    page = Page(render_report([good, poor], comparisons=comparisons))
    assert "Against the best baseline" in page.text
    assert "corrected for asking 2 questions" in page.text
    anchors = {a["href"] for tag, a in page.elements if tag == "a"}
    ids = {f"#{a['id']}" for _, a in page.elements if "id" in a}
    assert anchors <= ids


def test_many_classes_are_drawn_as_a_map_with_the_most_frequent_confusions() -> None:
    labels = [f"intent_{number}" for number in range(20)]
    records = [{"text": f"text {number}", "label": labels[number % 20]} for number in range(100)]
    said = [{"label": labels[(number + (number % 7 == 0)) % 20], "score": 0.9} for number in range(100)]
    evaluation = evaluate_classification(lambda texts: said, records, labels=labels, settings=Settings(resamples=200))
    page = Page(render_report([evaluation]))
    assert "Most frequent confusions" in page.text
    assert "The other 8 classes" in page.text
    cells = [a for tag, a in page.elements if tag == "rect" and str(a.get("class")).startswith("cell-")]
    assert evaluation.confusion is not None
    assert len(cells) == sum(count > 0 for row in evaluation.confusion.counts for count in row)


def test_the_page_says_the_confidence_that_was_asked_for(evaluated: Evaluated) -> None:
    text = Page(render_report([evaluated(settings=Settings(resamples=200, confidence=0.9))])).text
    assert "90% interval" in text
    assert "95%" not in text.replace("95.0%", "")


def test_positions_on_the_shared_axis_keep_the_order_of_the_values(evaluated: Evaluated) -> None:
    drawn = forest(evaluated())
    for row in drawn.rows:
        assert 0 <= row.low <= row.value <= row.high <= 100
    assert [row.own for row in drawn.rows] == [True, False]


def test_the_page_is_written_whole_into_a_new_folder(tmp_path: Path, evaluated: Evaluated) -> None:
    path = write_report(tmp_path / "new" / "report.html", [evaluated()])
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_without_jinja_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"sensorium\[report\]"):
        render_report()
