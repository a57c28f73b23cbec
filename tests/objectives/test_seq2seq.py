"""Reading one text and writing another: the loss is the one `transformers` computes, and the decoder sees no future."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from transformers.models.mbart.modeling_mbart import shift_tokens_right

from sensorium.checkpoint import open_checkpoint
from sensorium.data.batching import Example, token_budget_batches
from sensorium.errors import DataError, UsageError
from sensorium.objectives._base import Batch
from sensorium.objectives.seq2seq import SequenceToSequence
from sensorium.storage import write_json
from sensorium.text import Tokenizer, open_tokenizer
from sensorium.text.pieces import train_pieces
from sensorium.text.training import train_byte_level_bpe
from sensorium.train.settings import set_dropout
from tests.objectives.conftest import CHINESE, ENGLISH

TOKENIZER = train_pieces([*ENGLISH, CHINESE], 400)
START = TOKENIZER.pad_id or 0
RECORDS = [{"text": text, "target": text[::-1][:40]} for text in (*ENGLISH, CHINESE)]


def collated(objective: SequenceToSequence) -> Batch:
    generator = np.random.default_rng(0)
    examples = objective.examples(objective.prepare(RECORDS, TOKENIZER), generator)
    return objective.collate(examples, TOKENIZER, generator)


def padded(batch: Batch, values: torch.Tensor, fill: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(batch.packed.split(values)), batch_first=True, padding_value=fill)


def test_the_decoder_reads_the_target_one_token_late() -> None:
    objective = SequenceToSequence(START)
    batch = collated(objective)
    assert batch.sources is not None
    assert batch.num_tokens == batch.packed.num_tokens + batch.sources.num_tokens
    targets = [TOKENIZER.encode(record["target"]).token_ids for record in RECORDS]
    assert all(ids[-1] == TOKENIZER.eos_id for ids in targets)
    assert [part.tolist() for part in batch.packed.split(batch.targets["next"])] == targets
    read = [part.tolist() for part in batch.packed.split(batch.packed.values)]
    assert read == [[START, *ids[:-1]] for ids in targets]


def marian() -> transformers.PreTrainedModel:
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
             "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}  # fmt: skip
    config = transformers.MarianConfig(
        vocab_size=TOKENIZER.vocabulary_size, d_model=16, dropout=0.0, attention_dropout=0.0, init_std=0.3,
        pad_token_id=START, decoder_start_token_id=START, eos_token_id=TOKENIZER.eos_id, scale_embedding=True, **sizes,
        max_position_embeddings=128,
    )  # fmt: skip
    return transformers.MarianMTModel(config).eval()


def t5() -> transformers.PreTrainedModel:
    config = transformers.T5Config(
        vocab_size=TOKENIZER.vocabulary_size, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, dropout_rate=0.0,
        pad_token_id=START, decoder_start_token_id=START, eos_token_id=TOKENIZER.eos_id,
        relative_attention_num_buckets=8, relative_attention_max_distance=20,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("make", [marian, t5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_transformers(
    tmp_path: Path, smoothing: float, make: Callable[[], transformers.PreTrainedModel]
) -> None:
    peer = make()
    peer.save_pretrained(tmp_path)
    objective = SequenceToSequence(START, label_smoothing=smoothing)
    batch = collated(objective)
    assert batch.sources is not None
    sources = torch.nn.utils.rnn.pad_sequence(
        list(batch.sources.split(batch.sources.values)), batch_first=True, padding_value=START
    )
    real = torch.arange(sources.shape[1]) < torch.tensor(batch.sources.lengths)[:, None]
    labels = padded(batch, batch.targets["next"], -100)
    output = peer(input_ids=sources, attention_mask=real.long(), labels=labels)
    expected = transformers.trainer_pt_utils.LabelSmoother(epsilon=smoothing)(output, labels)
    model = open_checkpoint(tmp_path).model
    loss = objective.losses(model, batch)["language_model"]
    assert loss.count == int((labels >= 0).sum())
    assert loss.correct == int((output.logits.argmax(-1) == labels).sum())
    torch.testing.assert_close(loss.total / loss.count, expected, rtol=1e-5, atol=1e-5)
    (loss.total / loss.count).backward()
    expected.backward()
    ours, theirs = model.encoder.stem.tokens.weight.grad, peer.get_input_embeddings().weight.grad
    learns = torch.arange(len(ours)) != START  # as padding it learns nothing there, not even as what begins
    torch.testing.assert_close(ours[learns], theirs[learns], rtol=1e-3, atol=1e-6)
    if make is t5:
        block = peer.decoder.block[0].layer[0].SelfAttention
        found, expected = model.decoder.stack.relative.weight.grad, block.relative_attention_bias.weight.grad
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["MBartTokenizer", "MBart50Tokenizer"])
def test_mbart_learns_what_transformers_teaches_it(tmp_path: Path, kind: str) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*ENGLISH, CHINESE] * 4), model_prefix=str(tmp_path / "sentencepiece.bpe"),
        vocab_size=300, hard_vocab_limit=False, character_coverage=1.0, num_threads=1, minloglevel=3,
    )  # fmt: skip
    languages = {"src_lang": "en_XX", "tgt_lang": "zh_CN"}
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": kind, **languages})
    tokenizer = open_tokenizer(tmp_path)
    (tmp_path / "saved").mkdir()
    tokenizer.save(tmp_path / "saved")
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / "saved", **languages)
    size = tokenizer.vocabulary_size
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
             "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}  # fmt: skip
    peer = transformers.MBartForConditionalGeneration(
        transformers.MBartConfig(
            vocab_size=size, d_model=16, dropout=0.0, init_std=0.3, decoder_start_token_id=2, **sizes
        )
    ).eval()
    peer.save_pretrained(tmp_path / "model")
    model = open_checkpoint(tmp_path / "model").model
    objective = SequenceToSequence(model.config.start_token_id, max_target_length=12)
    for record in RECORDS:
        record = {**record, "target": record["target"][::-1]}
        read = theirs(record["text"], text_target=record["target"], return_tensors="pt", truncation=True, max_length=12)
        batch = objective.collate(objective.prepare([record], tokenizer), tokenizer, np.random.default_rng(0))
        assert batch.targets["next"].tolist() == read["labels"][0].tolist()
        assert batch.sources is not None
        begun = shift_tokens_right(read["labels"], 1)
        assert batch.packed.values.tolist() == begun[0].tolist()
        expected = peer(input_ids=batch.sources.values[None], labels=read["labels"]).loss
        loss = objective.losses(model, batch)["language_model"]
        torch.testing.assert_close(loss.total / loss.count, expected, rtol=1e-5, atol=1e-5)


def test_a_long_text_is_cut_before_its_end_token() -> None:
    objective = SequenceToSequence(START, max_length=8, max_target_length=6)
    for example in objective.prepare(RECORDS, TOKENIZER):
        assert example.target_ids is not None
        assert example.lengths == (8, 6)
        assert example.token_ids[-1] == example.target_ids[-1] == TOKENIZER.eos_id


def test_merges_are_left_out_on_both_sides_each_epoch_others() -> None:
    objective = SequenceToSequence(START, max_length=40, max_target_length=30, bpe_dropout=0.3)
    prepared = objective.prepare(RECORDS, TOKENIZER)
    epochs = [objective.examples(prepared, np.random.default_rng((0, epoch))) for epoch in (0, 1, 0)]
    first, other, again = ([(e.token_ids.tolist(), written(e)) for e in epoch] for epoch in epochs)
    plain = [(e.token_ids.tolist(), written(e)) for e in SequenceToSequence(START, 40, 30).prepare(RECORDS, TOKENIZER)]
    assert first == again
    for side in (0, 1):
        assert all(pair[side][-1] == TOKENIZER.eos_id for pair in first)
        assert len({str([pair[side] for pair in pairs]) for pairs in (first, other, plain)}) == 3
        assert max(len(pair[side]) for pair in first) == (40, 30)[side]


def test_without_an_end_in_its_frame_a_target_has_one_all_the_same() -> None:
    tokenizer = train_byte_level_bpe(ENGLISH, 300)  # of GPT-2, which frames nothing
    objective = SequenceToSequence(0, max_length=16, max_target_length=16, bpe_dropout=0.3)
    records = [*RECORDS, {"text": "a", "target": "b"}]
    for example in objective.examples(objective.prepare(records, tokenizer), np.random.default_rng(0)):
        assert written(example).count(tokenizer.eos_id or 0) == 1
        assert written(example)[-1] == tokenizer.eos_id


def written(example: Example) -> list[int]:
    assert example.target_ids is not None
    return list(example.target_ids.tolist())


def test_batches_count_both_sides_and_bring_equal_sources_together() -> None:
    lengths = [(3, 9), (5, 1), (3, 2), (5, 5), (3, 3)]
    batches = token_budget_batches(lengths, np.arange(5), batch_tokens=18)
    assert all(sum(sum(lengths[i]) for i in batch) <= 18 for batch in batches)
    assert sorted(tuple(lengths[i] for i in batch) for batch in batches) == [
        ((3, 2), (3, 3)),
        ((3, 9), (5, 1)),
        ((5, 5),),
    ]


def test_what_is_missing_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="record 1 has no 'target'"):
        SequenceToSequence(START).prepare([{"text": "a"}], TOKENIZER)
    with pytest.raises(UsageError, match="no end token"):
        SequenceToSequence(0).prepare(RECORDS, tokenizer)  # WordPiece


def test_two_readings_of_a_batch_are_drawn_together(tmp_path: Path) -> None:
    marian().save_pretrained(tmp_path)
    model = open_checkpoint(tmp_path).model
    objectives = [SequenceToSequence(START, r_drop=weight) for weight in (0.0, 1e-9, 5.0)]
    batches = [collated(objective) for objective in objectives]
    assert [batch.num_tokens for batch in batches[1:]] == 2 * [2 * batches[0].num_tokens]
    assert batches[2].counts == {"language_model": 2 * batches[0].counts["language_model"]}

    def loss(number: int) -> float:
        torch.manual_seed(0)
        found = objectives[number].losses(model, batches[number])["language_model"]
        return float(found.total.detach()) / found.count

    assert loss(2) == pytest.approx(loss(0), rel=1e-5)  # without dropout both readings are one
    set_dropout(model.train(), 0.3, 0.0)
    assert loss(2) > loss(1) + 0.01
