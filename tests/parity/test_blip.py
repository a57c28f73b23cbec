"""A decoder that attends to all vectors of an image, against `transformers`, on random configurations: numbers, texts,
files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.errors import CheckpointError, UsageError
from sensorium.image.patches import pack_images
from sensorium.infer.beam import beam_search
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.engine import fast
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.packed import Packed
from sensorium.storage import read_json, write_json
from tests.parity.laws import assert_saved_as_it_was_opened

VOCABULARY, BEGIN, END = 40, 39, 38
ACTIVATIONS = st.sampled_from(["gelu", "gelu_new", "relu"])
DEAD = {"text_decoder.cls.predictions.bias"}
"""Untied, the published code adds the decoder's bias and never reads this one."""


@st.composite
def configurations(draw: Any) -> Any:
    """A small random published config, whose two sides differ in all sizes."""
    heads, patch, tied = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.booleans())
    vision = {
        "hidden_size": heads * draw(st.sampled_from([2, 6])), "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads, "intermediate_size": draw(st.integers(3, 20)), "patch_size": patch,
        "image_size": patch * draw(st.integers(1, 3)), "hidden_act": draw(ACTIVATIONS),
        "layer_norm_eps": draw(st.sampled_from([1e-5, 1e-2])),
    }  # fmt: skip
    heads = draw(st.integers(1, 3))
    text = {
        "vocab_size": VOCABULARY, "hidden_size": heads * draw(st.sampled_from([4, 6])),
        "intermediate_size": draw(st.integers(3, 20)), "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads, "max_position_embeddings": 24, "hidden_act": draw(ACTIVATIONS),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-2])), "bos_token_id": BEGIN, "sep_token_id": END,
        "tie_word_embeddings": tied,
    }  # fmt: skip
    return transformers.BlipConfig(vision_config=vision, text_config=text, tie_word_embeddings=tied)


def randomised(config: Any, spread: float = 0.3) -> Any:
    """In float64, every weight random."""
    torch.manual_seed(0)
    model = transformers.BlipForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, spread)
    return model


def opened(model: Any, dtype: torch.dtype = torch.float64) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return open_checkpoint(folder, dtype=dtype).model


def pictures(config: Any, count: int = 3) -> torch.Tensor:
    side = config.vision_config.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1)).double()


def packed(images: torch.Tensor, config: Any) -> Packed:
    return pack_images(list(images), config.vision_config.patch_size, class_token=True)


@given(data=st.data())
@settings(max_examples=20)
def test_texts_about_images_have_the_logits_of_transformers(data: st.DataObject) -> None:
    config = data.draw(configurations())
    model = randomised(config)
    images = pictures(config, data.draw(st.integers(1, 4)))
    word = st.integers(0, VOCABULARY - 1)
    texts = [[BEGIN, *data.draw(st.lists(word, max_size=12))] for _ in images]
    with torch.no_grad():
        expected = torch.cat(
            [
                model(pixel_values=image[None], input_ids=torch.tensor([text])).logits[0]
                for image, text in zip(images, texts, strict=True)
            ]
        )
        found = opened(model)
        ours = found.next_token_logits(found(Packed.from_sequences(texts), found.encode(packed(images, config))))
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9 * scale)


@given(data=st.data())
@settings(max_examples=8)
def test_what_is_written_is_what_transformers_writes(data: st.DataObject) -> None:
    """From nothing and from a beginning of their own; an end token ends some of them."""
    config = data.draw(configurations())
    model = randomised(config, 0.5)
    images = pictures(config)
    beginnings = [data.draw(st.lists(st.integers(0, 37), max_size=3)) for _ in images]
    expected = []
    for image, beginning in zip(images, beginnings, strict=True):
        inputs = {"input_ids": torch.tensor([[1, *beginning, END]])} if beginning else {}  # framed as a tokenizer does
        written = model.generate(pixel_values=image[None], max_new_tokens=12, do_sample=False, **inputs)
        new = written[0, 1 + len(beginning) :].tolist()
        expected.append(new[: new.index(END)] if END in new else new)
    reader = Conditioned(opened(model), packed(images, config))
    prompts = [[*prompt, *more] for prompt, more in zip(reader.prompts, beginnings, strict=True)]
    assert generate(reader, prompts, GenerationSettings(max_new_tokens=12, eos_token_id=END)) == expected


SIZED = transformers.BlipConfig(
    vision_config={
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20, "image_size": 12,
        "patch_size": 4,
    },
    text_config={
        "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 24, "bos_token_id": BEGIN, "sep_token_id": END,
    },
)  # fmt: skip


@pytest.mark.parametrize("dtype", [None, "fp32"])
def test_beams_find_what_the_beams_of_transformers_find(dtype: str | None) -> None:
    model = randomised(SIZED, 0.5).float()
    images = pictures(SIZED).float()
    written = model.generate(pixel_values=images, max_new_tokens=8, num_beams=3, do_sample=False)
    found = opened(model, torch.float32)
    reader = Conditioned(found if dtype is None else fast(found, dtype), packed(images, SIZED))
    beams = beam_search(reader, reader.prompts, GenerationSettings(max_new_tokens=8, num_beams=3, eos_token_id=END))
    for row, [best] in zip(written[:, 1:].tolist(), beams, strict=True):
        assert best.token_ids == (row[: row.index(END)] if END in row else row)


def test_images_of_several_shapes_share_a_batch() -> None:
    """Each is written about as it is alone, its places interpolated as the published code does when it is asked to."""
    model = randomised(SIZED, 0.5)
    images = [torch.randn(3, rows, columns).double() for rows, columns in ((12, 12), (8, 20), (24, 4))]
    found = opened(model)
    reader = Conditioned(found, pack_images(images, 4, class_token=True))
    ours = generate(reader, reader.prompts, GenerationSettings(max_new_tokens=10, eos_token_id=END))
    for image, new in zip(images, ours, strict=True):
        theirs = model.generate(
            pixel_values=image[None], interpolate_pos_encoding=True, max_new_tokens=10, do_sample=False
        )[0, 1:].tolist()
        assert new == (theirs[: theirs.index(END)] if END in theirs else theirs)


@given(data=st.data())
@settings(max_examples=8)
def test_saving_what_was_opened_gives_the_same_bytes_and_opens_in_transformers(data: st.DataObject) -> None:
    assert_saved_as_it_was_opened(randomised(data.draw(configurations())).float(), DEAD)


def test_a_config_as_it_was_first_published_opens(tmp_path: Path) -> None:
    """It named every default, also those of a decoder and of a count of channels."""
    model = randomised(SIZED).float()
    model.save_pretrained(tmp_path)
    raw = read_json(tmp_path / "config.json")
    for name, own in (("text_config", {"is_decoder": True}), ("vision_config", {"is_decoder": False, "dropout": 0.0})):
        raw[name] |= own | {"is_encoder_decoder": False, "add_cross_attention": False, "initializer_factor": 1.0}
    raw["vision_config"]["num_channels"] = 3
    write_json(tmp_path / "config.json", raw)
    assert open_checkpoint(tmp_path).family == "blip"


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("text_config", {"is_decoder": False}, "text_config.is_decoder is false; only a decoder writes captions"),
        ("vision_config", {"num_channels": 1}, "num_channels is 1; only 3 is supported for family blip"),
        ("vision_config", {"is_decoder": True}, "is_decoder is True; only False is supported for family blip"),
        ("text_config", {"bos_token_id": 40}, "texts begin with token 40 and end with 38; the decoder has 40"),
        ("text_config", {"rotary": True}, "the key 'rotary' is not known for family blip"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, section: str, changes: dict[str, Any], message: str) -> None:
    randomised(SIZED).float().save_pretrained(tmp_path)
    raw = read_json(tmp_path / "config.json")
    raw[section] |= changes
    write_json(tmp_path / "config.json", raw)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_a_model_that_answers_questions_is_refused_by_its_weights(tmp_path: Path) -> None:
    transformers.BlipForQuestionAnswering(SIZED).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="left over: text_encoder"):
        open_checkpoint(tmp_path)


def test_more_texts_than_images_are_refused(tmp_path: Path) -> None:
    randomised(SIZED).float().save_pretrained(tmp_path)
    found: Any = open_checkpoint(tmp_path).model
    memory = found.encode(packed(pictures(SIZED, 1), SIZED))
    with pytest.raises(UsageError, match="2 sequences attend to the sources of 1"):
        found(Packed.from_sequences([[BEGIN], [BEGIN]]), memory)
    save_checkpoint(tmp_path / "again", found, None, family="blip")  # without what makes texts and images ready
    assert open_checkpoint(tmp_path / "again").tokenizer is None
