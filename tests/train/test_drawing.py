"""A codec learns to give back what it was given, a model learns to draw in its tokens, and both open elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from sensorium import open_checkpoint, pipeline
from sensorium.errors import SensoriumError
from sensorium.image.opening import normalised, open_image
from sensorium.models.image_codec import ImageCodec
from sensorium.models.multimodal import FREQUENCY, MultimodalLM
from sensorium.objectives.drawing import Drawing
from sensorium.text.drawing import prompt_ids
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.train.conftest import COLOURS, write_codec, write_drawer, write_matcher

PLACES = {"top left": (4, 4), "top right": (12, 4), "low left": (4, 12), "low right": (12, 12)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawing")
    run_recipe(read_recipe(write_codec(folder), ["train.precision=fp32"]), quiet=True)
    run_recipe(read_recipe(write_drawer(folder), ["train.precision=fp32"]), quiet=True)
    return folder


def is_drawn(picture: Image.Image, colour: str, place: str) -> bool:
    """The middle of the right corner is nearest to the right colour, those of the others are nearest to white."""
    pixels = np.asarray(picture).astype(int)

    def nearest(x: int, y: int) -> str:
        known = {**COLOURS, "white": (255, 255, 255)}
        return min(known, key=lambda name: sum(abs(a - b) for a, b in zip(known[name], pixels[y, x], strict=True)))

    found = {name: nearest(*point) for name, point in PLACES.items()}
    return found == {name: colour if name == place else "white" for name in PLACES}


def test_the_codec_gives_back_what_it_was_given(trained: Path) -> None:
    opened = open_checkpoint(trained / "codec")
    assert isinstance(opened.model, ImageCodec)
    settings = opened.require_image_settings()
    paths = sorted(trained.glob("*.png"))
    pixels = torch.stack([normalised(open_image(str(path), settings), settings) for path in paths])
    with torch.no_grad():
        tokens = opened.model.encode_alike(pixels)
        found = opened.model.decode(tokens)
    assert tokens.shape == (16, 4, 4)
    assert len(tokens.unique()) > 5  # the codes have not collapsed
    assert (found - pixels).abs().mean() < 0.1  # of values from -1 to 1
    codes = opened.model.codes.weight
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(len(codes)))


def test_a_codec_learns_as_much_in_bf16(trained: Path, tmp_path: Path) -> None:
    logs = {}
    for precision in ("fp32", "bf16"):
        settings = [f"train.precision={precision}", "train.epochs=4", f"train.output={tmp_path / precision}"]
        run_recipe(read_recipe(trained / "codec.toml", settings), quiet=True)
        log = (tmp_path / f"{precision}.training" / "train.jsonl").read_text().splitlines()
        logs[precision] = [json.loads(line) for line in log if '"validation"' not in line]
    losses = {name: [one["loss"] for one in log if "loss" in one] for name, log in logs.items()}
    assert losses["bf16"][-1] < 0.8 * losses["bf16"][0]
    assert losses["bf16"][-1] == pytest.approx(losses["fp32"][-1], rel=0.2)


def test_pictures_are_of_what_was_asked_for(trained: Path) -> None:
    draw = pipeline("text-to-image", trained / "drawer", guidance_scale=1.5, seed=1)
    asked = [(colour, place) for colour in COLOURS for place in PLACES]
    pictures = draw([f"a {colour} square, {place}" for colour, place in asked])
    right = [is_drawn(picture, *what) for picture, what in zip(pictures, asked, strict=True)]
    assert sum(right) >= 14


def test_a_picture_does_not_depend_on_what_is_drawn_beside_it(trained: Path) -> None:
    draw = pipeline("text-to-image", trained / "drawer", seed=3, temperature=1.5)
    texts = ["a red square, low left", "a black square, top right", "a blue square, top left"]
    together = draw(texts, num_images_per_prompt=2)
    alone = [draw(text, num_images_per_prompt=2) for text in texts]
    several = pipeline("text-to-image", trained / "drawer", seed=3, temperature=1.5, batch_tokens=200)(
        iter(texts), num_images_per_prompt=2
    )
    for one, other, third in zip(together, alone, several, strict=True):
        assert [p.tobytes() for p in one] == [p.tobytes() for p in other] == [p.tobytes() for p in third]
    assert any(one[0].tobytes() != one[1].tobytes() for one in together)


def test_transformers_draws_the_same_with_what_was_saved(trained: Path) -> None:
    opened = open_checkpoint(trained / "drawer")
    tokenizer = opened.require_tokenizer()
    model = transformers.JanusForConditionalGeneration.from_pretrained(trained / "drawer").eval()
    prompt = tokenizer.encode("a green square, low right<begin_of_image>").token_ids
    drawn = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64), do_sample=False,
        generation_mode="image", guidance_scale=3.0, max_new_tokens=16,
    )  # fmt: skip
    with torch.inference_mode():
        pixels = model.decode_image_tokens(drawn)[0]  # [H, W, 3]
    picture = pipeline("text-to-image", opened)("a green square, low right", guidance_scale=3.0, do_sample=False)
    theirs = ((pixels * 0.5 + 0.5) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    assert np.abs(np.asarray(picture).astype(int) - theirs.astype(int)).max() <= 1
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    image = Image.open(trained / "red top left.png")
    seen = JanusImageProcessorPil.from_pretrained(trained / "drawer")([image], return_tensors="pt")["pixel_values"][0]
    settings = opened.require_image_settings()
    torch.testing.assert_close(seen, normalised(open_image(image, settings), settings), rtol=0, atol=1e-6)


def test_the_codec_of_a_drawer_is_the_one_it_was_given(trained: Path) -> None:
    codec, drawer = (open_checkpoint(trained / name).model for name in ("codec", "drawer"))
    assert isinstance(drawer, MultimodalLM)
    own = drawer.require_drawing().codec.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in codec.state_dict().items())


def test_a_new_drawer_begins_with_what_its_codec_knows_and_keeps_it_frozen(trained: Path, tmp_path: Path) -> None:
    frozen = 'train.freeze=["drawing.tokens.*", "drawing.vocabulary.*"]'
    run_recipe(read_recipe(trained / "drawer.toml", ["train.epochs=1", f"train.output={tmp_path / 'x'}", frozen]))
    codec, drawer = (open_checkpoint(path).model for path in (trained / "codec", tmp_path / "x"))
    assert isinstance(codec, ImageCodec)
    assert isinstance(drawer, MultimodalLM)
    codes, drawing = codec.codes.weight, drawer.require_drawing()
    torch.testing.assert_close(drawing.tokens.weight, codes, rtol=0, atol=1e-2)
    heads = drawing.vocabulary.weight  # [C, D]
    products, expected = heads @ heads.T, (-((FREQUENCY * torch.cdist(codes, codes)) ** 2) / 2).exp()
    apart = ~torch.eye(len(codes), dtype=torch.bool)
    assert np.corrcoef(products[apart].detach(), expected[apart].detach())[0, 1] > 0.5  # D is but 32 here


def test_a_run_that_was_interrupted_goes_on_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    for kind in ("codec", "drawer"):
        write_matcher(tmp_path)
        path = write_codec(tmp_path) if kind == "codec" else write_drawer(tmp_path)
        settings = [f"model.codec={trained / 'codec'}"] if kind == "drawer" else []
        weights = []
        for name, stops in (("whole", [4]), ("parts", [2, 4])):
            for number, steps in enumerate(stops):
                own = [f"train.output={tmp_path / (kind + name)}", "train.epochs=2", "train.checkpoint_every=1"]
                recipe = read_recipe(path, [*settings, *own])
                interrupted(recipe, steps, resume=number > 0)
            weights.append((tmp_path / (kind + name) / "model.safetensors").read_bytes())
        assert weights[0] == weights[1]


def interrupted(recipe: object, steps: int, *, resume: bool) -> None:
    """A run of four updates that is asked to stop after so many."""
    from sensorium.train.loop import Trainer

    step = Trainer._step

    def stopping(self: Trainer, batches: object) -> None:
        step(self, batches)  # type: ignore[arg-type]
        self.interruption.requested = self.position.step >= steps and steps < 4

    Trainer._step = stopping  # type: ignore[method-assign]
    try:
        run_recipe(recipe, resume=resume, quiet=True)  # type: ignore[arg-type]
    finally:
        Trainer._step = step  # type: ignore[method-assign]


def test_a_caption_that_is_hidden_is_padding_and_its_drawing_is_learnt_as_well(trained: Path) -> None:
    lines = (trained / "drawer.training" / "train.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if json.loads(line)["kind"] == "train"]
    assert losses[-1] < losses[0] / 2
    opened = open_checkpoint(trained / "drawer")
    assert opened.generation["generation_kwargs"] == {"boi_token_id": 3}
    assert opened.require_tokenizer().pad_id == 1


def test_words_of_captions_are_hidden_whole_and_about_as_many_as_asked_for(trained: Path) -> None:
    opened = open_checkpoint(trained / "drawer")
    assert isinstance(opened.model, MultimodalLM)
    tokenizer = opened.require_tokenizer()
    codec = opened.model.require_drawing().codec
    objective = Drawing(opened.require_image_settings(), codec, caption_dropout=0.0, word_dropout=0.3)
    text = "a green square, unbelievably low"
    prepared = objective.prepare([{"image": str(trained / "green low left.png"), "text": text}], tokenizer)
    whole, words = prompt_ids(text, tokenizer), tokenizer.encode(text).word_ids
    assert len(words) > len(set(words)) - (None in words)  # some words are several tokens
    generator, hidden = np.random.default_rng(0), []
    for _ in range(300):
        ids = objective.collate(prepared, tokenizer, generator).packed.values[: len(whole)].tolist()
        assert ids[-1] == whole[-1]
        states = {
            word: {(ids[n] == tokenizer.pad_id, ids[n] == whole[n]) for n, other in enumerate(words) if other == word}
            for word in set(words)
        }
        assert all(state in ({(True, False)}, {(False, True)}) for state in states.values())
        hidden += [state == {(True, False)} for word, state in states.items() if word is not None]
    assert 0.25 < np.mean(hidden) < 0.35


@pytest.mark.parametrize("colour_words", [("green", "red"), ()])
def test_words_that_other_colours_make_untrue_are_hidden_and_no_others(
    trained: Path, colour_words: tuple[str, ...]
) -> None:
    opened = open_checkpoint(trained / "drawer")
    assert isinstance(opened.model, MultimodalLM)
    tokenizer = opened.require_tokenizer()
    codec = opened.model.require_drawing().codec
    how = {"caption_dropout": 0.0, "recolour": 0.5, "colour_words": colour_words}
    objective = Drawing(opened.require_image_settings(), codec, **how)
    [prepared] = objective.prepare(
        [{"image": str(trained / "green low left.png"), "text": "a green square, low left"}], tokenizer
    )
    whole, own = prompt_ids("a green square, low left", tokenizer), prepared.labels["drawn"][0].tolist()
    words = tokenizer.encode("a green square, low left").word_ids
    generator, others = np.random.default_rng(0), []
    for _ in range(100):
        ids = objective.collate([prepared], tokenizer, generator).packed.values.tolist()
        prompt, drawn = ids[: len(whole)], ids[len(whole) :]
        if prompt == whole:
            assert drawn == own
            continue
        others.append(tuple(drawn))
        hidden = [number for number, token_id in zip(words, prompt, strict=False) if token_id == tokenizer.pad_id]
        assert set(hidden) == ({1} if colour_words else set(words))
        assert prompt[-1] == whole[-1]
    assert 35 < len(others) < 65
    assert len(set(others)) > 1


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("codec", ["model.patch_size=8"], "3 levels of channels make it 4, not 8"),
        ("codec", ["model.channels=[32, 48, 32]"], r"\[32, 48, 32\] are no multiples of the first, 32"),
        ("codec", ["model.channels=[16, 16, 16]"], "must be a multiple of 32"),
        (
            "codec",
            ["objective.caption_dropout=0.5"],
            "objective.caption_dropout: training of the kind 'codec' does not",
        ),
        (
            "codec",
            ["model.family=vit", "model.channels=[32]"],
            "'codec' trains a model of the family janus_vqgan, not vit",
        ),
        (
            "drawer",
            ["model.image_size=32"],
            "model.image_size, model.patch_size are 32, 4; those of model.codec are 16, 4",
        ),
        ("drawer", ["objective.max_length=8"], r"record 1 has \d+ tokens; objective.max_length is 8"),
        ("drawer", ["objective.kind=answering"], "no column 'target'"),
    ],
)
def test_what_does_not_fit_is_named(
    trained: Path, tmp_path: Path, kind: str, overrides: list[str], message: str
) -> None:
    path = trained / f"{kind}.toml"
    with pytest.raises(SensoriumError, match=message):
        run_recipe(read_recipe(path, [f"train.output={tmp_path / 'x'}", *overrides]), quiet=True)


def test_models_that_are_no_codec_or_do_not_draw_are_refused(trained: Path, tiny_hub: Path, tmp_path: Path) -> None:
    for overrides, message in (
        ([f"model.codec={tiny_hub / 'clip'}"], "is a clip model, and no codec of images"),
        ([f"model.open={tiny_hub / 'llava'}"], "a llava model does not draw; a janus does"),
        ([f"model.open={tiny_hub / 'clip'}"], "looks at images; 'drawing' does not train it"),
    ):
        recipe = read_recipe(trained / "drawer.toml", [f"train.output={tmp_path / 'x'}", *overrides])
        with pytest.raises(SensoriumError, match=message):
            run_recipe(recipe, quiet=True)
    with pytest.raises(SensoriumError, match="does not draw"):
        pipeline("text-to-image", tiny_hub / "llava")
    with pytest.raises(SensoriumError, match="guidance_scale is 0.5; it must be 1 or more"):
        pipeline("text-to-image", trained / "drawer")("a square", guidance_scale=0.5)
    with pytest.raises(SensoriumError, match="this model reads 48 beside a picture's 16"):
        pipeline("text-to-image", trained / "drawer")("a square " * 40)


def test_one_model_learns_to_draw_and_to_answer_at_once(trained: Path, tmp_path: Path) -> None:
    """Records with a target are questions about their images, those without are captions to be drawn."""
    lines = (trained / "pairs.jsonl").read_text().splitlines()
    mixed = []
    for pair in map(json.loads, lines):
        colour = pair["text"].split()[1]
        image = str(trained / pair["image"])
        mixed += [{"image": image, "text": pair["text"]}, {"image": image, "text": "which colour?", "target": colour}]
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, mixed)))
    data = [f"data.train={tmp_path / 'mixed.jsonl'}", f"data.validation={tmp_path / 'mixed.jsonl'}"]
    recipe = read_recipe(trained / "drawer.toml", [*data, f"train.output={tmp_path / 'both'}", "train.precision=fp32"])
    run_recipe(recipe, quiet=True)
    log = [json.loads(line) for line in (tmp_path / "both.training" / "train.jsonl").read_text().splitlines()]
    assert {"drawing", "language_model"} <= set().union(*log)
    image = trained / "red top left.png"
    answers = pipeline("visual-question-answering", tmp_path / "both")([image] * 2, question="which colour?")
    assert [answer["answer"] for [answer] in answers] == ["red", "red"]
    picture = pipeline("text-to-image", tmp_path / "both", guidance_scale=3.0, seed=1)("a red square, top left")
    assert is_drawn(picture, "red", "top left")
