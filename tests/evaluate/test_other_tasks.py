"""Entities, spans, language models and similarity: right answers score full, and the baseline is what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sensorium.errors import DataError, UsageError
from sensorium.evaluate import (
    Settings,
    evaluate_language_model,
    evaluate_question_answering,
    evaluate_similarity,
    evaluate_token_classification,
    tagged,
)

QUICK = Settings(resamples=200)


def people(count: int) -> list[dict[str, Any]]:
    tags = ["B-PER", "I-PER", "O", "B-LOC"]
    return [tagged(["Ada", f"Name{number}", "saw", f"Town{number % 3}"], tags) for number in range(count)]


def test_entities_right_in_class_and_borders_are_found() -> None:
    records = people(6)
    said = [record["entities"] for record in records[:5]] + [records[5]["entities"][:1]]
    evaluation = evaluate_token_classification(
        lambda texts: said, records, labels=["PER", "LOC"], model="tagger", settings=QUICK
    )
    assert evaluation.metrics["micro_precision"].value == 1.0
    assert evaluation.metrics["micro_recall"].value == pytest.approx(11 / 12)
    by_label = {scores.label: scores for scores in evaluation.classes}
    assert (by_label["PER"].support, by_label["LOC"].recall.value) == (6, pytest.approx(5 / 6))
    assert evaluation.baselines[0].metrics["micro_f1"].value == 0
    (mistake,) = evaluation.mistakes
    assert mistake.expected == "Ada Name5 (PER); Town2 (LOC)"
    assert mistake.predicted == "Ada Name5 (PER)"


def test_the_dictionary_baseline_knows_the_training_entities_and_no_parts_of_words() -> None:
    train = [tagged(["Bonn"], ["B-LOC"]), tagged(["in", "Ulm"], ["O", "B-LOC"])]
    test = [tagged(["Ulmer", "in", "Bonn"], ["O", "O", "B-LOC"]), tagged(["Ulm", "today"], ["B-LOC", "O"])]
    evaluation = evaluate_token_classification(
        lambda texts: [[], []], test, labels=["LOC"], train=train, settings=QUICK
    )
    assert evaluation.baselines[0].metrics["micro_f1"].value == 1.0


@pytest.mark.parametrize(
    ("words", "tags", "entities"),
    [
        (["A", "B"], ["B-X", "B-X"], [(0, 1), (2, 3)]),
        (["A", "B"], ["I-X", "I-X"], [(0, 3)]),
        (["A", "B"], ["B-X", "I-Y"], [(0, 1), (2, 3)]),
        (["A", "B", "C"], ["B-X", "E-X", "S-X"], [(0, 3), (4, 5)]),
        (["A", "B"], ["O", "O"], []),
    ],
)
def test_tags_become_entities_as_in_the_conll_evaluation(
    words: list[str], tags: list[str], entities: list[tuple[int, int]]
) -> None:
    assert [(one["start"], one["end"]) for one in tagged(words, tags)["entities"]] == entities


def test_tags_of_chinese_characters_stand_without_spaces() -> None:
    record = tagged(list("我在北京"), ["O", "O", "B-LOC", "I-LOC"], separator="")
    assert record["text"][record["entities"][0]["start"] : record["entities"][0]["end"]] == "北京"


@pytest.mark.parametrize("tags", [["B-X"], ["B-X", "Q-X"], ["B-X", "I-"]])
def test_tags_that_do_not_fit_are_refused(tags: list[str]) -> None:
    with pytest.raises(DataError):
        tagged(["A", "B"], tags)


def test_tokens_that_were_not_aggregated_are_refused() -> None:
    with pytest.raises(UsageError, match="aggregate"):
        evaluate_token_classification(lambda texts: [[{"entity": "B-PER"}]], people(1), labels=["PER", "LOC"])


def test_answers_are_scored_by_their_best_reference_and_by_character_in_chinese() -> None:
    records = [
        {"question": "在哪里？", "context": "他住在北京市。天气很好。", "answers": ["北京", "北京市"]},
        {"question": "谁？", "context": "鲁迅写了《呐喊》。", "answers": "鲁迅"},
    ]
    evaluation = evaluate_question_answering(
        lambda asked: [{"answer": "北京", "score": 0.9}, {"answer": "鲁迅写", "score": 0.4}], records, settings=QUICK
    )
    assert evaluation.metrics["exact_match"].value == 0.5
    assert evaluation.metrics["f1"].value == pytest.approx((1 + 0.8) / 2)
    assert any("by character" in note for note in evaluation.notes)
    assert evaluation.calibration
    assert evaluation.baselines[0].metrics["f1"].value > 0


def test_a_question_without_context_is_named() -> None:
    with pytest.raises(DataError, match="record 1: no text in its column 'context'"):
        evaluate_question_answering(lambda asked: [], [{"question": "Who?", "context": ""}])


def test_the_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    texts = ["aa bb", "cc dd ee ff", "aa"]
    evaluation = evaluate_language_model(
        lambda given: [(len(text.split()) * math.log(50), len(text.split())) for text in given],
        texts,
        tokenize=lambda text: [ord(word[0]) - 97 for word in text.split()],
        vocabulary_size=50,
        settings=QUICK,
    )
    assert evaluation.metrics["perplexity"].value == pytest.approx(50)
    characters = sum(map(len, texts))
    assert evaluation.metrics["bits_per_character"].value == pytest.approx(7 * math.log2(50) / characters)
    counts = [3, 2, 2, 2, 2, 2]  # each token once and add-one; "aa" twice
    expected = math.exp(-sum((count - 1) * math.log(count / 57) for count in counts) / 7)
    assert evaluation.baselines[0].metrics["perplexity"].value == pytest.approx(expected)


def test_a_model_that_predicts_some_tokens_only_gets_no_bits_per_character() -> None:
    evaluation = evaluate_language_model(
        lambda given: [(1.0, 1) for _ in given],
        ["a b c d", "b c d e"],
        tokenize=lambda text: [ord(word) - 97 for word in text.split()],
        vocabulary_size=9,
        settings=QUICK,
    )
    assert set(evaluation.metrics) == {"perplexity"}


def test_similarity_is_measured_by_rank_and_by_value() -> None:
    records = [{"text": "a", "pair": "b", "score": str(number)} for number in range(6)]
    evaluation = evaluate_similarity(lambda pairs: [2.0**n for n in range(len(pairs))], records, settings=QUICK)
    assert evaluation.metrics["spearman"].value == pytest.approx(1)
    assert 0.7 < evaluation.metrics["pearson"].value < 1
    with pytest.raises(DataError, match="record 1: its 'score' is 'high'"):
        evaluate_similarity(lambda pairs: [1.0], [{"text": "a", "pair": "b", "score": "high"}])


def test_the_threshold_that_makes_most_of_a_reader_is_told() -> None:
    records = [{"question": f"q{n}?", "context": f"it is number {n}.", "answers": [f"number {n}"]} for n in range(4)]
    records += [{"question": f"n{n}?", "context": "nothing here.", "answers": []} for n in range(4)]
    said = [{"answer": f"number {n}", "score": 0.3, "no_answer_score": 0.4} for n in range(4)]
    said += [{"answer": "nothing", "score": 0.2, "no_answer_score": 0.9} for n in range(4)]
    evaluation = evaluate_question_answering(lambda asked: said, records, settings=QUICK)
    assert evaluation.metrics["f1"].value == 0.5  # without a threshold every question goes unanswered
    assert evaluation.metrics["best_f1"].value == evaluation.metrics["best_exact_match"].value == 1
    assert any("no_answer_threshold=0.1," in note for note in evaluation.notes)
    answered = evaluate_question_answering(lambda asked: said[:4], records[:4], settings=QUICK)
    assert "best_f1" not in answered.metrics
