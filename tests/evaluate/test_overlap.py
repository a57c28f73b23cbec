"""BLEU and chrF from sums are sacreBLEU's own corpus scores, ROUGE is rouge-score's, whatever is resampled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import DataError
from sensorium.evaluate import overlap
from sensorium.evaluate.statistics import bootstrap_intervals, paired_difference

sacrebleu = pytest.importorskip("sacrebleu.metrics", reason="the oracle of these tests is sacreBLEU")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="the oracle of these tests is rouge-score")

WRITTEN = [
    "The small dog runs over the wet grass, and barks.",
    "Two men sit at a table.",
    "",
    "A woman in 3.5-inch heels isn't walking.",
    "一只小狗在草地上跑。",
    "价格是 3.5 元",
]
WANTED = [
    ["The little dog runs over the wet grass and barks."],
    ["Two men are sitting at a table.", "Two men sit by a table."],
    ["Nothing."],
    ["A woman in 3.5-inch heels is walking.", "She walks.", "A woman walks in heels."],
    ["一条小狗跑过草地。"],
    ["价钱为 3.5 元。"],
]
words = st.lists(st.sampled_from("the a dog cat runs sits on mat . 狗 跑 草地".split()), max_size=9).map(" ".join)
corpora = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=6)


def theirs(metric: Any, written: list[str], wanted: list[list[str]]) -> float:
    return float(metric.corpus_score(written, overlap._columns(wanted)).score)


@pytest.mark.parametrize("tokenize", ["13a", "zh", "char"])
def test_bleu_and_chrf_of_the_sums_are_those_of_sacrebleu(tokenize: Any) -> None:
    sums = overlap.bleu_chrf_outcomes(WRITTEN, WANTED, tokenize=tokenize).totals()
    metrics = [sacrebleu.BLEU(tokenize=tokenize), sacrebleu.CHRF()]
    expected = [theirs(metric, WRITTEN, WANTED) for metric in metrics]
    assert overlap.bleu_chrf(sums).tolist() == pytest.approx(expected, abs=1e-9)
    assert 5 < expected[0] < 95
    assert list(overlap.signatures(WANTED, tokenize=tokenize)) == [str(m.get_signature()) for m in metrics]


@settings(max_examples=60)
@given(corpora, st.sampled_from(["13a", "zh", "char"]))
def test_it_holds_for_any_corpus(corpus: list[tuple[str, list[str]]], tokenize: Any) -> None:
    written, wanted = (list(column) for column in zip(*corpus, strict=True))
    sums = overlap.bleu_chrf_outcomes(written, wanted, tokenize=tokenize).totals()
    expected = [theirs(metric, written, wanted) for metric in (sacrebleu.BLEU(tokenize=tokenize), sacrebleu.CHRF())]
    assert overlap.bleu_chrf(sums).tolist() == pytest.approx(expected, abs=1e-9)


def test_every_resample_is_the_score_of_its_texts() -> None:
    """The sums of a draw with replacement, against sacreBLEU called on the drawn texts."""
    items = overlap.bleu_chrf_outcomes(WRITTEN, WANTED)
    random = np.random.default_rng(3)
    draws = random.integers(0, len(WRITTEN), size=(5, len(WRITTEN)))
    together = overlap.bleu_chrf(np.stack([items.rows[items.index[draw]].sum(axis=0) for draw in draws]))  # [5, 2]
    for draw, found in zip(draws, together, strict=True):
        written, wanted = [WRITTEN[i] for i in draw], [WANTED[i] for i in draw]
        assert found.tolist() == pytest.approx(
            [theirs(metric, written, wanted) for metric in (sacrebleu.BLEU(), sacrebleu.CHRF())], abs=1e-9
        )


def test_intervals_and_paired_tests_read_the_same_sums() -> None:
    written, wanted = WRITTEN * 8, WANTED * 8
    worse = [text.replace("dog", "cat").replace("men", "cats").replace("草", "水") for text in written]
    a, b = (overlap.bleu_chrf_outcomes(texts, wanted) for texts in (written, worse))
    bleu, chrf = bootstrap_intervals(a, overlap.bleu_chrf, resamples=300, best=100)
    assert bleu.low < bleu.value < bleu.high
    assert chrf.low < chrf.value < chrf.high
    differences = paired_difference(a, b, overlap.bleu_chrf, resamples=300)
    assert all(one.value > 0 and one.shown for one in differences)


def test_a_score_without_spread_has_the_bound_of_its_own_scale() -> None:
    texts = [f"a sentence number {number} of this length" for number in range(20)]
    perfect, _ = bootstrap_intervals(
        overlap.bleu_chrf_outcomes(texts, [[text] for text in texts]), overlap.bleu_chrf, resamples=200, best=100
    )
    assert perfect.value == pytest.approx(100)
    assert 80 < perfect.low < 90
    nothing, _ = bootstrap_intervals(
        overlap.bleu_chrf_outcomes(["x"] * 20, [["y"]] * 20), overlap.bleu_chrf, resamples=200, best=100
    )
    assert nothing.low == nothing.value == 0
    assert 10 < nothing.high < 20


def test_rouge_is_that_of_rouge_score() -> None:
    written = ["The dog ran home. It slept all day.", "Nothing here", ""]
    wanted = [["A dog ran to its home. It slept.", "The dog slept all day."], ["Something there"], ["Not empty."]]
    scorer = rouge_scorer.RougeScorer(list(overlap.ROUGES))
    lines = [text.replace(". ", ".\n") for text in written]
    each = [
        scorer.score_multi([t.replace(". ", ".\n") for t in texts], line)
        for line, texts in zip(lines, wanted, strict=True)
    ]
    expected = [np.mean([one[name].fmeasure for one in each]) for name in overlap.ROUGES]
    found = overlap.rouge(overlap.rouge_outcomes(written, wanted).totals())
    assert found.tolist() == pytest.approx(expected)
    assert found[0] > 0.2


def test_rouge_by_characters_sees_chinese_where_words_see_nothing() -> None:
    written, wanted = ["北京今天很热。明天下雨。"], [["北京今天热。明天有雨。"]]
    assert overlap.rouge(overlap.rouge_outcomes(written, wanted).totals()).tolist() == [0, 0, 0, 0]
    # 10 characters against 9, of which 8 are shared in order: 2 · 8 / 19; 北京 今天 天明 明天 of 9 and 8 pairs as well.
    one, two, longest, by_sentence = overlap.rouge(overlap.rouge_outcomes(written, wanted, characters=True).totals())
    assert one == longest == by_sentence == pytest.approx(16 / 19)
    assert 0 < two < one


@pytest.mark.parametrize(
    ("written", "wanted", "sentence"),
    [([], [], "no items"), (["a"], [], "0 items have references"), (["a"], [[]], "item 1 needs a list")],
)
def test_what_cannot_be_measured_is_one_sentence(written: Any, wanted: Any, sentence: str) -> None:
    for measure in (overlap.bleu_chrf_outcomes, overlap.rouge_outcomes):
        with pytest.raises(DataError, match=sentence):
            measure(written, wanted)
