"""Translation of long texts and documents: nothing is lost in silence, and what is no text stays."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sensorium import pipeline
from sensorium.errors import DataError, UsageError
from sensorium.infer.alignment import Alignment
from sensorium.tasks._translated import translate_document
from sensorium.text.documents import open_document, parse_document
from sensorium.text.kept import lost_numbers

ROOT = Path(__file__).parents[1]
SAMPLES = sorted((ROOT / "text" / "documents" / "samples").iterdir())
TEXT = "the cat runs over the river and anna lives in paris ."
PAGE = "# The dog\n\nThe *cat* runs over 2 rivers. `code` is [yellow](http://a.b).\n\n```\nstays\n```\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of the published classes, with words and languages of their own."""
    build = runpy.run_path(str(ROOT / "goldens" / "transformers_4_writers.py"))["build"]
    folder = tmp_path_factory.mktemp("writers")
    return {name: build(f"{name}ForConditionalGeneration", folder / name) for name in ("T5", "Bart", "MBart")}


def shout(texts: list[str]) -> list[list[str]]:
    return [[text.upper()] for text in texts]


def unaligned(pairs: list[tuple[str, str]]) -> list[Alignment | None]:
    return [None for _ in pairs]


# --- documents, by translators that are functions --------------------------------------------------------------------


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_the_translation_that_changes_nothing_gives_the_document_back(path: Path) -> None:
    document = open_document(path)
    result = translate_document(document, lambda texts: [[text] for text in texts], {}, lambda text: True, unaligned)
    assert result.text.encode() == path.read_bytes()
    assert (result.markup_lost, result.lost_numbers, result.number_error_rate) == (0, (), 0)


def test_lost_markup_is_counted_and_the_texts_between_are_translated() -> None:
    def careless(texts: list[str]) -> list[list[str]]:
        return [[text.replace("[1]", "").replace("[2]", "").upper()] for text in texts]

    result = translate_document(parse_document(PAGE, "markdown"), careless, {}, lambda text: True, unaligned)
    assert result.text == (
        "# THE DOG\n\nTHE *CAT* RUNS OVER 2 RIVERS. `code` IS [YELLOW](http://a.b).\n\n```\nstays\n```\n"
    )
    assert result.markup_lost == 2
    assert "2 translated in pieces" in result.summary


def test_lost_markup_is_put_where_the_words_went_that_it_stood_around() -> None:
    def backwards(texts: list[str]) -> list[list[str]]:
        return [[" ".join(reversed(text.replace("[1]", "").replace("[2]", "").upper().split()))] for text in texts]

    def mirrored(pairs: list[tuple[str, str]]) -> list[Alignment | None]:
        spans = [[[match.span() for match in re.finditer(r"\S+", text)] for text in pair] for pair in pairs]
        return [Alignment(np.eye(len(read), dtype=np.float32)[::-1], written, read) for read, written in spans]

    page = "The *cat* runs over the river\n"
    result = translate_document(parse_document(page, "markdown"), backwards, {}, lambda text: True, mirrored)
    assert result.text == "RIVER THE OVER RUNS *CAT* THE\n"
    assert (result.markup_placed, result.markup_lost) == (1, 0)
    assert "markup of 1 placed by attention" in result.summary


def test_the_wording_that_keeps_markup_and_numbers_is_taken_from_several() -> None:
    def several(texts: list[str]) -> list[list[str]]:
        return [[text.replace("[1]", ""), text.replace("2", "3").lower(), text.upper()] for text in texts]

    result = translate_document(parse_document(PAGE, "markdown"), several, {}, lambda text: True, unaligned)
    assert "THE *CAT* RUNS OVER 2 RIVERS." in result.text
    assert result.num_numbers == 1
    assert result.markup_lost == 0


def test_numbers_and_terms_that_are_lost_are_named_with_a_rate() -> None:
    def wrong(texts: list[str]) -> list[list[str]]:
        return [[text.replace("2", "two").replace("rivers", "lakes")] for text in texts]

    document = parse_document("2 rivers, 30 rivers. A cat.", "text")
    glossary = {"rivers": "Flüsse", "cat": "cat"}
    result = translate_document(document, wrong, glossary, lambda text: True, unaligned)
    assert result.number_error_rate == 0  # two is 2
    assert result.term_error_rate == pytest.approx(1 / 2)
    [loss] = result.lost_terms
    assert (loss.source, loss.lost) == ("2 rivers, 30 rivers.", ("rivers",))
    worse = translate_document(document, lambda texts: [["nothing"] for _ in texts], {}, lambda text: True, unaligned)
    assert worse.number_error_rate == 1


def test_what_is_compared_is_what_a_reader_sees() -> None:
    document = parse_document("<p>R&amp;D has <code>x[7]</code> and <b>2</b> rooms.</p>", "html")
    glossary = {"R&D": "F&E"}
    wording = "F&E hat [1] und [2]2[3] Räume."
    result = translate_document(
        document, lambda texts: [[wording] for _ in texts], glossary, lambda text: True, unaligned
    )
    assert result.text == "<p>F&amp;E hat <code>x[7]</code> und <b>2</b> Räume.</p>"
    assert (result.lost_terms, result.lost_numbers, result.num_numbers) == ((), (), 2)
    worse = "F+E hat [1] und [2]zehn[3] Räume."
    result = translate_document(
        document, lambda texts: [[worse] for _ in texts], glossary, lambda text: True, unaligned
    )
    assert [loss.lost for loss in (*result.lost_terms, *result.lost_numbers)] == [("R&D",), ("2",)]


def test_marks_are_written_as_the_model_can_say_them_and_unlike_the_document() -> None:
    asked: list[str] = []

    def note(texts: list[str]) -> list[list[str]]:
        asked.extend(texts)
        return shout(texts)

    translate_document(parse_document("A *b* c [1].", "markdown"), note, {}, lambda text: "[" not in text, unaligned)
    assert asked == ["A <1>b<2> c [1]."]
    asked.clear()
    result = translate_document(
        parse_document("<p>A <b>b</b> c [1].</p>", "html"), note, {}, lambda text: True, unaligned
    )
    assert asked == ["A <1>b<2> c [1]."]
    assert result.text == "<p>A <b>B</b> C [1].</p>"


# --- with models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["T5", "MBart"])
def test_a_document_through_a_model_keeps_its_structure(folders: dict[str, Path], model: str, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    languages = {"src_lang": "en_XX", "tgt_lang": "de_DE"} if model == "MBart" else {}
    translator = pipeline("translation", folders[model], max_new_tokens=8, num_beams=2, **languages)
    result = translator.document(path)
    assert result.text.startswith("# ")
    for kept in ("`code`", "](http://a.b)", "```\nstays\n```\n", "*"):
        assert kept in result.text
    assert result.num_sentences == 3
    assert result.num_numbers == 1
    if lost_numbers("2", result.text):
        assert result.number_error_rate == 1
    result.save(tmp_path / "page.de.md")
    assert (tmp_path / "page.de.md").read_text("utf-8") == result.text


def test_a_long_text_is_translated_by_sentences(folders: dict[str, Path]) -> None:
    translator = pipeline("translation", folders["Bart"], max_new_tokens=6, num_beams=1, cut_loops=False)
    sentences = ["Anna lives in paris.", "The cat runs over the river.", "The dog is yellow!"] * 8
    alone = [one["translation_text"] for one in translator(sentences)]
    assert translator(" ".join(sentences)) == [{"translation_text": " ".join(alone)}]


def test_a_sentence_that_is_too_long_is_cut_at_its_commas(folders: dict[str, Path]) -> None:
    translator = pipeline("translation", folders["Bart"], max_new_tokens=2, num_beams=1, cut_loops=False)
    clause = "the dog runs over the river and the cat lives in the sea, "
    [answer] = translator(clause * 9)
    assert len(answer["translation_text"].split()) > 4


def test_results_come_in_order_and_do_not_depend_on_neighbours_or_batches(folders: dict[str, Path]) -> None:
    texts = [TEXT, "the dog", "where is the yellow fox ?", TEXT + " " + TEXT, "a cat ."]
    for task, model in (("translation", "T5"), ("summarization", "Bart"), ("text2text-generation", "T5")):
        run = pipeline(task, folders[model], max_new_tokens=7)
        together = run(texts)
        assert together == [run(text)[0] for text in texts]
        assert together == pipeline(task, folders[model], max_new_tokens=7, batch_tokens=1)(texts)
        assert [[one] for one in together] == list(run(text for text in texts))


def test_a_generator_is_streamed(folders: dict[str, Path]) -> None:
    drawn = 0

    def endless() -> Any:
        nonlocal drawn
        while True:
            drawn += 1
            yield TEXT

    run = pipeline("translation", folders["T5"], batch_tokens=256, max_new_tokens=4)
    assert len(list(islice(run(endless()), 3))) == 3
    assert drawn < 200


def test_a_glossary_chooses_among_the_beams_and_says_what_is_lost(folders: dict[str, Path]) -> None:
    run = pipeline("translation", folders["T5"], max_new_tokens=8)
    every = [one["translation_text"] for one in run(TEXT, num_beams=4, num_return_sequences=4)]
    words = [set(text.split()) for text in every]
    rare = next(word for word in sorted(words[-1] - words[0]) if word.isalpha())
    [answer] = run(TEXT, num_beams=4, glossary={"cat": rare})
    assert rare in answer["translation_text"].split()
    assert (answer["lost_terms"], answer["lost_numbers"]) == ([], [])
    [other] = run(TEXT + " 7", glossary={"cat": "nowhere"})
    assert (other["lost_terms"], other["lost_numbers"]) == (["cat"], ["7"])


def test_what_is_written_begins_as_the_generation_config_says(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["T5"], tmp_path / "model")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "decoder_start_token_id": 9}))
    run = pipeline("text2text-generation", folder, max_new_tokens=6, num_beams=1)
    oracle = transformers.T5ForConditionalGeneration.from_pretrained(folder)
    ids = torch.tensor([run.tokenizer.encode(TEXT).token_ids])
    (row,) = oracle.generate(ids, max_new_tokens=6).tolist()  # type: ignore[operator]
    assert row[0] == 9
    text = run.tokenizer.decode(row[1:])
    assert run(TEXT)[0]["generated_text"].strip() == text
    assert run(TEXT, decoder_start_token_id=1)[0]["generated_text"].strip() != text


def test_a_loop_is_cut_unless_it_is_wanted(folders: dict[str, Path]) -> None:
    run = pipeline("translation", folders["Bart"], max_new_tokens=30, num_beams=1)
    looped = run(TEXT, cut_loops=False)[0]["translation_text"]
    cut = run(TEXT)[0]["translation_text"]
    assert looped.startswith(cut)
    assert len(cut) < len(looped) / 2


@pytest.mark.parametrize(
    ("model", "task", "options", "message"),
    [
        ("MBart", "translation", {}, "reads and writes many languages; give src_lang and tgt_lang"),
        ("MBart", "translation", {"src_lang": "en_XX", "tgt_lang": "xx_YY"}, "does not know the language 'xx_YY'"),
        ("MBart", "translation_en_to_klingon", {}, "does not know the language 'klingon'"),
        ("T5", "translation_en_to_fr", {}, "does not translate en to fr; it translates en to de"),
        ("T5", "translation", {"forced_bos_token_id": 10**6}, "forced_bos_token_id names token 1,000,000"),
        ("T5", "translation", {"decoder_start_token_id": 10**6}, "decoder_start_token_id names token 1,000,000"),
        ("T5", "translation", {"truncation": "sometimes"}, "truncation is 'sometimes'; known are True, False"),
        ("T5", "translation", {"num_beams": 2, "do_sample": True}, "sampling within a beam search"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    folders: dict[str, Path], model: str, task: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pipeline(task, folders[model], **options)(TEXT)


def test_short_codes_name_a_language_where_one_begins_so(folders: dict[str, Path]) -> None:
    run = pipeline("translation_en_to_de", folders["MBart"], max_new_tokens=5)
    whole = pipeline("translation", folders["MBart"], src_lang="en_XX", tgt_lang="de_DE", max_new_tokens=5)
    assert run(TEXT) == whole(TEXT)


@pytest.mark.parametrize("task", ["translation", "summarization", "text2text-generation"])
@pytest.mark.parametrize(("bad", "message"), [("", "input 2 is empty"), (7, "input 2 is a int; a text")])
def test_an_input_that_is_no_text_is_named(folders: dict[str, Path], task: str, bad: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pipeline(task, folders["T5"], max_new_tokens=3)(["fine", bad])


def test_a_model_that_does_not_write_from_texts_is_refused(folders: dict[str, Path], tiny_hub: Path) -> None:
    with pytest.raises(UsageError, match="translation needs an encoder–decoder"):
        pipeline("translation", tiny_hub / "gpt2")
    with pytest.raises(UsageError, match="text-generation needs a decoder"):
        pipeline("text-generation", folders["T5"])


def test_a_text_too_long_for_text_to_text_is_refused_or_cut_with_a_warning(folders: dict[str, Path]) -> None:
    run = pipeline("text2text-generation", folders["Bart"], max_new_tokens=3)
    with pytest.raises(UsageError, match="input 1 has .* tokens; this model reads at most 48"):
        run(TEXT * 9)
    with pytest.warns(UserWarning, match="the first 48 are read"):
        run(TEXT * 9, truncation=True)
