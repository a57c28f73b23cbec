"""What holds for every test: one thread, no network, the same examples every time. And tiny models for all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# Before torch is loaded, so that the processes tests start inherit it. The models here are tiny: one thread is the
# fastest, and sums come out in the same order on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "deterministic", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("deterministic")

CHARACTERS = [chr(code) for code in range(ord("!"), ord("~") + 1)]
HAN = list("一不个了今你做去吃味喜坏天好字很感房我是服气漂热的看真精绝舒觉跑这适道都酒错间难面非餐馆饭店务晴")
WORDPIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *(f"##{c}" for c in CHARACTERS), *HAN]


@pytest.fixture(autouse=True)
def same_chance_for_each_test() -> None:
    """What a test draws from torch does not depend on the tests before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny, untrained checkpoints named as well-known ones on the hub: to be the working directory."""
    import torch

    from sensorium.checkpoint import save_checkpoint
    from sensorium.config import (
        CaptionerConfig,
        DecoderConfig,
        DualEncoderConfig,
        EncoderConfig,
        EncoderDecoderConfig,
        ImageEncoderConfig,
        LanguageModelHeadConfig,
        LearnedPositions,
        MaskedTokenHeadConfig,
        MultimodalConfig,
        PatchStemConfig,
        RotaryPositions,
        SequenceHeadConfig,
        SpanHeadConfig,
        StackConfig,
        TokenStemConfig,
    )
    from sensorium.image.settings import ImageSettings
    from sensorium.models.build import build, initialise
    from sensorium.text import open_tokenizer

    hub = tmp_path_factory.mktemp("hub")
    vocabularies = tmp_path_factory.mktemp("vocabularies")
    byte_tokens = _byte_level_alphabet()
    (vocabularies / "bert").mkdir()
    (vocabularies / "bert" / "vocab.txt").write_text("\n".join(WORDPIECES), encoding="utf-8")
    (vocabularies / "gpt2").mkdir()
    (vocabularies / "gpt2" / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(byte_tokens)}))
    (vocabularies / "gpt2" / "merges.txt").write_text("#version: 0.2\n")

    def stem(vocabulary_size: int, num_segments: int, norm_eps: float | None) -> TokenStemConfig:
        return TokenStemConfig(vocabulary_size, 32, LearnedPositions(128), num_segments, norm_eps)

    post = StackConfig(hidden_size=32, num_layers=2, num_heads=4, mlp_size=64)
    pre = StackConfig(32, 2, 4, 64, mask="causal", norm_place="pre", norm_eps=1e-5, final_norm=True)
    bert = EncoderConfig(stem(len(WORDPIECES), 2, 1e-12), post)
    distilbert = EncoderConfig(stem(len(WORDPIECES), 0, 1e-12), post)
    gpt2 = DecoderConfig(stem(len(byte_tokens), 0, None), pre, LanguageModelHeadConfig())
    both = TokenStemConfig(len(byte_tokens), 32, LearnedPositions(130, offset=2), norm_eps=1e-5, pad_token_id=1)
    reads = StackConfig(32, 2, 4, 64, norm_eps=1e-5)
    writes = StackConfig(32, 2, 4, 64, mask="causal", norm_eps=1e-5, memory_size=32)
    bart = EncoderDecoderConfig(both, reads, both, writes, len(byte_tokens) - 1, LanguageModelHeadConfig(bias=True))
    looks = StackConfig(32, 2, 4, 64, norm_place="pre", final_norm=True)
    vit = ImageEncoderConfig(PatchStemConfig(32, 16, 4), looks, sequence=SequenceHeadConfig(("cat", "dog", "moon")))
    tower = ImageEncoderConfig(PatchStemConfig(32, 16, 4, bias=False, norm_eps=1e-5), looks)
    clip = DualEncoderConfig(tower, DecoderConfig(stem(len(byte_tokens), 0, None), pre), 16)
    rotary = StackConfig(
        32, 2, 4, 64, mask="causal", norm_place="pre", norm="rms", norm_eps=1e-6, final_norm=True, activation="silu",
        mlp="gated", biases=frozenset(), rotary=RotaryPositions(256),
    )  # fmt: skip
    words = DecoderConfig(TokenStemConfig(len(byte_tokens) + 1, 32, None), rotary, LanguageModelHeadConfig(tied=False))
    llava = MultimodalConfig(tower, words, image_token_id=len(byte_tokens), image_blocks=1)
    captions = StackConfig(32, 2, 4, 64, mask="causal", memory_size=32)
    blip = CaptionerConfig(
        ImageEncoderConfig(PatchStemConfig(32, 16, 4), looks), stem(len(WORDPIECES) + 1, 0, 1e-12), captions,
        len(WORDPIECES), WORDPIECES.index("[SEP]"), MaskedTokenHeadConfig(),
    )  # fmt: skip
    models = {
        "bert-base-uncased": ("bert", bert.with_heads(masked_token=MaskedTokenHeadConfig())),
        "bert-base-chinese": ("bert", bert.with_heads(masked_token=MaskedTokenHeadConfig())),
        "reviews": ("bert", bert.with_heads(sequence=SequenceHeadConfig(labels=("bad", "good")))),
        "distilbert-base-cased-distilled-squad": ("distilbert", distilbert.with_heads(span=SpanHeadConfig())),
        "gpt2": ("gpt2", gpt2),
        "translator": ("bart", bart),
        "vit": ("vit", vit),
        "clip": ("clip", clip),
        "llava": ("llava", llava),
        "blip": ("blip", blip),
    }
    for name, (family, config) in models.items():
        model = build(config)
        initialise(model, seed=0)
        tokenizer = open_tokenizer(vocabularies / ("gpt2" if family in ("gpt2", "bart", "clip", "llava") else "bert"))
        if family == "llava":
            tokenizer.backend.add_special_tokens(["<image>"])
        images = ImageSettings(size=(16, 16)) if family in ("vit", "clip", "llava", "blip") else None
        save_checkpoint(
            hub / name, model.to(torch.float32).eval(), None if family == "vit" else tokenizer, family=family,
            images=images,
        )  # fmt: skip
    _draw(hub / "night.png", (20, 20, 60))
    _draw(hub / "day.png", (120, 180, 250))
    return hub


def _draw(path: Path, sky: tuple[int, int, int]) -> None:
    """A picture of 40 × 30 pixels: a disc in the sky."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (40, 30), sky)
    ImageDraw.Draw(picture).ellipse((22, 4, 36, 18), fill=(250, 240, 180))
    picture.save(path)


def _byte_level_alphabet() -> list[str]:
    """GPT-2's vocabulary before any merge: a printable character for each of the 256 bytes, and the end of text."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
