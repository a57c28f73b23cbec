"""A smaller model that guesses, and beginnings that are kept: the same texts, by fewer tokens of the model's own."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium import open_checkpoint, pipeline
from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.infer.prefix import PrefixStore

ROOT = Path(__file__).parents[1]
TEXTS = ["the cat runs over the river and anna lives in paris .", "where is the yellow dog ?"]
WRITERS = [
    ("text2text-generation", "Bart", {}),
    ("summarization", "Bart", {}),
    ("translation", "MBart", {"src_lang": "en_XX", "tgt_lang": "de_DE"}),
]


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    build = runpy.run_path(str(ROOT / "goldens" / "transformers_4_writers.py"))["build"]
    folder = tmp_path_factory.mktemp("writers")
    return {name: build(f"{name}ForConditionalGeneration", folder / name) for name in ("T5", "Bart", "MBart")}


def another(folder: Path) -> Checkpoint:
    """A model that writes otherwise now and then."""
    checkpoint = open_checkpoint(folder)
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            parameter.mul_(1 + 0.1 * torch.randn(parameter.shape))
    return checkpoint


@contextmanager
def counted(stem: Any) -> Iterator[list[int]]:
    """The tokens of every pass."""
    passes: list[int] = []
    handle = stem.register_forward_pre_hook(lambda module, inputs: passes.append(inputs[0].num_tokens))
    yield passes
    handle.remove()


@pytest.mark.parametrize("how", [{}, {"no_repeat_ngram_size": 2}, {"num_assistant_tokens": 2}])
def test_a_decoder_writes_the_same_with_an_assistant(folders: dict[str, Path], how: dict[str, Any]) -> None:
    folder = folders["GPT2LMHeadModel"]
    plain = pipeline("text-generation", folder, max_new_tokens=20, **how)
    assistant = another(folder)
    assisted = pipeline("text-generation", folder, assistant_model=assistant, max_new_tokens=20, **how)
    prompts = ["The fox", "Anna lives in", "今天"]
    with counted(assistant.model.stem) as guessed:  # type: ignore[union-attr]
        assert assisted(prompts) == plain(prompts) == [plain(one, assistant_model=assistant) for one in prompts]
        assert guessed
    assert list(assisted.stream("The fox")) == list(plain.stream("The fox"))


def test_an_assistant_given_by_name_is_opened_once_and_guesses(folders: dict[str, Path]) -> None:
    folder = folders["GPT2LMHeadModel"]
    plain = pipeline("text-generation", folder, max_new_tokens=21)
    assisted = pipeline("text-generation", folder, assistant_model=folder, max_new_tokens=21)
    with counted(plain.model.stem) as passes:
        expected = plain("The fox")
    with counted(assisted.model.stem) as fewer:
        assert assisted("The fox") == expected
    assert len(fewer) < len(passes) / 2


@pytest.mark.parametrize(("task", "name", "options"), WRITERS)
def test_an_encoder_decoder_writes_the_same_with_an_assistant(
    writers: dict[str, Path], task: str, name: str, options: dict[str, Any]
) -> None:
    options = {**options, "num_beams": 1, "max_new_tokens": 15}
    plain, assistant = pipeline(task, writers[name], **options), another(writers[name])
    assisted = pipeline(task, writers[name], assistant_model=assistant, **options)
    with counted(assistant.model.decoder.stem) as guessed:  # type: ignore[union-attr]
        assert assisted(TEXTS) == plain(TEXTS)
        assert guessed
    same = pipeline(task, writers[name], assistant_model=writers[name], **options)
    with counted(plain.model.decoder.stem) as passes:
        expected = plain(TEXTS)
    with counted(same.model.decoder.stem) as fewer:
        assert same(TEXTS) == expected
    assert len(fewer) < len(passes)


def test_a_document_is_written_by_the_assistant_too(writers: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("the cat runs over the river . anna lives in paris .", encoding="utf-8")
    for task, name, options in WRITERS[1:]:
        how = {**options, "num_beams": 1, "max_new_tokens": 8}
        assistant = another(writers[name])
        assisted = pipeline(task, writers[name], assistant_model=assistant, **how)
        with counted(assistant.model.decoder.stem) as guessed:  # type: ignore[union-attr]
            assert assisted.document(page) == pipeline(task, writers[name], **how).document(page)
            assert guessed


def test_samples_of_an_encoder_decoder_go_with_an_assistant(writers: dict[str, Path]) -> None:
    assisted = pipeline("text2text-generation", writers["Bart"], assistant_model=writers["Bart"], max_new_tokens=8)
    how: dict[str, Any] = {"do_sample": True, "num_return_sequences": 3, "seed": 1, "num_beams": 1}
    assert [len(answers) for answers in assisted(TEXTS, **how)] == [3, 3]


def test_a_prompt_goes_on_from_what_an_earlier_one_began_with(tiny_hub: Path) -> None:
    run = pipeline("text-generation", tiny_hub / "gpt2", max_new_tokens=2)
    prefixes = PrefixStore(run.model, most_bytes=2**24).salted("")
    instructions = "Answer with one word, and nothing else. " * 2  # a byte a token
    run(instructions + "Red?", prefixes=prefixes)
    prompt = instructions + "Blue?"
    with counted(run.model.stem) as passes:
        assert run(prompt, prefixes=prefixes) == run(prompt)
    assert passes == [len(prompt) - 64, 1, len(prompt), 1]
    assert list(run.stream(prompt, prefixes=prefixes)) == list(run.stream(prompt))


def test_who_cannot_guess_is_one_sentence(folders: dict[str, Path], writers: dict[str, Path]) -> None:
    gpt2 = folders["GPT2LMHeadModel"]
    with pytest.raises(UsageError, match="Bart is a bart, which can't guess for a gpt2: both must be decoders, or"):
        pipeline("text-generation", gpt2, assistant_model=writers["Bart"])
    with pytest.raises(UsageError, match="is a gpt2, which can't guess for a t5"):
        pipeline("summarization", writers["T5"], assistant_model=gpt2)
    with pytest.raises(
        UsageError, match="MBart has other tokens than .*Bart; it can only guess for a model of its own"
    ):
        pipeline("summarization", writers["Bart"], assistant_model=writers["MBart"])
    with pytest.raises(UsageError, match="a call takes an opened Checkpoint: give a name to pipeline"):
        pipeline("text-generation", gpt2)("The fox", assistant_model=str(gpt2))
    with pytest.raises(UsageError, match="an assistant guesses .* does not go with num_beams: give 1"):
        pipeline("summarization", writers["Bart"], assistant_model=writers["Bart"])(TEXTS[0])
    with pytest.raises(UsageError, match="fill-mask has no argument 'assistant_model'"):
        pipeline("fill-mask", folders["BertForMaskedLM"], assistant_model=gpt2)
    with pytest.raises(UsageError, match="summarization has no argument 'prefixes'"):
        pipeline("summarization", writers["Bart"], prefixes=None)
