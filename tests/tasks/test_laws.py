"""What holds for every task: order, neighbours, shapes, streams, long texts, bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from sensorium import open_checkpoint, pipeline
from sensorium.errors import CheckpointError, DataError, UsageError
from sensorium.tasks import UntrainedHeadWarning

CLASSES = {
    "text-classification": "BertForSequenceClassification",
    "token-classification": "BertForTokenClassification",
    "feature-extraction": "BertModel",
    "sentence-embedding": "BertModel",
    "text-generation": "GPT2LMHeadModel",
}
TEXTS = ["The fox jumps.", "Anna", "unbelievable words " * 30, "今天天气很好。", "Paris is the capital of France."]


def rounded(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("task", CLASSES)
def test_results_come_in_order_and_do_not_depend_on_neighbours_or_batches(folders: dict[str, Path], task: str) -> None:
    run = pipeline(task, folders[CLASSES[task]])
    texts = [text for text in TEXTS if task != "text-generation" or len(text) < 100]
    together = rounded(list(run(texts)))
    alone = [rounded(next(iter(run([text])))) for text in texts]
    small = rounded(list(pipeline(task, folders[CLASSES[task]], batch_tokens=1)(texts)))
    assert together == alone == small


@pytest.mark.parametrize("task", CLASSES)
def test_a_generator_is_streamed(folders: dict[str, Path], task: str) -> None:
    drawn = 0

    def endless() -> Any:
        nonlocal drawn
        while True:
            drawn += 1
            yield "The fox jumps."

    run = pipeline(task, folders[CLASSES[task]], batch_tokens=64)
    first = list(islice(run(endless()), 3))
    assert len(first) == 3
    assert drawn < 2000


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize(("bad", "message"), [("", "input 2 is empty"), (" \n", "is empty"), (7, "is a int; a text")])
def test_an_input_that_is_no_text_is_named(folders: dict[str, Path], task: str, bad: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(pipeline(task, folders[CLASSES[task]])(["fine", bad]))


def test_the_call_of_the_readme_warns_that_the_head_is_untrained(folders: dict[str, Path]) -> None:
    with pytest.warns(UntrainedHeadWarning, match="no trained head for text-classification.*random until"):
        classifier = pipeline("text-classification", model=str(folders["BertForMaskedLM"]))
    answer = classifier("This is a positive sentence.")
    assert [set(one) for one in answer] == [{"label", "score"}]


def test_a_long_text_is_read_to_its_end(folders: dict[str, Path]) -> None:
    run = pipeline("token-classification", folders["BertForTokenClassification"])
    text = "The quick brown fox jumps over the lazy dog. " * 20
    entities = run(text, ignore_labels=[])
    assert [entity["start"] for entity in entities] == sorted({entity["start"] for entity in entities})
    assert entities[-1]["end"] == len(text.rstrip())
    assert len(run(text[:45], ignore_labels=[])) * 20 == len(entities)


def test_a_mask_far_into_a_long_text_is_found(folders: dict[str, Path]) -> None:
    run = pipeline("fill-mask", folders["BertForMaskedLM"])
    assert len(run("The fox jumps. " * 30 + "The [MASK] jumps." + " The dog." * 30)) == 5


def test_a_text_without_a_mask_is_named(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"input 1 has no mask; write \[MASK\]"):
        pipeline("fill-mask", folders["BertForMaskedLM"])("no mask here")


def test_question_answering_gives_spans_of_the_context(folders: dict[str, Path]) -> None:
    run = pipeline("question-answering", folders["BertForQuestionAnswering"])
    context = "Paris is the capital of France, and Anna lives there. " * 10
    answers = run(question="Where?", context=context, top_k=4, max_answer_len=3, doc_stride=8)
    assert [answer["answer"] for answer in answers] == [context[a["start"] : a["end"]] for a in answers]
    assert [answer["score"] for answer in answers] == sorted((a["score"] for a in answers), reverse=True)
    assert len({(answer["start"], answer["end"]) for answer in answers}) == 4
    assert all(len(answer["answer"].split()) <= 3 for answer in answers)
    single = run({"question": "Where?", "context": context})
    assert set(single) == {"score", "start", "end", "answer"}
    many = run(question=["Where?", "Who?"], context=context)
    assert many[0] == pytest.approx(single)
    empty = run(question="Where?", context=context, handle_impossible_answer=True, top_k=2000)
    assert {"start": 0, "end": 0, "answer": ""}.items() <= next(a for a in empty if not a["answer"]).items()


def test_next_sentence_prediction_ranks_both_labels(folders: dict[str, Path]) -> None:
    run = pipeline("next-sentence-prediction", folders["BertForNextSentencePrediction"])
    answer = run({"text": "The fox jumps.", "text_pair": "The dog is lazy."})
    assert {one["label"] for one in answer} == {"IsNext", "NotNext"}
    assert sum(one["score"] for one in answer) == pytest.approx(1.0)
    with pytest.warns(UserWarning, match="shortened to fit 40"):
        run({"text": "fox " * 60, "text_pair": "dog"})


def test_sampling_is_reproduced_by_its_seed_and_differs_without(folders: dict[str, Path]) -> None:
    run = pipeline("text-generation", folders["GPT2LMHeadModel"])
    options: dict[str, Any] = {"do_sample": True, "max_new_tokens": 16, "top_p": 0.95, "temperature": 1.3}
    assert run("The fox", seed=4, **options) == run("The fox", seed=4, **options)
    assert run("The fox", seed=4, **options) != run("The fox", seed=5, **options)
    assert len(run("The fox", seed=1, num_return_sequences=3, **options)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0; it must be from 1 to 1,000"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences is 3; a search with 2 beams"),
        ({"num_beams": 2, "do_sample": True}, "sampling within a beam search is not supported"),
        ({"num_beams": 2, "early_stopping": "always"}, "early_stopping is 'always'"),
        ({"num_return_sequences": 2}, "needs do_sample=True or num_beams above 1: greedy has one answer"),
        ({"num_return_sequences": 0, "do_sample": True}, "num_return_sequences is 0; it must be from 1 to 10,000"),
        ({"temperature": 0.5}, "temperature=0.5 does nothing without do_sample=True"),
        ({"temprature": 0.5}, "text-generation has no argument 'temprature'; did you mean 'temperature'"),
    ],
)
def test_options_of_generation_that_do_not_go_together_are_one_sentence(
    folders: dict[str, Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pipeline("text-generation", folders["GPT2LMHeadModel"], **options)("The fox")


def test_streamed_pieces_make_the_whole_text(folders: dict[str, Path]) -> None:
    run = pipeline("text-generation", folders["GPT2LMHeadModel"])
    whole = run("The fox", max_new_tokens=15, return_full_text=False)[0]["generated_text"]
    assert "".join(run.stream("The fox", max_new_tokens=15)) == whole


def test_a_stream_ends_where_a_stop_string_begins(folders: dict[str, Path]) -> None:
    run = pipeline("text-generation", folders["GPT2LMHeadModel"], max_new_tokens=15, return_full_text=False)
    whole = run("The fox")[0]["generated_text"]
    stop = whole[3:5]
    cut = run("The fox", stop_strings=[stop])[0]["generated_text"]
    assert cut == whole[: whole.index(stop)] == "".join(run.stream("The fox", max_new_tokens=15, stop_strings=stop))


def test_log_probabilities_come_with_the_tokens_where_they_are_asked_for(folders: dict[str, Path]) -> None:
    run = pipeline("text-generation", folders["GPT2LMHeadModel"], max_new_tokens=4)
    assert run("The fox")[0].keys() == {"generated_text"}
    (answer,) = run("The fox", log_probs=2)
    assert answer["score"] == pytest.approx(sum(token["log_prob"] for token in answer["tokens"]), abs=1e-6)
    assert [token["top"][0]["token"] for token in answer["tokens"]] == [token["token"] for token in answer["tokens"]]
    first, second = run("The fox", num_beams=3, num_return_sequences=2, log_probs=0)
    assert first["score"] >= second["score"]


def test_how_a_checkpoint_would_write_holds_until_the_call_says_otherwise(folders: dict[str, Path]) -> None:
    checkpoint = open_checkpoint(folders["GPT2LMHeadModel"])
    plain = pipeline("text-generation", checkpoint)
    own = {**checkpoint.generation, "max_new_tokens": 3, "no_repeat_ngram_size": 1}
    run = pipeline("text-generation", replace(checkpoint, generation=own))
    assert run("The fox") == plain("The fox", max_new_tokens=3, no_repeat_ngram_size=1) != plain("The fox")
    assert run("The fox", max_new_tokens=20, no_repeat_ngram_size=0) == plain("The fox")


def test_wrong_calls_are_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    bert, gpt2 = folders["BertModel"], folders["GPT2LMHeadModel"]
    with pytest.raises(UsageError, match="no task 'fil-mask'; did you mean 'fill-mask'"):
        pipeline("fil-mask", bert)
    with pytest.raises(UsageError, match="needs a model"):
        pipeline("fill-mask")
    with pytest.raises(UsageError, match="needs a decoder"):
        pipeline("text-generation", bert)
    with pytest.raises(UsageError, match="needs an encoder"):
        pipeline("text-classification", gpt2)
    with pytest.raises(UsageError, match="needs a masked-token head"):
        pipeline("fill-mask", bert)
    with pytest.raises(UsageError, match="prompt 1 has .* this model reads 64"):
        pipeline("text-generation", gpt2)("fox " * 100)
    with pytest.raises(UsageError, match="temperature is 0"):
        pipeline("text-generation", gpt2)("fox", do_sample=True, temperature=0)


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in folders["BertModel"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzzz"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="the tokenizer has 5,001 tokens, the model's table only"):
        pipeline("feature-extraction", folder)


def test_a_threshold_decides_between_a_span_and_no_answer(folders: dict[str, Path]) -> None:
    run = pipeline("question-answering", folders["BertForQuestionAnswering"])
    asked = {"question": "Where?", "context": "Paris is the capital of France, and Anna lives there. " * 6}
    plain = run(asked, return_no_answer_score=True)
    margin = plain["no_answer_score"] - plain["score"]
    span = run(asked, no_answer_threshold=margin + 1e-6)
    empty = run(asked, no_answer_threshold=margin - 1e-6)
    assert span == run(asked)
    assert (empty["answer"], empty["score"]) == ("", pytest.approx(plain["no_answer_score"]))
    ranked = run(asked, no_answer_threshold=margin - 1e-6, top_k=3)
    assert ranked[0] == empty
    assert ranked[1] == span


def test_a_question_is_read_as_far_as_is_asked_for(folders: dict[str, Path]) -> None:
    run = pipeline("question-answering", folders["BertForQuestionAnswering"])
    context = "Anna lives in Paris."
    with pytest.warns(UserWarning, match="the question has 6 tokens; the first 2 are read"):
        cut = run(question="fox dog Anna Paris the of", context=context, max_question_len=2)
    assert cut == run(question="fox dog", context=context, max_question_len=2)
    with pytest.raises(UsageError, match="max_question_len is 0"):
        run(question="fox", context=context, max_question_len=0)
