"""``sensorium evaluate``: how good a model is, how sure that is, and whether another one is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sensorium.cli._options import Json
from sensorium.errors import UsageError

if TYPE_CHECKING:
    from sensorium.cli._measures import Measure
    from sensorium.evaluate import Comparison, Evaluation


def evaluate(
    task: Annotated[str, typer.Argument(help="text-classification, token-classification, question-answering, …")],
    model: Annotated[str, typer.Option(help="Checkpoint: a folder, or a name on the hub.")],
    data: Annotated[Path, typer.Option(help="Held-out records: txt, csv, tsv, jsonl or parquet, or a folder.")],
    train: Annotated[
        Path | None, typer.Option(help="The training records: for the baselines, and to look for leakage.")
    ] = None,
    compare: Annotated[list[str] | None, typer.Option(help="Another checkpoint, tested against the first.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page of HTML.")] = None,
    evidence: Annotated[bool, typer.Option("--evidence", help="Write EVIDENCE.md beside the model.")] = False,
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    label: Annotated[str, typer.Option(help="Column of the label.")] = "label",
    pair: Annotated[str | None, typer.Option(help="Column of the second text.")] = None,
    image: Annotated[str, typer.Option(help="Column of an image's path, from the folder of the data.")] = "image",
    shots: Annotated[str | None, typer.Option(help="Of few-shot: how many examples are shown, such as 0,1,5.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Of few-shot: how an item is put, {text} being its text.")] = None,
    json: Json = False,
) -> None:
    """Measure a model on held-out data, with intervals, a trivial baseline, and paired tests against other models."""
    from sensorium.cli._measures import RETRIEVAL, measure_of
    from sensorium.data.records import read_records
    from sensorium.evaluate import compare as paired_tests

    measures = _few_shot(shots, prompt) if task == "few-shot" else [measure_of(task)]
    if task != "few-shot" and (shots or prompt):
        raise UsageError(f"--shots and --prompt are of the task few-shot, not of {task}")
    records = read_records(data, text=text, label=label, pair=pair, image=image if task == RETRIEVAL else None)
    training = None if train is None else read_records(train, text=text, label=label, pair=pair)
    names = [model, *(compare or ())]
    first, *others = [measure(name, records, training, str(data)) for name in names for measure in measures]
    comparisons = [test for other in others for test in paired_tests(first, other)]
    if json:
        tests = [asdict(comparison) for comparison in comparisons]
        evaluations = [evaluation.to_json() for evaluation in (first, *others)]
        typer.echo(dumps({"evaluations": evaluations, "comparisons": tests}, ensure_ascii=False, indent=2))
    else:
        for evaluation in (first, *others):
            _show(evaluation)
        _show_comparisons(comparisons)
    _write(first, others, comparisons, report, Path(model) if evidence else None)


def _few_shot(shots: str | None, prompt: str | None) -> list[Measure]:
    """A measure for each number of examples. Raises ``UsageError`` for what is no list of numbers."""
    from sensorium.cli._measures import few_shot

    try:
        numbers = [int(number) for number in (shots or "0").split(",")]
    except ValueError as error:
        raise UsageError(f"--shots is {shots!r}; numbers are expected, such as 0,1,5") from error
    return [few_shot(number, prompt) for number in numbers]


def _write(
    first: Evaluation, others: list[Evaluation], comparisons: list[Comparison], report: Path | None, folder: Path | None
) -> None:
    """The page, and the evidence beside the first model, where they were asked for."""
    if report is not None:
        from sensorium.evaluate.report import write_report

        headline = [test for test in comparisons if test.metric == first.headline]
        path = write_report(report, [first, *others], comparisons=headline, title=f"{first.task} on {first.dataset}")
        typer.echo(f"report: {path}", err=True)
    if folder is not None:
        from sensorium.evaluate.evidence import write_evidence

        typer.echo(f"evidence: {write_evidence(folder, [first], comparisons=comparisons)}", err=True)


def _show(evaluation: Evaluation) -> None:
    from sensorium.evaluate import wording

    typer.echo(f"{evaluation.model} on {evaluation.dataset}: {evaluation.provenance.num_items:,} items")
    names = [baseline.name for baseline in evaluation.baselines]
    rows = [["", "value", "interval", *names]]
    for metric, estimate in evaluation.metrics.items():
        others = [baseline.metrics.get(metric) for baseline in evaluation.baselines]
        shown = ["–" if other is None else wording.value(other, metric) for other in others]
        rows.append(
            [wording.metric_title(metric), wording.value(estimate, metric), wording.interval(estimate, metric), *shown]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    leakage = [sentence for _, sentence in wording.leakage_words(evaluation)]
    for sentence in dict.fromkeys([wording.verdict(evaluation).sentence, *leakage, *evaluation.notes]):
        typer.echo(f"  {sentence}")


def _show_comparisons(comparisons: Sequence[Comparison]) -> None:
    from sensorium.evaluate import wording

    for test in comparisons:
        size, interval = wording.difference(test), wording.difference_interval(test)
        reading = wording.reading(test, test.p_value)
        typer.echo(
            f"{wording.metric_title(test.metric)}: {test.a} − {test.b} = {size} ({interval}; "
            f"p {wording.p_value(test.p_value)}): {reading}"
        )
