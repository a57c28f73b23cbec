"""Alignments are the attention that `transformers` reports, and every token knows its characters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from sensorium.checkpoint import open_checkpoint
from sensorium.infer.alignment import Located, align
from sensorium.text.pieces import train_pieces

TEXTS = ["the dog runs over the river .", "anna lives in paris and reads the old letter ."]
TOKENIZER = train_pieces(TEXTS, 330)
PAD = TOKENIZER.pad_id or 0


@pytest.mark.parametrize("layers", [1, 3])
def test_it_is_the_attention_of_the_last_layer_but_one_that_transformers_reports(tmp_path: Path, layers: int) -> None:
    torch.manual_seed(0)
    config = transformers.MarianConfig(
        vocab_size=TOKENIZER.vocabulary_size, d_model=16, encoder_layers=1, decoder_layers=layers,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, init_std=0.5,
        max_position_embeddings=40, pad_token_id=PAD, decoder_start_token_id=PAD, eos_token_id=TOKENIZER.eos_id,
    )  # fmt: skip
    peer = transformers.MarianMTModel(config).eval()
    peer.set_attn_implementation("eager")
    peer.save_pretrained(tmp_path)
    read, written = Located.of(TEXTS[0], TOKENIZER), Located.of(TEXTS[1], TOKENIZER, frame=([PAD], []))
    model = open_checkpoint(tmp_path).model
    long = Located.of(TEXTS[1] * 3, TOKENIZER)
    other = Located.of(TEXTS[1], TOKENIZER)
    nothing, found, _ = align(model, [(long, written), (read, written), (other, written)])
    assert nothing is None
    assert found is not None
    ids = {"input_ids": torch.tensor([read.token_ids]), "decoder_input_ids": torch.tensor([written.token_ids])}
    with torch.no_grad():
        reported = peer(**ids, output_attentions=True).cross_attentions[max(0, layers - 2)][0]  # [H, Lq, Ls]
    # The row before a token's is the step that writes it; the end token of the source stands for no text.
    torch.testing.assert_close(torch.tensor(found.weights), reported.mean(0)[:-1, :-1], rtol=1e-4, atol=1e-5)
    assert len(found.written) == len(written.token_ids) - 1


def test_places_are_those_in_the_text_whatever_stands_around_it() -> None:
    own = Located.of(TEXTS[0], TOKENIZER)
    assert own.places[-1] is None
    assert own.token_ids[-1] == TOKENIZER.eos_id
    framed = Located.of(TEXTS[0], TOKENIZER, frame=([7, 8], [9]))
    assert framed.token_ids == [7, 8, *own.token_ids[:-1], 9]
    assert framed.places == [None, None, *own.places[:-1], None]
    prefixed = Located.of(TEXTS[0], TOKENIZER, prefix="anna reads: ")
    for located in (own, prefixed):
        words = {TEXTS[0][place[0] : place[1]].strip() for place in located.places if place is not None}
        assert words
        assert all(word in TEXTS[0] for word in words)
    ends = [place[1] for place in prefixed.places if place is not None]
    assert ends[-1] == len(TEXTS[0])
    assert prefixed.places[0] is None
