"""A published Marian, two SentencePiece models and all, translates as `transformers` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sensorium import pipeline
from sensorium.errors import UsageError

sentencepiece = pytest.importorskip("sentencepiece", reason="Marian's vocabularies are made with sentencepiece")
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
SIDES = {
    "source": ["the cat runs over the river", "a yellow dog lives in paris", "where is the fox and the sea"],
    "target": ["die katze läuft über den fluss", "ein gelber hund lebt in paris", "wo ist der fuchs und das meer"],
}


@pytest.fixture
def marian(tmp_path: Path) -> Callable[[tuple[str, ...]], Path]:
    """A folder with a tiny random model, its vocabularies beside it."""

    def make(languages: tuple[str, ...]) -> Path:
        folder = tmp_path / "marian"
        folder.mkdir()
        pieces: dict[str, None] = dict.fromkeys(["</s>", "<unk>", *(f">>{code}<<" for code in languages)])
        for side, texts in SIDES.items():
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts * 20), model_prefix=str(folder / side), vocab_size=48, minloglevel=3,
                hard_vocab_limit=False, num_threads=1,
            )  # fmt: skip
            (folder / f"{side}.model").rename(folder / f"{side}.spm")
            model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
            pieces |= dict.fromkeys(model.id_to_piece(n) for n in range(3, model.get_piece_size()))
        vocabulary = {piece: n for n, piece in enumerate([*pieces, "<pad>"])}
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        sides = {} if languages else {"source_lang": "en", "target_lang": "de"}
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer", **sides}))
        pad = len(vocabulary) - 1
        config = transformers.MarianConfig(
            vocab_size=len(vocabulary), d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=40,
            pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, forced_eos_token_id=0, scale_embedding=True,
        )  # fmt: skip
        torch.manual_seed(3)
        network = transformers.MarianMTModel(config).eval()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "embed_positions" not in name and "norm" not in name:
                    parameter.normal_(0.0, 0.5)
        network.generation_config.bad_words_ids = [[pad]]
        network.save_pretrained(folder)
        return folder

    return make


def theirs(folder: Path, texts: list[str], **options: Any) -> list[str]:
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
    model = transformers.MarianMTModel.from_pretrained(folder)
    written = []
    for text in texts:
        output = model.generate(**tokenizer(text, return_tensors="pt"), **options)
        written.append(tokenizer.decode(output[0], skip_special_tokens=True))
    return written


@pytest.mark.parametrize("num_beams", [1, 4])
def test_it_writes_what_transformers_writes(marian: Callable[..., Path], num_beams: int) -> None:
    folder = marian(())
    options: dict[str, Any] = {"num_beams": num_beams, "max_new_tokens": 12, "repetition_penalty": 1.5}
    expected = theirs(folder, SIDES["source"], **options)
    run = pipeline("translation_en_to_de", folder, **options)
    assert [one["translation_text"] for one in run(SIDES["source"], cut_loops=False)] == expected
    assert len(set(expected)) > 1
    with pytest.raises(UsageError, match="does not translate de to en; it translates en to de"):
        pipeline("translation_de_to_en", folder)(SIDES["target"])


def test_a_model_of_several_languages_is_told_which_to_write(marian: Callable[..., Path]) -> None:
    folder = marian(("deu", "fra"))
    run = pipeline("translation", folder, num_beams=2, max_new_tokens=8, cut_loops=False)
    for code in ("deu", "fra"):
        expected = theirs(folder, [f">>{code}<< {SIDES['source'][0]}"], num_beams=2, max_new_tokens=8)
        assert [one["translation_text"] for one in run(SIDES["source"][0], tgt_lang=code)] == expected
    with pytest.raises(UsageError, match=r"writes several languages \(deu, fra\); give tgt_lang"):
        run(SIDES["source"][0])
    with pytest.raises(UsageError, match="does not know the language 'spa'"):
        run(SIDES["source"][0], tgt_lang="spa")
