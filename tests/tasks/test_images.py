"""Tasks that look at images: the answers of `transformers`, whatever form an image comes in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sensorium import pipeline
from sensorium.errors import CheckpointError, DataError, UsageError
from tests.image.test_opening import WRONG

LABELS = ["a cat", "a dog", "the moon"]
WORDS = ["<s>", "<e>", "<unk>", ".", "a", "this", "is", "photo", "of", "cat", "dog", "the", "moon"]
TOWER = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}


def spread(model: Any) -> Any:
    """Weights that tell inputs apart."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim():
                parameter.normal_(0.0, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(**TOWER, image_size=16, patch_size=4, id2label=dict(enumerate(LABELS)))
    spread(transformers.ViTForImageClassification(config)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(
        text_config={**text, **TOWER}, vision_config={"image_size": 16, "patch_size": 4, **TOWER}, projection_dim=8
    )
    spread(transformers.CLIPModel(config)).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A <e>", special_tokens=[("<s>", 0), ("<e>", 1)])
    words.add_special_tokens(["<s>", "<e>", "<unk>"])
    words.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(20, 30), (16, 16), (41, 17)]):
        Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        paths.append(folder / f"{number}.png")
    return paths


@torch.no_grad()
def test_labels_and_scores_are_those_of_transformers(vit: Path, pictures: list[Path]) -> None:
    model = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    processor = ViTImageProcessorPil.from_pretrained(vit)
    inputs = processor([Image.open(path) for path in pictures], return_tensors="pt")
    expected = model(**inputs).logits.softmax(dim=-1)
    classifier = pipeline("image-classification", vit)
    answers = classifier(pictures, top_k=None)
    assert [len(answer) for answer in answers] == [3, 3, 3]
    for answer, scores in zip(answers, expected, strict=True):
        order = scores.argsort(descending=True).tolist()
        assert [one["label"] for one in answer] == [LABELS[i] for i in order]
        assert [one["score"] for one in answer] == pytest.approx(scores[order].tolist(), abs=1e-5)
    best = classifier(pictures[0], top_k=2)
    assert [one["label"] for one in best] == [one["label"] for one in answers[0][:2]]
    assert sum(one["score"] for one in classifier(pictures[0])) == pytest.approx(1.0)


@torch.no_grad()
def test_an_image_matches_descriptions_as_in_transformers(clip: Path, pictures: list[Path]) -> None:
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    processor = CLIPImageProcessorPil.from_pretrained(clip)
    reader = transformers.PreTrainedTokenizerFast(tokenizer_file=str(clip / "tokenizer.json"), pad_token="<e>")
    texts = reader([f"this is a photo of {label}" for label in LABELS], return_tensors="pt", padding=True)
    images = processor([Image.open(path) for path in pictures], return_tensors="pt")
    ids, mask = texts["input_ids"], texts["attention_mask"]
    expected = model(input_ids=ids, attention_mask=mask, **images).logits_per_image.softmax(dim=-1)
    matcher = pipeline("zero-shot-image-classification", clip)
    answers = matcher(pictures, LABELS, hypothesis_template="this is a photo of {}")
    for answer, scores in zip(answers, expected, strict=True):
        found = {one["label"]: one["score"] for one in answer}
        assert [found[label] for label in LABELS] == pytest.approx(scores.tolist(), abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)
    again = matcher(pictures[1], ", ".join(LABELS), hypothesis_template="this is a photo of {}")
    assert [one["label"] for one in again] == [one["label"] for one in answers[1]]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_features_are_the_hidden_states_of_transformers(vit: Path, pictures: list[Path], dtype: str) -> None:
    model = transformers.ViTModel.from_pretrained(vit, add_pooling_layer=False).eval()
    inputs = ViTImageProcessorPil.from_pretrained(vit)(Image.open(pictures[2]), return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
    [found] = pipeline("image-feature-extraction", vit, dtype=dtype)([pictures[2]])
    tolerance = 1e-4 if dtype == "fp32" else 0.1
    assert torch.allclose(torch.tensor(found), expected, atol=tolerance)


def test_a_model_that_matches_gives_one_vector_of_length_1(clip: Path, pictures: list[Path]) -> None:
    [vector] = pipeline("image-feature-extraction", clip)(pictures[0])
    assert len(vector) == 8
    assert sum(x * x for x in vector) == pytest.approx(1.0)


def test_an_image_may_come_in_any_form_and_in_any_company(vit: Path, pictures: list[Path]) -> None:
    classifier = pipeline("image-classification", vit, top_k=1)
    expected = [classifier(path)[0]["score"] for path in pictures]
    opened = Image.open(pictures[0])
    file = io.BytesIO()
    opened.save(file, format="PNG")
    for form in (str(pictures[0]), pictures[0], opened, np.asarray(opened), file.getvalue()):
        assert classifier(form)[0]["score"] == pytest.approx(expected[0], abs=1e-6)
    together = pipeline("image-classification", vit, top_k=1, batch_tokens=20)
    assert [answer[0]["score"] for answer in together(iter(pictures * 3))] == pytest.approx(expected * 3, abs=1e-6)


def test_a_bad_image_is_named_after_those_before_it_are_answered(vit: Path, pictures: list[Path]) -> None:
    bad = pictures[0].parent / "bad.png"
    bad.write_text("no image")
    stream = pipeline("image-classification", vit)(iter([pictures[0], bad, pictures[1]]))
    assert len(next(stream)) == 3
    with pytest.raises(DataError, match=r"bad\.png: is no image that can be read"):
        next(stream)


@pytest.mark.parametrize("task", ["image-classification", "zero-shot-image-classification", "image-feature-extraction"])
@pytest.mark.parametrize("batch_tokens", [20, 4096])
def test_bad_images_may_be_answered_with_the_reason_and_cost_the_others_nothing(
    task: str, batch_tokens: int, vit: Path, clip: Path, pictures: list[Path], tmp_path: Path
) -> None:
    run = pipeline(task, vit if task == "image-classification" else clip, batch_tokens=batch_tokens)
    options = {"candidate_labels": LABELS} if task.startswith("zero") else {}
    inputs: list[Any] = [pictures[0]]
    for number, (make, _) in enumerate(WRONG.values()):
        (tmp_path / f"{number}.png").write_bytes(make())
        inputs += [tmp_path / f"{number}.png", pictures[number % 3]]
    inputs += [None, tmp_path / "nothing.png", "https://example.org/cat.png"]
    answers = run(inputs, **options, on_error="answer")
    assert answers == list(run(iter(inputs), **options, on_error="answer"))
    bad = [answer["error"] for answer in answers if isinstance(answer, dict) and "error" in answer]
    assert len(bad) == len(WRONG) + 3
    assert bad[0].startswith(f"{tmp_path}/0.png: is no image that can be read")
    assert bad[-3].startswith(f"input {len(inputs) - 2} is a NoneType")
    for source, answer in zip(inputs, answers, strict=True):
        if source in pictures:
            assert str(answer) == str(run([source], **options)[0]) or close(answer, run([source], **options)[0])
    with pytest.raises(DataError, match=r"0\.png: is no image that can be read"):
        run(inputs, **options)
    with pytest.raises(UsageError, match="on_error is 'skip'; known are raise, answer"):
        run(inputs, **options, on_error="skip")


def close(a: Any, b: Any) -> bool:
    """Scores and vectors, within the rounding of another batch."""
    if isinstance(a, list) and isinstance(a[0], dict):
        return {one["label"]: one["score"] for one in a} == pytest.approx({one["label"]: one["score"] for one in b})
    return bool(np.allclose(a, b, atol=1e-5))


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ("https://example.org/cat.png", "is an address .*; download the image, and give its file"),
        (3, "the input is a int; an image, or several of them, is expected"),
        ([None], "input 1 is a NoneType; a file, its bytes, a picture of Pillow or an array .H, W, 3. uint8"),
        (np.zeros((4, 4, 4)), "input 1 is a ndarray"),
    ],
)
def test_what_is_no_image_is_said(vit: Path, one: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        pipeline("image-classification", vit)(one)


def test_a_model_that_does_not_fit_the_task_is_named(
    vit: Path, clip: Path, tiny_hub: Path, pictures: list[Path]
) -> None:
    with pytest.raises(UsageError, match="image-classification needs a model for images .vit.; this is a clip"):
        pipeline("image-classification", clip)
    with pytest.raises(UsageError, match="needs a model for images and texts .clip.; this is a vit"):
        pipeline("zero-shot-image-classification", vit)
    with pytest.raises(UsageError, match="text-classification needs an encoder; this is a vit"):
        pipeline("text-classification", vit)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        pipeline("sentence-embedding", vit)
    with pytest.raises(CheckpointError, match="a clip model looks at images; this is for one that reads text alone"):
        pipeline("sentence-embedding", clip)
    with pytest.raises(UsageError, match="at least one label is needed"):
        pipeline("zero-shot-image-classification", clip)(pictures[0], [])
