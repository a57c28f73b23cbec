"""Documents come back byte for byte, whatever they hold, and keep their structure when their sentences change."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import DataError, UsageError
from sensorium.text.documents import FORMATS, MAX_BYTES, Document, Format, format_of, open_document, parse_document

FOLDER = Path(__file__).parent / "samples"
SAMPLES = {format_of(path): path.read_bytes().decode() for path in sorted(FOLDER.iterdir())}
CHARACTERS = "aB 1.!?\n\n\t*_`~[]()<>/|#>-+:&;\\\"'=你好。，…\r^{}\x00é"
SNIPPETS = [
    "# ", "> ", "- ", "1. ", "```", "`a`", "**b**", "[x](y)", "[x]", "[x]: y\n", "<b>", "</b>", "<!--", "-->", "<br>",
    "&amp;", "| a | b |\n|---|---|\n", "  \n", "\\\n", "---\n", "00:00:01,000 --> 00:00:02,000\n", "<script>",
    "<p>", "http://a.b/c ", "![i](j)", "***", "\n\n", "\r\n", "    ", "word ", "End. ", "很好。",
]  # fmt: skip
anything = st.one_of(
    st.text(alphabet=CHARACTERS, max_size=120), st.lists(st.sampled_from(SNIPPETS), max_size=25).map("".join)
)


def shouted(document: Document) -> str:
    """Every sentence in capitals, its marks where they are."""
    return document.replaced([document.rendered(one, one.marked().upper()) for one in document.sentences])


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=250)
@given(text=anything)
def test_what_is_not_changed_comes_back_byte_for_byte(format: Format, text: str) -> None:
    document = parse_document(text, format)
    assert document.source == text
    assert document.replaced([document.rendered(one, one.marked()) for one in document.sentences]) == text
    assert document.replaced([None] * len(document.sentences)) == text


@pytest.mark.parametrize("format", FORMATS)
def test_the_samples_come_back(format: Format) -> None:
    document = parse_document(SAMPLES[format], format)
    assert document.source == SAMPLES[format]
    assert len(document.sentences) > 1


def test_markdown_keeps_its_structure() -> None:
    markdown_it = pytest.importorskip("markdown_it")

    def structure(text: str) -> list[tuple[str, str, str]]:
        reader = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
        tokens = [inner for token in reader.parse(text) for inner in (token.children or [token])]
        return [
            (token.type, token.tag, str(token.attrs) + (token.content if "code" in token.type else ""))
            for token in tokens
            if token.type not in ("text", "softbreak")
        ]

    changed = shouted(parse_document(SAMPLES["markdown"], "markdown"))
    assert changed != SAMPLES["markdown"]
    assert structure(changed) == structure(SAMPLES["markdown"])
    for kept in (
        "title: Kept",
        'code = "stays"',
        "`x = y`",
        "[ref]: http://example.org",
        "    indented code",
        "A \\| B",
    ):
        assert kept in changed
    assert "**TWO LINES** IN BOLD" in changed
    assert "SNAKE_CASE" in changed


def test_html_keeps_its_tags_and_changes_its_texts() -> None:
    soup = pytest.importorskip("bs4").BeautifulSoup
    changed = shouted(parse_document(SAMPLES["html"], "html"))
    tag = re.compile(r"<[^>]*>")
    assert tag.findall(changed) == tag.findall(SAMPLES["html"])
    before, after = soup(SAMPLES["html"], "html.parser"), soup(changed, "html.parser")
    for name in ("title", "h1", "li", "a"):
        assert [" ".join(one.get_text().upper().split()) for one in before.find_all(name)] == [
            " ".join(one.get_text().split()) for one in after.find_all(name)
        ]
    for kept in ("alert", "Not this.", ">Name<", "  as  it  is ", "<code>x &lt; y</code>", "&amp; WELCOME"):
        assert kept in changed


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_keep_times_and_lines(format: Format) -> None:
    sample = SAMPLES[format]
    changed = shouted(parse_document(sample, format))
    assert [line for line in changed.splitlines() if "-->" in line] == [
        line for line in sample.splitlines() if "-->" in line
    ]
    assert len(changed.splitlines()) == len(sample.splitlines())
    subrip = ("<i>WHERE ARE</i> YOU?\r\n- HERE", "{\\an8}WE GO HOME")
    for kept in ("WEBVTT - a title", "not shown", "<v Anna>TOM &amp; I LEFT.</v>") if format == "vtt" else subrip:
        assert kept in changed


def test_lines_of_a_cue_are_as_many_in_another_language() -> None:
    document = parse_document(SAMPLES["srt"], "srt")
    [long] = [one for one in document.sentences if "late" in one.text]
    for wording in ("我们现在回家吧，因为已经很晚了而且夜里很冷。", "Wir gehen heim, denn es ist spät und kalt."):
        written = document.rendered(long, long.marked().partition("We")[0] + wording)
        assert written is not None
        first, second = written.split("\r\n")
        assert 0.3 < len(first) / len(written) < 0.7
        assert not second.startswith(("，", "。"))


def test_text_keeps_its_paragraphs_and_items() -> None:
    document = parse_document(SAMPLES["text"], "text")
    assert [one.marked() for one in document.sentences] == [
        "A title", "The first line of a paragraph that goes on in the second.", "One more.", "an item",
        "another item", "End.", "See [1], please.",
    ]  # fmt: skip
    assert shouted(document).endswith("\n\n- AN ITEM\n- ANOTHER ITEM\n\nEND.  SEE https://a.b/c, PLEASE.\n")


@pytest.mark.parametrize(
    ("marked", "rendered"),
    [
        ("Klick [1]hier[2] auf [3].", "Klick <b>hier</b> auf <code>x</code>."),
        ("Auf [3] klick [1] hier [2].", "Auf <code>x</code> klick <b>hier</b>."),
        ("点击［1］这里［2］的[3]。", "点击<b>这里</b>的<code>x</code>。"),
        ("Klick[1]hier[2]auf[3].", "Klick <b>hier</b> auf <code>x</code>."),
        ("[3] < 1 & [1]a[2]", "<code>x</code> &lt; 1 &amp; <b>a</b>"),
        ("Klick hier auf [3].", None),
        ("Klick [1]hier[2] auf [3] und [3].", None),
        ("Klick [2]hier[1] auf [3].", None),
        ("Klick [1]hier[2].", None),
        ("Klick hier.", None),
    ],
)
def test_markup_moves_with_its_words_or_is_missed(marked: str, rendered: str | None) -> None:
    document = parse_document("<p>Click <b>here</b> on <code>x</code>.</p>", "html")
    [sentence] = document.sentences
    assert sentence.marked() == "Click [1]here[2] on [3]."
    assert document.rendered(sentence, marked) == rendered


def test_what_lies_between_markups_can_be_changed_by_itself() -> None:
    document = parse_document("Click **here** on `x`, now.\n", "markdown")
    [sentence] = document.sentences
    assert sentence.stretches == ["Click ", "here", " on ", ", now."]
    changed = sentence.with_stretches(["Klick", "hier", "auf", ", jetzt."], document.escaped)
    assert changed == "Klick **hier** auf `x`, jetzt."


@pytest.mark.parametrize(
    ("wording", "written"),
    [
        ("a * b", "a \\* b"), ("# no heading", "\\# no heading"), ("1. no list", "1\\. no list"),
        ("- no item", "\\- no item"), ("<b> [x] `c` &lt;", "\\<b> \\[x\\] \\`c\\` &amp;lt;"), ("a_b", "a_b"),
        ("a\n\nb", "a b"),
    ],
)  # fmt: skip
def test_a_wording_never_becomes_markup(wording: str, written: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    document = parse_document("plain\n", "markdown")
    changed = document.replaced([document.rendered(document.sentences[0], wording)])
    assert changed == written + "\n"
    shown = " ".join(wording.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert markdown_it.MarkdownIt("commonmark").render(changed) == f"<p>{shown}</p>\n"


def test_what_holds_no_words_of_its_own_is_no_sentence() -> None:
    text = "`code` 42\n\n| `a` | 7 |\n|-|-|\n| <http://a.b> | !? |\n\n![x](y)\n"
    assert parse_document(text, "markdown").sentences == []


@pytest.mark.parametrize(
    ("text", "wordings", "written"),
    [
        ("下雨了。我不走。\n", ["It rains.", "I stay."], "It rains. I stay.\n"),
        ("It rains. I stay.\n", ["下雨了。", "我不走。"], "下雨了。我不走。\n"),
        ("It rains. I stay.\n", ["下雨了。", None], "下雨了。 I stay.\n"),
        ("下雨了。我不走。\n", [None, None], "下雨了。我不走。\n"),
        ("One.\n\nTwo.\n", ["一。", "二。"], "一。\n\n二。\n"),
    ],
)
def test_sentences_stand_apart_as_their_language_has_it(text: str, wordings: list[str], written: str) -> None:
    assert parse_document(text, "markdown").replaced(wordings) == written


def test_files_are_read_as_what_they_are_called(tmp_path: Path) -> None:
    path = tmp_path / "notes.MD"
    path.write_bytes(b"\xef\xbb\xbf# One\r\n\r\nTwo.\r\n")
    document = open_document(path)
    assert document.format == "markdown"
    assert document.source.encode() == path.read_bytes()
    assert [one.text for one in document.sentences][-1] == "Two."


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\xff")
    with pytest.raises(DataError, match="a.txt: not UTF-8 at byte 5"):
        open_document(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(DataError, match="b.txt: more than 5,000,000 bytes"):
        open_document(tmp_path / "b.txt")
    with pytest.raises(DataError, match="nowhere.md: No such file"):
        open_document(tmp_path / "nowhere.md")
    with pytest.raises(UsageError, match="a.docx: not a known kind of document; known are .md"):
        format_of("a.docx")
    with pytest.raises(UsageError, match="format is 'markdwn'; did you mean 'markdown'"):
        parse_document("x", "markdwn")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 sentences for a document of 1"):
        parse_document("One.", "text").replaced(["a", "b"])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "unit",
    ["[", "*a ", "<b>", "&lt;", "`", "> ", "<!--", "a\n", "![", "](", "**", "<a", "_", "|a|b\n|-|-\n", "<p ", "- ",
     "<![", "<!-- >", "<![CDATA["],
)  # fmt: skip
def test_a_hostile_document_is_read_in_bounded_time(format: Format, unit: str) -> None:
    text = unit * (20_000 // len(unit))
    started = time.perf_counter()
    assert parse_document(text, format).source == text
    assert time.perf_counter() - started < 20
