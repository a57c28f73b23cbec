"""The door: what ``pipeline`` opens, refuses, and takes beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium import open_checkpoint, pipeline
from sensorium.errors import DataError, UsageError
from sensorium.tasks import UntrainedHeadWarning


def test_options_given_beforehand_hold_until_a_call_gives_its_own(folders: dict[str, Path]) -> None:
    folder, text = folders["BertForTokenClassification"], "Anna lives in Paris."
    plain, grouped = pipeline("ner", folder), pipeline("ner", folder, aggregation_strategy="simple")
    assert grouped(text) == plain(text, aggregation_strategy="simple") != plain(text)
    assert grouped(text, aggregation_strategy="none") == plain(text)
    assert grouped.tokenizer is not None


def test_an_option_the_task_does_not_have_is_named_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ner has no argument 'agregation_strategy'; did you mean 'aggregation_str"):
        pipeline("ner", tmp_path / "nowhere", agregation_strategy="simple")


def test_an_opened_checkpoint_is_used_as_it_is_in_memory(folders: dict[str, Path]) -> None:
    checkpoint = open_checkpoint(folders["BertForSequenceClassification"])
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            parameter.mul_(0.5)
    from_disk = pipeline("text-classification", folders["BertForSequenceClassification"])("The fox jumps.")
    assert pipeline("text-classification", checkpoint)("The fox jumps.") != from_disk


def test_an_opened_checkpoint_without_the_head_is_refused_and_not_opened_again(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="has no sequence head, which text-classification needs; pass the folder"):
        pipeline("text-classification", open_checkpoint(folders["BertForMaskedLM"]))


def test_an_opened_checkpoint_runs_as_it_is_unless_a_dtype_is_given_and_keeps_its_tokenizer(
    folders: dict[str, Path],
) -> None:
    checkpoint = open_checkpoint(folders["BertModel"])
    model = checkpoint.model
    assert pipeline("feature-extraction", checkpoint).model is model
    assert pipeline("feature-extraction", checkpoint, dtype="fp32").model is not model
    assert checkpoint.model is model
    own = checkpoint.tokenizer
    run = pipeline("feature-extraction", checkpoint, tokenizer=folders["BertForMaskedLM"])
    assert checkpoint.tokenizer is own is not run.tokenizer


def test_the_warning_of_an_untrained_head_points_at_the_call(folders: dict[str, Path]) -> None:
    with pytest.warns(UntrainedHeadWarning) as warned:
        pipeline("text-classification", folders["BertModel"])
    assert warned[0].filename == __file__


def test_zero_shot_without_an_entailment_label_warns(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in folders["BertForSequenceClassification"].iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(content.replace(b"entailment", b"positive"))
    with pytest.warns(UserWarning, match="none of the labels contradiction, neutral, positive is called entailment"):
        pipeline("zero-shot-classification", folder)


@pytest.mark.parametrize("bad", [7, None, b"fox"])
def test_generation_names_what_is_no_text(folders: dict[str, Path], bad: Any) -> None:
    with pytest.raises(DataError, match="a text, or a list or generator of texts, is expected"):
        pipeline("text-generation", folders["GPT2LMHeadModel"])(bad)


def test_generation_fits_its_batches_to_the_budget(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run = pipeline("text-generation", folders["GPT2LMHeadModel"], batch_tokens=60)
    sizes, batch = [], run._batch
    monkeypatch.setattr(run, "_batch", lambda prompts, *rest: sizes.append(len(prompts)) or batch(prompts, *rest))
    prompts = ["fox", "fox", "fox", "The quick brown fox jumps over the lazy dog. Anna lives."]
    answers = [answer[0]["generated_text"] for answer in run(prompts, max_new_tokens=15)]
    assert all(map(str.startswith, answers, prompts))
    assert sizes[0] == 3
    assert sum(sizes) == 4


def test_similarity_streams_a_generator(folders: dict[str, Path]) -> None:
    run = pipeline("sentence-similarity", folders["BertModel"])
    one = {"source_sentence": "The fox jumps.", "sentences": ["Anna", "The fox jumps."]}
    stream = run(one for _ in range(2))
    assert not isinstance(stream, list)
    assert list(stream) == [run(one)] * 2
