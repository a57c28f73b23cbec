"""`sensorium tokenizer train` learns a vocabulary that opens again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sensorium.text import open_tokenizer


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_what_is_learnt_opens_and_gives_the_text_back(kind: str, call: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("body\nthe cat sat\nthe dog sat\n今天很好\n", encoding="utf-8")
    arguments = ["--output", tmp_path / "out", "--kind", kind, "--vocabulary-size", 400, "--column", "body"]
    answer = call("tokenizer", "train", tmp_path / "rows.csv", *arguments)
    assert answer.status == 0, answer.err
    tokenizer = open_tokenizer(tmp_path / "out")
    assert f"{tokenizer.vocabulary_size:,} tokens, learned from 3 texts" in answer.out
    assert tokenizer.decode(tokenizer.encode("the cat sat").token_ids) == "the cat sat"


def test_no_text_is_one_sentence(call: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    answer = call("tokenizer", "train", tmp_path / "empty.txt", "--output", tmp_path / "out")
    assert (answer.status, answer.err) == (2, f"sensorium: {tmp_path / 'empty.txt'}: holds no records\n")
    assert not (tmp_path / "out").exists()
