"""Two towers in folders of their own against sentence-transformers, which publishes them so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router, Transformer

from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.infer.batching import pack_encodings
from sensorium.tasks.image_feature_extraction import ImageFeatureExtraction
from tests.conftest import WORDPIECES

TEXTS = ["a", "a red house", "two words and more of them than before"]
SIZES: dict[str, Any] = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
READERS: dict[str, Any] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(vocab_size=len(WORDPIECES), **SIZES)),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(vocab_size=len(WORDPIECES), dim=12, n_layers=1, n_heads=3, hidden_dim=20)
    ),
    "gpt2": lambda: transformers.GPT2Model(
        transformers.GPT2Config(vocab_size=len(WORDPIECES), n_embd=12, n_layer=1, n_head=2, n_positions=64)
    ),
}


def published(folder: Path, reader: str, pooling: str, *, bias: bool, normalised: bool = True) -> Path:
    """A router with random weights, saved as they save it."""
    torch.manual_seed(0)
    for name in ("text", "image"):
        (folder / name).mkdir(parents=True)
    (folder / "text" / "vocab.txt").write_text("\n".join(WORDPIECES) + "\n")
    # GPT-2 would add a token's vector for each segment id.
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if reader == "bert" else [])]
    tokenizer = transformers.BertTokenizerFast(str(folder / "text" / "vocab.txt"), model_input_names=names)
    tokenizer.save_pretrained(folder / "text")
    vit = transformers.ViTModel(transformers.ViTConfig(**SIZES, image_size=16, patch_size=4))
    for name, model in (("text", READERS[reader]()), ("image", vit)):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.3)
        model.save_pretrained(folder / name)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "image")
    after = [Normalize()] if normalised else []
    routes = {
        "text": [Transformer(str(folder / "text")), Pooling(12, pooling), linear(bias), *after],
        "image": [Transformer(str(folder / "image")), Pooling(12, "cls"), linear(False), *after],
    }
    SentenceTransformer(modules=[Router(routes)]).save(str(folder / "router"))
    return folder / "router"


def linear(bias: bool) -> Dense:
    return Dense(12, 8, bias=bias, activation_function=None)


def pictures() -> list[Any]:
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((16, 16), (20, 9), (5, 33))
    ]


@torch.no_grad()
def ours(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    checkpoint = open_checkpoint(folder)
    encodings = [checkpoint.require_tokenizer().encode(text) for text in TEXTS]
    model: Any = checkpoint.model
    images = [vector for [vector] in ImageFeatureExtraction(checkpoint, 64)(pictures())]
    return model.text_vectors(pack_encodings(encodings)).numpy(), np.array(images)


@pytest.mark.parametrize(
    ("reader", "pooling", "bias"),
    [("bert", "mean", False), ("bert", "cls", True), ("distilbert", "mean", True), ("gpt2", "lasttoken", False)],
)
def test_texts_and_images_meet_where_they_do_in_sentence_transformers(
    tmp_path: Path, reader: str, pooling: str, bias: bool
) -> None:
    theirs = published(tmp_path, reader, pooling, bias=bias)
    expected = SentenceTransformer(str(theirs))
    found = ours(theirs)
    for inputs, vectors in zip((TEXTS, pictures()), found, strict=True):
        np.testing.assert_allclose(vectors, expected.encode(inputs), rtol=0, atol=2e-6)  # type: ignore[call-overload]
    opened = open_checkpoint(theirs)
    assert opened.family == f"vit+{reader}"
    saved = tmp_path / "saved"
    save_checkpoint(saved, opened.model, opened.tokenizer, family=opened.family, images=opened.images)
    again = SentenceTransformer(str(saved))
    for inputs, vectors in zip((TEXTS, pictures()), ours(saved), strict=True):
        np.testing.assert_array_equal(again.encode(inputs), expected.encode(inputs))  # type: ignore[call-overload]
        np.testing.assert_allclose(vectors, expected.encode(inputs), rtol=0, atol=2e-6)  # type: ignore[call-overload]


def test_a_router_that_leaves_vectors_as_long_as_they_are_has_the_same_angles(tmp_path: Path) -> None:
    theirs = published(tmp_path, "bert", "mean", bias=False, normalised=False)
    expected = SentenceTransformer(str(theirs)).encode(TEXTS)
    length = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(ours(theirs)[0], expected / length, rtol=0, atol=2e-6)


def test_saving_what_was_opened_gives_the_same_bytes(tmp_path: Path) -> None:
    source = published(tmp_path, "bert", "mean", bias=True)
    for name in ("once", "twice"):
        opened = open_checkpoint(source)
        source = tmp_path / name
        save_checkpoint(source, opened.model, opened.tokenizer, family=opened.family, images=opened.images)
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    assert len(files) > 15
    for file in files:
        assert (tmp_path / "once" / file).read_bytes() == (source / file).read_bytes(), file


def test_the_scale_of_products_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    opened = open_checkpoint(published(tmp_path, "bert", "mean", bias=False))
    model: Any = opened.model
    assert model.logit_scale.exp().item() == pytest.approx(20)
    with torch.no_grad():
        model.logit_scale.fill_(1.2345678)
    save_checkpoint(tmp_path / "saved", model, opened.tokenizer, family=opened.family, images=opened.images)
    again: Any = open_checkpoint(tmp_path / "saved").model
    assert torch.equal(again.logit_scale, model.logit_scale)
