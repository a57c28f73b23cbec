"""What an encoder–decoder writes, greedily and by beams, against `transformers`: together, each source as if alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sensorium.checkpoint import open_checkpoint
from sensorium.errors import UsageError
from sensorium.infer.beam import beam_search
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.engine import fast
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings

SOURCES = [[5, 6, 7, 8, 9, 10, 2], [20, 2], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2], [20, 2], [30, 31, 2]]
NEW, PENALTY = 20, 2.0
"""Random models say one token again and again; a penalty makes them say others."""
CLASSES = {
    "Bart": "BartForConditionalGeneration",
    "MBart": "MBartForConditionalGeneration",
    "Marian": "MarianMTModel",
    "T5": "T5ForConditionalGeneration",
    "MT5": "MT5ForConditionalGeneration",
}
OWN: dict[str, dict[str, Any]] = {
    "Marian": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 36},
    "MBart": {"tie_word_embeddings": False},
}
"""What each family can have that the others have not."""
SMALL: dict[str, Any] = {
    "vocab_size": 40, "d_model": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 4, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 32,
    "scale_embedding": True, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": None, "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
}  # fmt: skip
SMALL_RELATIVE: dict[str, Any] = {
    "vocab_size": 40, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3, "pad_token_id": 1,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "eos_token_id": None,
    "decoder_start_token_id": 1,
}  # fmt: skip


def oracle(family: str, seed: int, **own: Any) -> Any:
    """A small random model that never ends by itself."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**{**(SMALL_RELATIVE if "T5" in family else SMALL), **own})
    model = getattr(transformers, CLASSES[family])(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name and "norm" not in name:
                parameter.normal_(0.0, 0.5)
        if "T5" not in family:
            model.final_logits_bias.normal_(0.0, 0.1)
    return model


def varied_end(model: Any) -> int:
    """The token that stands first at the most different places: as the end, it makes texts of different lengths."""
    texts = [theirs(model, source, 1, None) for source in SOURCES]
    places = {token: {text.index(token) for text in texts if token in text} for text in texts for token in text}
    return max(places, key=lambda token: len(places[token]))


def theirs(model: Any, source: list[int], num_beams: int, eos_id: int | None) -> list[int]:
    ids = torch.tensor([source])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, num_beams=num_beams,
        eos_token_id=eos_id, pad_token_id=1, repetition_penalty=PENALTY,
    )  # fmt: skip
    written: list[int] = output[0, 1:].tolist()
    return written[: written.index(eos_id)] if eos_id in written else written


@pytest.mark.parametrize("family", CLASSES)
def test_it_writes_what_transformers_writes(family: str, tmp_path: Path) -> None:
    lengths = set()
    for seed in range(3):
        model = oracle(family, seed, **(OWN.get(family, {}) if seed else {}))
        model.save_pretrained(tmp_path / str(seed))
        ours: Any = open_checkpoint(tmp_path / str(seed)).model
        end = varied_end(model)
        expected = [theirs(model, source, 1, end) for source in SOURCES]
        reader = Conditioned(ours, SOURCES)
        settings = GenerationSettings(max_new_tokens=NEW, eos_token_id=end, repetition_penalty=PENALTY)
        assert generate(reader, reader.prompts, settings) == expected
        lengths.update(map(len, expected))
        expected = [theirs(model, source, 4, end) for source in SOURCES]
        reader = Conditioned(ours, SOURCES)
        found = beam_search(reader, reader.prompts, replace(settings, num_beams=4))
        assert [best.token_ids for best, *_ in found] == expected
        lengths.update(map(len, expected))
    assert len(lengths) > 2  # some end early, some late


@pytest.mark.parametrize("family", ["T5", "MT5"])
def test_relative_positions_run_where_the_kernels_lack_them(family: str, tmp_path: Path) -> None:
    model = oracle(family, 1)
    model.save_pretrained(tmp_path)
    ours: Any = fast(open_checkpoint(tmp_path).model)
    reader = Conditioned(ours, SOURCES)
    settings = GenerationSettings(max_new_tokens=NEW, repetition_penalty=PENALTY)
    found = generate(reader, reader.prompts, settings)
    assert found == [theirs(model, source, 1, None) for source in SOURCES]


def test_a_source_that_is_too_long_is_named(tmp_path: Path) -> None:
    oracle("Bart", 0).save_pretrained(tmp_path)
    ours: Any = open_checkpoint(tmp_path).model
    with pytest.raises(UsageError, match="text 2 has 33 tokens; this model reads at most 32"):
        Conditioned(ours, [[3, 2], [3] * 33])
