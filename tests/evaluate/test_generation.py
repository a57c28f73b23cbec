"""Translations, summaries and texts for texts: what is measured, against what, and which tokens were counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sensorium.errors import DataError, UsageError
from sensorium.evaluate import Settings, compare, evaluate_generation, write_report
from sensorium.evaluate.baselines import lead_sentences, nearest_targets

sacrebleu = pytest.importorskip("sacrebleu.metrics", reason="the oracle of these tests is sacreBLEU")
QUICK = Settings(resamples=200)
NOUNS = {"light": "Licht", "door": "Tür", "window": "Fenster", "lamp": "Lampe"}
PAIRS = [
    {"text": f"Turn off {number} {noun}s in the kitchen.", "target": f"Schalte {number} {word} in der Küche aus."}
    for number in (2, 3, 40)
    for noun, word in NOUNS.items()
]


def translator(wrong: str = "") -> Any:
    """Right, but for the texts with a word in them."""
    known = {pair["text"]: pair["target"] for pair in PAIRS}
    return lambda texts: [[{"translation_text": "Falsch." if wrong and wrong in t else known[t]}] for t in texts]


def test_translations_are_measured_as_sacrebleu_does_and_its_signature_is_noted() -> None:
    evaluation = evaluate_generation(translator("door"), PAIRS, task="translation", settings=QUICK)
    written = [one[0]["translation_text"] for one in translator("door")([pair["text"] for pair in PAIRS])]
    wanted = [[pair["target"] for pair in PAIRS]]
    bleu = sacrebleu.BLEU()
    assert evaluation.metrics["bleu"].value == pytest.approx(bleu.corpus_score(written, wanted).score)
    assert evaluation.metrics["chrf"].value == pytest.approx(sacrebleu.CHRF().corpus_score(written, wanted).score)
    assert evaluation.metrics["number_errors"].value == pytest.approx(3 / 12)
    assert evaluation.notes[0] == f"BLEU|{bleu.get_signature()}"
    assert {mistake.predicted for mistake in evaluation.mistakes} == {"Falsch."}
    [copied] = evaluation.baselines
    assert copied.name == "the source as it is"
    assert copied.metrics["chrf"].value < evaluation.metrics["chrf"].value


def test_chinese_is_measured_by_characters_and_says_so() -> None:
    records = [{"text": f"Turn off light {n}.", "target": f"请关掉第{n}盏灯。"} for n in range(1, 9)]
    evaluation = evaluate_generation(
        lambda texts: [f"请关第{n}盏灯。" for n in range(1, 9)], records, task="translation", settings=QUICK
    )
    expected = sacrebleu.BLEU(tokenize="zh").corpus_score(
        [f"请关第{n}盏灯。" for n in range(1, 9)], [[r["target"] for r in records]]
    )
    assert evaluation.metrics["bleu"].value == pytest.approx(expected.score)
    assert "tok:zh" in evaluation.notes[0]
    summary = evaluate_generation(lambda texts: ["今天很热"] * 2, [
        {"text": "北京今天很热。明天下雨。", "target": "今天北京热"}, {"text": "今天很热。", "target": "今天很热"},
    ], task="summarization", settings=QUICK)  # fmt: skip
    assert summary.metrics["rouge1"].value == pytest.approx((2 * 3 / 9 + 1) / 2)
    assert "characters of Chinese" in summary.notes[0]


def test_the_memory_and_the_leaked_sources_come_from_the_training_records() -> None:
    train = [{"text": "Turn off 2 lights in the kitchen!", "target": "Schalte 2 Licht in der Küche aus."}]
    evaluation = evaluate_generation(translator(), PAIRS, task="translation", train=train, settings=QUICK)
    memory = evaluation.baselines[1]
    assert memory.name == "target of the nearest source"
    assert memory.metrics["chrf"].value > evaluation.baselines[0].metrics["chrf"].value
    assert evaluation.leakage is not None
    assert evaluation.leakage.exact >= 1
    assert evaluation.leakage.clean is not None
    [shown] = [one for one in evaluation.comparisons if one.b == memory.name and one.metric == "chrf"]
    assert shown.difference.value > 0


def test_terms_of_a_glossary_are_counted_where_the_sources_have_them() -> None:
    written = [[{"translation_text": pair["target"].replace("Licht", "Lampe")}] for pair in PAIRS]
    evaluation = evaluate_generation(
        lambda texts: written, PAIRS, task="translation", glossary={"lights": "Licht", "kitchen": "Küche"},
        settings=QUICK,
    )  # fmt: skip
    assert evaluation.metrics["term_errors"].value == pytest.approx(3 / 15)


def test_a_summary_is_measured_against_its_best_reference_beside_the_first_sentences() -> None:
    text = "The dog ran home. It slept all day. Nobody saw it."
    records = [{"text": text, "target": ["A dog slept.", "The dog ran home and slept all day."]}] * 4
    evaluation = evaluate_generation(lambda texts: ["The dog ran home."] * 4, records, task="summarization",
                                     settings=QUICK)  # fmt: skip
    first, longer = evaluation.baselines
    assert first.metrics["rouge1"].value == evaluation.metrics["rouge1"].value
    assert longer.name == "first sentences, as long as the target"
    assert evaluation.headline == "rouge2"


def test_two_models_are_told_apart_on_the_same_texts(tmp_path: Path) -> None:
    good, bad = (
        evaluate_generation(translator(wrong), PAIRS, task="translation", model=name, settings=QUICK)
        for name, wrong in (("good", ""), ("bad", "l"))
    )
    by_metric = {one.metric: one for one in compare(good, bad, QUICK)}
    assert by_metric["bleu"].difference.value > 0
    assert by_metric["chrf"].difference.shown
    assert by_metric["number_errors"].difference.value < 0
    page = write_report(tmp_path / "page.html", [bad], comparisons=list(by_metric.values())).read_text("utf-8")
    assert "ROUGE" not in page
    assert "wanted <b>" in page


def test_answers_are_matched_whole_and_by_token() -> None:
    records = [{"text": "capital of France?", "target": "Paris"}, {"text": "of Italy?", "target": ["Rome", "Roma"]}]
    evaluation = evaluate_generation(
        lambda texts: [[{"generated_text": "paris."}], [{"generated_text": "in Roma"}]], records,
        task="text2text-generation", settings=QUICK,
    )  # fmt: skip
    assert evaluation.metrics["exact_match"].value == 0.5
    assert evaluation.metrics["f1"].value == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"text": "a"}, "record 1: its 'target' is None"),
        ({"text": "a", "target": []}, "record 1: its 'target' is"),
        ({"text": "a", "target": " "}, "record 1: a text in its 'target' is empty"),
        ({"text": "", "target": "b"}, "record 1: no text"),
    ],
)
def test_records_that_cannot_be_measured_are_named(record: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        evaluate_generation(lambda texts: texts, [record], task="translation")


def test_answers_without_text_are_named() -> None:
    with pytest.raises(UsageError, match="holds no text"):
        evaluate_generation(lambda texts: [{"label": "x"}], [{"text": "a", "target": "b"}], task="translation")


def test_the_nearest_source_is_found_among_many() -> None:
    texts = [f"Set the value of setting {n} to {n * 7}" for n in range(600)]
    targets = [str(n) for n in range(600)]
    asked = ["set the value of setting 123 to 861!", "Set setting 599"]
    assert nearest_targets(texts, targets, asked) == ["123", "599"]


def test_the_first_sentences_are_as_many_as_are_asked_for() -> None:
    text = "今天很热。明天下雨。后天晴。"
    assert lead_sentences(text, 1) == "今天很热。"
    assert lead_sentences(text, characters=6) == "今天很热。明天下雨。"
    assert lead_sentences("no end", 3) == "no end"
