"""What is written is what `transformers` writes under the same settings; alone, together, and piece by piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.errors import UsageError
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.engine import fast
from sensorium.infer.settings import GenerationSettings, settings_of
from sensorium.infer.write import added, write, write_stream
from sensorium.text import Tokenizer
from sensorium.text.training import train_byte_level_bpe

TEXTS = (
    "The quick brown fox jumps over the lazy dog. Paris is the capital.",
    "今天天气很好，我们去公园玩。酒店很干净。",
)
TOKENIZER = train_byte_level_bpe(TEXTS * 3, 320)
END: Any = TOKENIZER.eos_id
PROMPTS = [TOKENIZER.encode_plain(text) for text in ("The quick", "今天天气", "Paris is the", "o")]
NEW = 14


def scramble(model: Any, end: int) -> Any:
    """Weights with which texts end early, late and not at all."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln" not in name and "norm" not in name:
                parameter.normal_(0.0, 0.3)
        model.lm_head.weight[end] *= 2.5
    return model.eval()


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Any]]:
    """(the oracle, our model with its weights), for some seeds."""
    made = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = transformers.GPT2Config(
            vocab_size=TOKENIZER.vocabulary_size, n_positions=80, n_embd=32, n_layer=2, n_head=4, bos_token_id=END,
            eos_token_id=END, tie_word_embeddings=False,
        )  # fmt: skip
        oracle, folder = scramble(transformers.GPT2LMHeadModel(config), END), tmp_path_factory.mktemp("gpt2")
        oracle.save_pretrained(folder)
        made.append((oracle, open_checkpoint(folder).model))
    return made


def theirs(model: Any, prompt: list[int], options: dict[str, Any], **more: Any) -> Any:
    ids = torch.tensor([prompt])
    return model.generate(
        ids, attention_mask=torch.ones_like(ids), pad_token_id=END, return_dict_in_generate=True, **{**options, **more}
    )


def up_to_an_end(row: list[int], ends: list[int]) -> list[int]:
    return row[: next((place for place, token_id in enumerate(row) if token_id in ends), len(row))]


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "min_new_tokens": {"min_new_tokens": 6},
    "min_length": {"min_length": 14},
    "max_length": {"max_new_tokens": None, "max_length": 16},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "repetition": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 3},
    "bad_words_ids": {"bad_words_ids": [*([n] for n in range(60, 150)), *([n, n] for n in range(150, 320))]},
    "suppress_tokens": {"suppress_tokens": [*range(60, 200)]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [END, *range(200)]},
    "forced_bos_token_id": {"forced_bos_token_id": 90},
    "forced_eos_token_id": {"forced_eos_token_id": END},
    "several end tokens": {"eos_token_id": [END, 17, 18, 75, 141, 150, 240]},
    "all together": {
        "min_new_tokens": 3, "repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "suppress_tokens": [70, 71],
        "bad_words_ids": [[80], [81, 82]], "forced_eos_token_id": END, "eos_token_id": [END, 75],
    },
}  # fmt: skip


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_tokens_are_those_of_transformers(decoders: list[tuple[Any, Any]], name: str, num_beams: int) -> None:
    options = {"max_new_tokens": NEW, "num_beams": num_beams, "eos_token_id": [END], **OPTIONS[name]}
    options |= {"num_return_sequences": num_beams}
    for oracle, model in decoders:
        found = write(model, PROMPTS, GenerationSettings(**options))
        for prompt, answers in zip(PROMPTS, found, strict=True):
            expected = theirs(oracle, prompt, options, do_sample=False).sequences.tolist()
            rows = [up_to_an_end(row[len(prompt) :], options["eos_token_id"]) for row in expected]
            assert [one.token_ids for one in answers] == rows


def test_every_option_compared_changes_what_is_written(decoders: list[tuple[Any, Any]]) -> None:
    written = {}
    for name, more in OPTIONS.items():
        options = {"max_new_tokens": NEW, "eos_token_id": [END], **more}
        found = [write(model, PROMPTS, GenerationSettings(**options)) for _, model in decoders]
        written[name] = str([[answers[0].token_ids for answers in one] for one in found])
    assert [name for name in OPTIONS if name != "nothing" and written[name] == written["nothing"]] == []


def test_log_probabilities_are_those_of_transformers(decoders: list[tuple[Any, Any]]) -> None:
    for oracle, model in decoders:
        for answers, prompt in zip(
            write(
                model, PROMPTS, GenerationSettings(max_new_tokens=NEW, eos_token_id=END, log_probs=3, min_new_tokens=2)
            ),
            PROMPTS,
            strict=True,
        ):
            answer = theirs(
                oracle, prompt, {"max_new_tokens": NEW, "min_new_tokens": 2}, do_sample=False, output_logits=True
            )
            scores = torch.stack(answer.logits)[:, 0].log_softmax(dim=-1)  # [new tokens, V]
            expected = scores.gather(1, answer.sequences[0, len(prompt) :, None])[:, 0]
            assert answers[0].log_probabilities == pytest.approx(expected.tolist(), abs=1e-4)
            assert answers[0].score == pytest.approx(float(expected.sum()), abs=1e-3)
            best = scores.topk(3, dim=-1)
            alternatives = answers[0].alternatives
            assert alternatives is not None
            assert [[token for token, _ in row] for row in alternatives] == best.indices.tolist()
            assert [value for row in alternatives for _, value in row] == pytest.approx(
                best.values.flatten().tolist(), abs=1e-4
            )


def test_log_probabilities_of_beams_are_what_their_score_is_made_of(decoders: list[tuple[Any, Any]]) -> None:
    options = GenerationSettings(max_new_tokens=NEW, eos_token_id=END, num_beams=3, num_return_sequences=3, log_probs=1)
    for answers in write(decoders[0][1], PROMPTS, options):
        for one in answers:
            assert one.log_probabilities is not None
            length = len(one.token_ids) + (one.finish_reason == "stop")
            assert len(one.log_probabilities) == length
            assert one.score == pytest.approx(sum(one.log_probabilities) / length, abs=1e-5)


def test_several_end_tokens_end_a_text_each(decoders: list[tuple[Any, Any]]) -> None:
    free = [one.token_ids for (one,) in write(decoders[0][1], PROMPTS, GenerationSettings(max_new_tokens=NEW))]
    ends = (free[0][4], free[1][2])
    found = write(decoders[0][1], PROMPTS, GenerationSettings(max_new_tokens=NEW, eos_token_id=ends))
    assert [one.token_ids for (one,) in found] == [up_to_an_end(row, list(ends)) for row in free]
    assert found[0][0].finish_reason == "stop"


@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 2), sampled=st.booleans())
def test_a_text_is_cut_where_a_stop_string_begins_in_batches_and_in_streams(
    decoders: list[tuple[Any, Any]], data: st.DataObject, seed: int, sampled: bool
) -> None:
    model = decoders[seed][1]
    options: dict[str, Any] = {"max_new_tokens": NEW}
    if sampled:
        options |= {"do_sample": True, "seed": data.draw(st.integers(0, 99)), "temperature": 1.5}
    whole = [str(one.text) for (one,) in write(model, PROMPTS, GenerationSettings(**options), TOKENIZER)]
    pieces = [text[i:j] for text in whole for i in range(len(text)) for j in range(i + 1, min(i + 6, len(text)) + 1)]
    parts = [piece for piece in pieces if "\ufffd" not in piece] or ["x"]
    stops = data.draw(st.lists(st.sampled_from(parts), min_size=1, max_size=3))
    cut = GenerationSettings(**options, stop_strings=tuple(stops))
    found = write(model, PROMPTS, cut, TOKENIZER)
    for prompt, text, (one,) in zip(PROMPTS, whole, found, strict=True):
        hits = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
        _, end = min(hits, default=(0, len(text)))
        assert one.text == text[:end] == "".join(write_stream(model, prompt, cut, TOKENIZER))
        assert added(TOKENIZER, prompt, one.token_ids).startswith(one.text)
        assert (
            len(one.token_ids) == 0 or not added(TOKENIZER, prompt, one.token_ids[:-1]).startswith(one.text) or not hits
        )
        assert not hits or one.finish_reason == "stop"


def test_beams_end_at_stop_strings_as_those_of_transformers_do(decoders: list[tuple[Any, Any]], tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    oracle_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    stop = ["e", "气", "a", "o", "。", "i", "酒", "t", "，", "h", "n", " "]
    options: dict[str, Any] = {"max_new_tokens": NEW, "num_beams": 3, "num_return_sequences": 3}
    ended = 0
    for oracle, model in decoders:
        found = write(model, PROMPTS, GenerationSettings(**options, stop_strings=tuple(stop)), TOKENIZER)
        for prompt, answers in zip(PROMPTS, found, strict=True):
            answer = theirs(
                oracle,
                prompt,
                options,
                do_sample=False,
                stop_strings=stop,
                tokenizer=oracle_tokenizer,
                output_scores=True,
            )
            rows = [up_to_an_end(row[len(prompt) :], [END]) for row in answer.sequences.tolist()]
            texts = [added(TOKENIZER, prompt, row) for row in rows]
            places = [[text.index(one) for one in stop if one in text] for text in texts]
            assert [one.text for one in answers] == [
                text[: min(at, default=len(text))] for text, at in zip(texts, places, strict=True)
            ]
            assert [one.score for one in answers] == pytest.approx(answer.sequences_scores.tolist(), abs=1e-3)
            ended += sum(map(bool, places))
    assert ended > 5


def test_bad_words_are_not_written_at_the_start_of_a_word_nor_within_one(decoders: list[tuple[Any, Any]]) -> None:
    model = decoders[0][1]
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": True, "temperature": 2.0, "top_k": 0}
    letters = ("e", "o", "气", "。")
    free = [write(model, PROMPTS, GenerationSettings(**options, seed=n), TOKENIZER) for n in range(8)]
    assert any(letter in str(one.text) for found in free for (one,) in found for letter in letters)
    for n in range(8):
        found = write(model, PROMPTS, GenerationSettings(**options, seed=n, bad_words=letters), TOKENIZER)
        spelt = {TOKENIZER.id(letter) for letter in ("e", "o")} | {TOKENIZER.encode_plain(" e")[0]}
        assert not any(token_id in spelt for (one,) in found for token_id in one.token_ids)


def test_a_stream_gives_the_text_and_never_half_a_character(decoders: list[tuple[Any, Any]]) -> None:
    for _, model in decoders:
        for engine in (model, fast(model, "fp32")):
            for prompt in PROMPTS:
                options = GenerationSettings(max_new_tokens=40, suppress_tokens=(*range(94, 160),))
                pieces = list(write_stream(engine, prompt, options, TOKENIZER))
                ((one,),) = write(engine, [prompt], options, TOKENIZER)
                assert "".join(pieces) == one.text
                assert all(pieces)


BART = {
    "vocab_size": 60, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 40,
}  # fmt: skip


def test_an_encoder_decoder_writes_by_its_own_generation_config(tmp_path: Path) -> None:
    torch.manual_seed(0)
    oracle = scramble(transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)), 2)  # type: ignore[arg-type]
    oracle.generation_config.update(
        num_beams=4, early_stopping=True, length_penalty=2.0, no_repeat_ngram_size=3, min_length=6, max_length=18,
        forced_bos_token_id=0, forced_eos_token_id=2, bad_words_ids=[[7], [8, 9]],
    )  # fmt: skip
    oracle.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    model: Any = checkpoint.model
    sources = [[5, 6, 7, 2], [9, 10, 11, 12, 13, 2], [4, 2]]
    for options in ({}, {"num_beams": 1}, {"num_return_sequences": 3}):
        reader = Conditioned(model, sources)
        found = write(reader, reader.prompts, settings_of(options, checkpoint.generation))
        for source, answers in zip(sources, found, strict=True):
            extra: dict[str, Any] = (
                {"early_stopping": False, "length_penalty": 1.0} if options == {"num_beams": 1} else {}
            )
            rows = oracle.generate(torch.tensor([source]), **options, **extra).tolist()
            assert [one.token_ids for one in answers] == [up_to_an_end(row[1:], [2]) for row in rows]
    save_checkpoint(tmp_path / "again", model, None, family=checkpoint.family, generation=checkpoint.generation)
    assert open_checkpoint(tmp_path / "again").generation == checkpoint.generation
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "again").min_length == 6


def test_an_encoder_decoder_begins_as_its_generation_config_says(tmp_path: Path) -> None:
    torch.manual_seed(3)
    oracle = scramble(transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)), 2)  # type: ignore[arg-type]
    oracle.generation_config.update(decoder_start_token_id=17, max_length=12, forced_bos_token_id=9, eos_token_id=[2])
    oracle.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    model: Any = checkpoint.model
    assert model.config.start_token_id == 2
    source = [5, 6, 7, 2]
    by_starts = []
    for options in ({}, {"num_beams": 3}, {"decoder_start_token_id": 21}):
        settings = settings_of(options, checkpoint.generation)
        reader = Conditioned(model, [source], settings.decoder_start_token_id)
        ((found, *_),) = write(reader, reader.prompts, settings)
        (row,) = oracle.generate(torch.tensor([source]), **options).tolist()
        assert reader.prompts == [row[:1]]
        assert found.token_ids == up_to_an_end(row[1:], [2])
        by_starts.append(found.token_ids)
    assert by_starts[0] != by_starts[2]


def test_samples_of_an_encoder_decoder_are_each_their_own(tmp_path: Path) -> None:
    torch.manual_seed(1)
    scramble(transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)), 2).save_pretrained(tmp_path)  # type: ignore[arg-type]
    model: Any = open_checkpoint(tmp_path).model
    options = GenerationSettings(do_sample=True, seed=3, num_return_sequences=3, max_new_tokens=8, eos_token_id=2)
    sources = [[5, 6, 7, 2], [9, 10, 11, 12, 13, 2]]
    reader = Conditioned(model, sources)
    together = write(reader, reader.prompts, options)
    for source, answers in zip(sources, together, strict=True):
        reader = Conditioned(model, [source])
        assert write(reader, reader.prompts, options) == [answers]
        assert len({tuple(one.token_ids) for one in answers}) == 3


def test_a_checkpoint_without_a_generation_config_says_it_in_its_config(tmp_path: Path) -> None:
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**BART))  # type: ignore[arg-type]
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    config = (tmp_path / "config.json").read_text().replace('"d_model"', '"num_beams": 5,\n  "d_model"')
    (tmp_path / "config.json").write_text(config)
    assert {"num_beams": 5, "eos_token_id": 2}.items() <= open_checkpoint(tmp_path).generation.items()


@pytest.mark.parametrize(
    ("options", "tokenizer", "message"),
    [
        ({"stop_strings": "a"}, None, "stop_strings and bad_words are texts, and there is no tokenizer"),
        ({"bad_words": "a"}, None, "stop_strings and bad_words are texts, and there is no tokenizer"),
        (
            {"decoder_start_token_id": 9999},
            None,
            "decoder_start_token_id names token 9,999; this model has tokens 0 to",
        ),
        ({"forced_bos_token_id": 9999}, None, "forced_bos_token_id names token 9,999; this model has tokens 0 to"),
        ({"eos_token_id": [3, 9999]}, None, "eos_token_id names token 9,999"),
        ({"bad_words_ids": [[1, 9999]]}, None, "bad_words_ids names token 9,999"),
        ({"suppress_tokens": [9999]}, TOKENIZER, "suppress_tokens names token 9,999"),
        ({"max_length": 2}, None, "has 4 tokens, and max_length, which counts them, is 2"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    decoders: list[tuple[Any, Any]], options: dict[str, Any], tokenizer: Tokenizer | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write(decoders[0][1], [[1, 2, 3, 4]], GenerationSettings(**options), tokenizer)


def test_a_stream_is_one_text(decoders: list[tuple[Any, Any]]) -> None:
    with pytest.raises(UsageError, match="a stream is one text as it is made"):
        list(write_stream(decoders[0][1], [1], GenerationSettings(num_beams=2), TOKENIZER))
