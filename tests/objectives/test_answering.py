"""Answering: questions that share a look at their image learn what each would learn alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sensorium.config import DrawingConfig, ImageCodecConfig, PatchStemConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.image.opening import normalised
from sensorium.image.patches import pack_images
from sensorium.image.settings import ImageSettings
from sensorium.infer.looking import Looking
from sensorium.models.build import new_model
from sensorium.models.multimodal import MultimodalLM
from sensorium.objectives.answering import Answering
from sensorium.packed import Packed
from sensorium.text.training import train_byte_level_bpe
from sensorium.train.new_models import new_config
from sensorium.train.recipe import ModelSection
from sensorium.train.validation import unsampled
from tests.objectives.test_contrastive import COLOURS, picture

RECORDS: list[dict[str, Any]] = [
    {"image": pixels, "text": text, "target": answer}
    for colour in COLOURS
    for place in ("left", "right")
    for pixels in [picture(colour, place, np.random.default_rng(0))]
    for text, answer in (
        ("what colour is it?", colour), ("where is the coloured half?", place), ("is it red?", "yes"), ("red", "no"),
    )[: 3 + (colour == "red")]
]  # fmt: skip
TOKENIZER = train_byte_level_bpe([text for r in RECORDS for text in (r["text"], r["target"])], 320, family="llava")
LOOKING = (ImageSettings(), PatchStemConfig(32, 16, 8))


def model(*, draws: bool = False) -> MultimodalLM:
    """A llava; or what a janus adds to one, tokens of drawings between those of words and the vectors of images."""
    sizes = ModelSection(family="llava", hidden_size=32, num_layers=2, num_heads=2, max_length=64, image_size=16,
                         patch_size=8, decoder_layers=1)  # fmt: skip
    config: Any = new_config(sizes, {}, TOKENIZER)
    if draws:
        config = replace(config, drawing=DrawingConfig(ImageCodecConfig(4, 12, 4, 32, (1, 1, 1), 1, 8)))
    made = new_model(config, seed=0).double().eval()
    assert isinstance(made, MultimodalLM)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=parameter.dtype)
            parameter.add_(noise, alpha=0.1)
    return made


def looks(objective: Answering, seed: int = 0) -> list[Example]:
    return objective.examples(objective.prepare(RECORDS, TOKENIZER), np.random.default_rng(seed))


def learnt(objective: Answering, examples: list[Example]) -> tuple[float, int, dict[str, Tensor]]:
    """Loss, its items, and gradients by parameter, of a batch."""
    made = model()
    batch = objective.collate(examples, TOKENIZER, np.random.default_rng(0))
    loss = objective.losses(made, batch)["language_model"]
    loss.total.backward()
    gradients = {name: parameter.grad for name, parameter in made.named_parameters() if parameter.grad is not None}
    return float(loss.total.detach()), loss.count, gradients


def test_questions_that_share_a_look_give_the_loss_and_gradients_of_each_alone() -> None:
    alone, shared = (Answering(*LOOKING, questions=most) for most in (1, 3))
    assert len(looks(alone)) == len(RECORDS)
    assert len(looks(shared)) == 10  # of eight pictures, two with four questions
    expected, count, gradients = learnt(alone, looks(alone))
    found, as_many, others = learnt(shared, looks(shared))
    assert (found, as_many) == (pytest.approx(expected, rel=1e-9), count)
    assert gradients.keys() == others.keys()
    assert any("image" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-6, atol=1e-9)


def test_a_question_is_answered_alike_whatever_shares_its_batch() -> None:
    objective, made = Answering(*LOOKING), model()
    examples = looks(objective)

    def states(chosen: list[Example]) -> Tensor:
        return objective.hidden_states(made, objective.collate(chosen, TOKENIZER, np.random.default_rng(0)))

    with torch.no_grad():
        alone = torch.cat([states([example]) for example in examples])
        together = states(examples)
    # A batch stands by length, so the rows are the same in another order.
    distances = torch.cdist(alone, together)
    assert len(alone) == len(together)
    assert float(distances.min(dim=1).values.max()) < 1e-6
    assert len(set(distances.argmin(dim=1).tolist())) > len(alone) / 2


def test_an_image_is_looked_at_once_and_stands_before_each_of_its_questions() -> None:
    objective = Answering(*LOOKING, questions=3)
    examples = looks(objective)
    batch = objective.collate(examples, TOKENIZER, np.random.default_rng(0))
    assert batch.images is not None
    assert batch.images.num_sequences == len(examples) == 10
    assert batch.packed.num_sequences == 10 + len(RECORDS)
    assert [length for example in examples for length in example.lengths[1:]] == list(batch.images.lengths)
    assert [len(example.labels["beginning"]) for example in examples] == list(batch.packed.lengths[:10])
    red = TOKENIZER.encode_plain("red")
    sequences = batch.packed.split(batch.packed.values)[10:]
    for ids, owner in zip(sequences, batch.targets["owners"].tolist(), strict=True):
        example = examples[owner]
        assert ids.tolist() in [question.token_ids.tolist() for question in example.labels["questions"]]
        if ids.tolist()[-1 - len(red) : -1] == red:  # so much is the answer for two pictures alone
            assert example.pixels is not None
            assert example.pixels.reshape(-1, 3).min(axis=0).argmax() == 0  # red is never dark in it


@pytest.mark.parametrize("draws", [False, True])
def test_what_is_learnt_is_what_a_decoder_learns_that_reads_each_text_whole(draws: bool) -> None:
    """An oracle without shared beginnings: image and question, one sequence after another."""
    objective, made = Answering(*LOOKING, questions=3), model(draws=draws)
    examples, total = looks(objective), 0.0
    for example in examples:
        pixels = normalised(example.pixels, objective.images)
        looking = Looking(made, pack_images([pixels], 8, class_token=True))
        [image_ids] = looking.image_ids
        for question in example.labels["questions"]:
            begun = torch.tensor(example.labels["beginning"]).long()
            places = (begun == TOKENIZER.backend.token_to_id("<image>")).nonzero()[:, 0]
            assert len(places) == len(image_ids) == 4
            begun[places] = torch.tensor(image_ids)
            ids = [*begun.tolist(), *question.token_ids.tolist()]
            states = looking(Packed.from_sequences([ids]), None)
            logits = made.next_token_logits(states)[len(begun) + question.answer - 1 : -1]
            answer = torch.tensor(ids[len(begun) + question.answer :])
            total += float(F.cross_entropy(logits, answer, reduction="sum").detach())
    batch = objective.collate(examples, TOKENIZER, np.random.default_rng(0))
    loss = objective.losses(made, batch)["language_model"].total.detach()
    assert float(loss) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("draws", [False, True])
def test_pictures_change_answers(draws: bool) -> None:
    """Vectors of images have ids of their own, whatever else a model knows beside words."""
    made = model(draws=draws)
    red, blue = (
        Looking(made, pack_images([normalised(RECORDS[n]["image"], ImageSettings())], 8, class_token=True))
        for n in (0, -1)
    )
    prompt = Packed.from_sequences([[*red.image_ids[0], 5, 6]])
    assert red.image_ids == blue.image_ids
    assert not torch.allclose(red(prompt, None), blue(prompt, None), atol=1e-3)


def test_all_questions_are_asked_once_an_epoch_and_what_shares_a_look_is_drawn_anew() -> None:
    objective = Answering(*LOOKING, questions=2)

    def asked(seed: int) -> list[tuple[tuple[int, ...], ...]]:
        return [tuple(tuple(q.token_ids.tolist()) for q in look.labels["questions"]) for look in looks(objective, seed)]

    everything = Counter(ids for look in asked(0) for ids in look)
    alone = Counter(ids for look in asked(7) for ids in look)
    assert everything == alone
    assert sum(everything.values()) == len(RECORDS)
    assert asked(0) == asked(0)
    assert asked(0) != asked(1)
    sizes = Counter(len(look) for look in asked(0))
    assert sizes == {2: 4 + 6, 1: 6}  # four are asked two by two, three as two and one


def test_images_are_moved_and_cropped_in_training_alone() -> None:
    plain, moving = Answering(*LOOKING), Answering(*LOOKING, crop=0.5, shift=3)
    examples = looks(plain)

    def patches(objective: Answering, seed: int) -> Packed:
        images = objective.collate(examples, TOKENIZER, np.random.default_rng(seed)).images
        assert images is not None
        return images

    assert not torch.equal(patches(moving, 0).values, patches(plain, 0).values)
    assert torch.equal(patches(moving, 0).values, patches(moving, 0).values)
    assert not torch.equal(patches(moving, 0).values, patches(moving, 1).values)
    validated: Any = unsampled(moving)
    assert torch.equal(patches(validated, 0).values, patches(plain, 0).values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": 3}, "record 2: the image is a int; a file, its bytes"),
        ({"image": np.zeros((4, 4), np.uint8)}, "record 2: the image is a ndarray"),
        ({"image": b"no image"}, "record 2: the image"),
        ({"image": "nowhere.png"}, r"record 2: nowhere\.png"),
        ({"image": None}, "record 2: its 'image' is empty"),
        ({"text": "what is in <image>?"}, "record 2: its 'text' has '<image>' in it, which stands for an image"),
        ({"target": "<image>"}, "record 2: its 'target' has '<image>' in it"),
        ({"text": "red blue " * 99}, r"record 2 has \d+ tokens and patches; objective.max_length is 128"),
    ],
)
def test_what_is_wrong_with_a_record_is_said_with_its_number(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Answering(*LOOKING).prepare([RECORDS[0], {**RECORDS[1], **changes}], TOKENIZER)
