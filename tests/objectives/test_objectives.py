"""What is hidden, asked and scored; the losses are those of `transformers` on the same weights."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sensorium.checkpoint import open_checkpoint
from sensorium.errors import DataError, UsageError
from sensorium.objectives._documents import tokenise_document
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.objectives.masked_token import MaskedToken, choose_masked
from sensorium.objectives.sequence import SequenceClassification
from sensorium.objectives.span import SpanAnswering
from sensorium.objectives.token import TokenClassification
from sensorium.text_training import train_byte_level_bpe, train_wordpiece

WORDS = "river stone cloud amber violet harbour lantern meadow copper winter".split()
DOCUMENTS = [
    " ".join(f"The {WORDS[i % 10]} {WORDS[(i * j) % 10]} number {i} stands near the {WORDS[j % 10]}." for j in range(9))
    for i in range(60)
]
RECORDS = [{"text": text, "label": "odd" if i % 2 else "even"} for i, text in enumerate(DOCUMENTS)]
TOKENIZER = train_wordpiece([*DOCUMENTS, "我们今天去公园玩，酒店的房间很干净。" * 3], 300)
RNG = np.random.default_rng


def test_masking_is_15_percent_and_80_10_10() -> None:
    objective = MaskedToken(max_length=64)
    examples = objective.examples(objective.prepare(RECORDS, TOKENIZER), RNG(0))
    hidden = same = masked = total = special = 0
    for seed in range(12):
        plain = np.concatenate([example.token_ids for example in examples])
        batch = objective.collate(examples, TOKENIZER, RNG(seed))
        rows, values = batch.targets["rows"], batch.packed.values
        total += sum(int((example.labels["words"] >= 0).sum()) for example in examples)
        hidden += len(rows)
        masked += int((values[rows] == TOKENIZER.mask_id).sum())
        same += int((values[rows] == batch.targets["masked_token"]).sum())
        special += sum(int(token) in TOKENIZER.special_ids for token in batch.targets["masked_token"])
        untouched = torch.ones(len(plain), dtype=torch.bool)
        untouched[rows] = False
        assert torch.equal(values[untouched], torch.from_numpy(plain).long()[untouched])
        assert torch.equal(batch.targets["masked_token"], torch.from_numpy(plain).long()[rows])
    assert total > 50_000
    assert hidden / total == pytest.approx(0.15, abs=0.01)  # whole tokens: 8 of 55
    assert masked / hidden == pytest.approx(0.8, abs=0.02)
    assert same / hidden == pytest.approx(0.1, abs=0.02)  # kept, or replaced by itself
    assert special == 0


def test_whole_words_are_hidden_together_and_chinese_words_with_a_segmenter() -> None:
    words = np.array([-1, 0, 1, 1, 1, 2, 3, 3, -1])
    for seed in range(50):
        chosen = set(choose_masked(words, 0.4, RNG(seed)).tolist())
        assert chosen
        for word in range(4):
            members = set(np.flatnonzero(words == word).tolist())
            assert members <= chosen or not members & chosen
    pytest.importorskip("jieba")
    [sentence] = tokenise_document("酒店的房间很干净", TOKENIZER, whole_words=True)
    assert sentence.words.tolist() == [0, 0, 1, 2, 2, 3, 4, 4]
    [sentence] = tokenise_document("酒店的房间很干净", TOKENIZER, whole_words=False)
    assert sentence.words.tolist() == list(range(8))


@pytest.mark.parametrize("task", ["next", "order"])
def test_pairs_labelled_0_follow_each_other_in_a_document_and_others_do_not(task: Any) -> None:
    objective = MaskedToken(max_length=80, sentences=task)
    prepared = objective.prepare(RECORDS, TOKENIZER)
    joined = [" ".join(map(str, np.concatenate([s.token_ids for s in document]))) for document in prepared[0]]
    labels = []
    for example in objective.examples(prepared, RNG(1)):
        ids, segments = example.token_ids, example.segment_ids
        assert segments is not None
        assert len(ids) <= 80
        first, second = ids[segments == 0][1:-1], ids[segments == 1][:-1]
        follows = any(" ".join(map(str, [*first, *second])) in text for text in joined)
        label = example.labels["next_sentence"]
        labels.append(label)
        assert follows == (label == 0)
    assert 0.35 < np.mean(labels) < 0.65


def test_causal_targets_are_the_next_tokens() -> None:
    tokenizer = train_byte_level_bpe(DOCUMENTS, 400)
    objective = CausalLanguageModel(max_length=16)
    stream = objective.prepare(RECORDS, tokenizer)
    examples = objective.examples(stream, RNG(0))
    batch = objective.collate(examples[:5], tokenizer, RNG(0))
    assert torch.equal(batch.packed.values[batch.targets["rows"] + 1], batch.targets["next"])
    assert batch.counts["language_model"] == sum(len(example) - 1 for example in examples[:5])
    with pytest.raises(DataError, match="fewer than two tokens"):
        objective.prepare([{"text": "a"}], train_wordpiece(DOCUMENTS, 300))


def test_spans_decode_to_the_answer_and_other_windows_point_at_the_start() -> None:
    context = DOCUMENTS[3] + " The treasure lies under the amber lantern. " + DOCUMENTS[4]
    answer = "under the amber lantern"
    record = {
        "question": "Where does it lie?",
        "context": context,
        "answer": answer,
        "answer_start": context.index(answer),
    }
    examples = SpanAnswering(max_length=48, stride=16).prepare([record], TOKENIZER)
    found = [e for e in examples if e.labels["start"]]
    assert 1 <= len(found) < len(examples)
    for example in found:
        ids = example.token_ids[example.labels["start"] : example.labels["end"] + 1]
        assert TOKENIZER.decode(ids.tolist()) == answer
    with pytest.raises(DataError, match="record 1: the answer .* does not stand at character 0"):
        SpanAnswering().prepare([{**record, "answer_start": 0}], TOKENIZER)


def test_words_carry_their_label_on_their_first_token() -> None:
    record = {"tokens": ["Unfathomable", "rivers", "flow"], "tags": ["A", "B", "A"]}
    [example] = TokenClassification(("A", "B")).prepare([record], TOKENIZER)
    encoding = TOKENIZER.encode("Unfathomable rivers flow")
    starts = [encoding.offsets[row][0] for row in example.labels["rows"]]
    assert starts == [0, 13, 20]
    assert example.labels["token"].tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="3 tokens and 1 tags"):
        TokenClassification(("A",)).prepare([{**record, "tags": ["A"]}], TOKENIZER)


def test_an_unknown_label_and_a_missing_text_are_named() -> None:
    objective = SequenceClassification(("even", "odd"))
    with pytest.raises(DataError, match="record 2 has the label 'prime', which is not one of even, odd"):
        objective.prepare([RECORDS[0], {"text": "x", "label": "prime"}], TOKENIZER)
    with pytest.raises(DataError, match="record 1 has no 'text'"):
        objective.prepare([{"text": "", "label": "odd"}], TOKENIZER)
    with pytest.raises(UsageError, match="a mask token"):
        MaskedToken().prepare(RECORDS, train_byte_level_bpe(DOCUMENTS, 300))


@pytest.mark.parametrize("kind", ["masked_token", "sequence", "causal"])
def test_losses_are_those_of_transformers(kind: str) -> None:
    torch.manual_seed(0)
    sizes: Any = {
        "vocab_size": TOKENIZER.vocabulary_size,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    bert = transformers.BertConfig(
        **sizes, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    model: Any
    objective: Any
    if kind == "masked_token":
        model, objective = transformers.BertForMaskedLM(bert), MaskedToken(max_length=48)
    elif kind == "sequence":
        model, objective = transformers.BertForSequenceClassification(bert), SequenceClassification(("even", "odd"))
    else:
        config = transformers.GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
        model, objective = transformers.GPT2LMHeadModel(config), CausalLanguageModel(max_length=24)
    with tempfile.TemporaryDirectory() as folder:
        model.eval().save_pretrained(folder)
        ours: Any = open_checkpoint(folder).model
    examples = objective.examples(objective.prepare(RECORDS[:8], TOKENIZER), RNG(0))[:6]
    batch = objective.collate(examples, TOKENIZER, RNG(0))
    [loss] = objective.losses(ours, batch).values()
    labels = torch.full((batch.packed.num_tokens,), -100)
    if kind == "masked_token":
        labels[batch.targets["rows"]] = batch.targets["masked_token"]
    elif kind == "causal":
        labels = batch.packed.values.clone()
    total = 0.0
    parts = zip(batch.packed.split(batch.packed.values), batch.packed.split(labels), strict=True)
    for n, (ids, wanted) in enumerate(parts):
        target = batch.targets["sequence"][n : n + 1] if kind == "sequence" else wanted[None]
        weight = 1 if kind == "sequence" else len(ids) - 1 if kind == "causal" else int((wanted >= 0).sum())
        total += float(model(input_ids=ids[None], labels=target).loss.detach()) * weight
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-5)
    assert loss.count == batch.counts[next(iter(batch.counts))]
