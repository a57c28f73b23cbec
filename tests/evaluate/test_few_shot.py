"""Few-shot: what stands before an item, which option counts as chosen, and that examples help one that copies them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.config import DecoderConfig, LanguageModelHeadConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.errors import DataError, UsageError
from sensorium.evaluate import Settings, compare, evaluate_few_shot
from sensorium.evaluate.few_shot import make_prompts
from sensorium.evaluate.likelihood import likelihood
from sensorium.evaluate.options import option_scorer
from sensorium.models.build import new_model
from sensorium.packed import Packed
from sensorium.text.training import train_byte_level_bpe

QUICK = Settings(resamples=200)
TRAIN = [{"text": f"guest {n}", "label": "good" if n % 2 else "bad"} for n in range(20)]
RECORDS = [{"text": f"room {n}", "label": "bad" if n % 3 else "good"} for n in range(30)]
CHOICES = [{"text": "The fox", "choices": ["runs", "is a very long sentence"], "label": n % 2} for n in range(12)]


def always(option: str) -> Any:
    """A model that finds this option the likeliest."""
    return lambda questions: [[0.0 if one.strip() == option else -1.0 for one in known] for _, known in questions]


def test_examples_stand_before_the_item_with_their_answers() -> None:
    asked: list[Any] = []

    def score(questions: Any) -> Any:
        asked.extend(questions)
        return always("bad")(questions)

    found = evaluate_few_shot(score, RECORDS, shots=2, train=TRAIN, settings=QUICK)
    prompt, options = asked[0]
    first, second, last = prompt.split("\n\n")
    assert first.startswith("Text: guest ")
    assert first.split("Label:")[1] in (" good", " bad")
    assert last == "Text: room 0\nLabel:"
    assert options == [" bad", " good"]
    assert {one[: -len(last)] for one, _ in asked[:10]} == {f"{first}\n\n{second}\n\n"}  # the same for all
    assert found.metrics["accuracy"].value == pytest.approx(20 / 30)
    assert [one.name for one in found.baselines] == ["chance", "most frequent class"]
    assert found.baselines[0].metrics["accuracy"].value == pytest.approx(0.5)
    assert found.model == "model, 2-shot"
    assert "2 examples were shown, the same before every item, drawn with seed 0" in found.notes[0]
    again = evaluate_few_shot(score, RECORDS, shots=2, train=TRAIN, settings=Settings(seed=1, resamples=200))
    assert asked[-1][0].split("Text: room")[0] != asked[0][0].split("Text: room")[0]
    assert again.metrics.keys() == {"accuracy", "accuracy_norm"}


def test_the_likeliest_a_character_is_a_metric_of_its_own() -> None:
    def score(questions: Sequence[Any]) -> Any:
        return [[-3.0, -4.0] for _ in questions]  # the long one is less likely, and likelier a character

    found = evaluate_few_shot(score, CHOICES, settings=QUICK)
    assert found.metrics["accuracy"].value == pytest.approx(0.5)
    everything = [{**record, "label": "is a very long sentence"} for record in CHOICES]
    found = evaluate_few_shot(score, everything, settings=QUICK)
    assert found.metrics["accuracy"].value == 0.0
    assert found.metrics["accuracy_norm"].value == 1.0
    assert [one.name for one in found.baselines] == ["chance"]
    assert found.mistakes[0].predicted == "runs"


def test_more_shots_are_compared_on_the_same_items() -> None:
    none = evaluate_few_shot(always("bad"), RECORDS, settings=QUICK)
    five = evaluate_few_shot(always("good"), RECORDS, shots=5, train=TRAIN, settings=QUICK)
    tests = {test.metric: test for test in compare(none, five, QUICK)}
    assert tests["accuracy"].difference.value == pytest.approx(1 / 3)
    assert tests["accuracy"].mcnemar is None or tests["accuracy"].mcnemar > 0.01


def test_scores_are_differences_of_likelihoods(tiny_hub: Any) -> None:
    checkpoint = open_checkpoint(tiny_hub / "gpt2")
    score = option_scorer(checkpoint)
    prompt, options = "Text: 天气好\nLabel:", [" good", " bad", " 好"]
    [found] = score([("<|endoftext|>" + prompt, options)])  # with which the likelihood of a text begins
    # The tokenizer is one byte a token, so that the likelihood of a text is that of its beginning and of what follows.
    whole = [nll for nll, _ in likelihood(checkpoint)([prompt + option for option in options])]
    [(before, _)] = likelihood(checkpoint)([prompt])
    assert found == pytest.approx([before - nll for nll in whole], abs=1e-3)


def test_an_end_of_the_prompt_that_is_tokenised_otherwise_with_its_option_counts_as_the_options() -> None:
    tokenizer = train_byte_level_bpe(["The quick brown fox, the quiet dog."] * 9, 300)
    prompt, options = "The qui", ["ck", "et", "ck brown"]
    alone, wholes = tokenizer.encode_plain(prompt), [tokenizer.encode_plain(prompt + option) for option in options]
    assert wholes[0][: len(alone)] != alone
    common = next(n for n, token_id in enumerate(alone) if any(whole[n] != token_id for whole in wholes))
    config = DecoderConfig(
        TokenStemConfig(tokenizer.vocabulary_size, 8, LearnedPositions(32)),
        StackConfig(8, 1, 2, 8, mask="causal"),
        LanguageModelHeadConfig(),
    )
    model: Any = new_model(config, seed=0)
    [found] = option_scorer(Checkpoint(model, tokenizer, "gpt2", Path()))([(prompt, options)])
    for whole, value in zip(wholes, found, strict=True):
        with torch.inference_mode():
            scores = model.next_token_logits(model(Packed.from_sequences([whole]))).log_softmax(dim=-1)  # [T, V]
        assert value == pytest.approx(float(scores[range(common - 1, len(whole) - 1), whole[common:]].sum()), abs=1e-4)


def test_braces_in_a_text_are_left_alone() -> None:
    assert make_prompts([{"text": "a {text} b"}], [], [], "<{text}>") == ["<a {text} b>"]


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        (RECORDS, {"shots": -1}, "shots is -1; it must be 0 or more"),
        (RECORDS, {"shots": 2}, "2 examples are to be drawn from the training data, which has 0"),
        (RECORDS, {"shots": 21, "train": TRAIN}, "21 examples are to be drawn .* which has 20"),
        (RECORDS, {"prompt": "Label:"}, "the prompt 'Label:' has no {text} in it"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(records: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate_few_shot(always("bad"), records, settings=QUICK, **options)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"text": "a", "label": "x"}], "the records have 1 labels; a choice needs two"),
        ([{"text": "a", "choices": ["x"], "label": 0}], "record 1: its 'choices' are"),
        ([{"text": "a", "choices": "xy", "label": 0}], "record 1: its 'choices' are"),
        ([{"text": "a", "choices": ["x", "y"], "label": 2}], "record 1: the label 2 is none of its 2 options"),
        ([{"text": "a", "choices": ["x", "y"]}], "record 1: the label None is none of its 2 options"),
        ([{"text": " ", "choices": ["x", "y"], "label": 0}], "record 1: no text"),
    ],
)
def test_a_record_that_is_no_question_is_named(records: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_few_shot(always("x"), records, settings=QUICK)


def test_a_prompt_that_is_too_long_is_named_and_an_encoder_refused(tiny_hub: Any) -> None:
    with pytest.raises(DataError, match="item 1: its prompt has 202 tokens with an option; this model reads 2 to 128"):
        option_scorer(open_checkpoint(tiny_hub / "gpt2"))([("a" * 200, [" b", " c"])])
    with pytest.raises(UsageError, match="few-shot needs a decoder"):
        option_scorer(open_checkpoint(tiny_hub / "bert-base-uncased"))
