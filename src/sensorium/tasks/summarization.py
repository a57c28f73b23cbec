"""Summaries: of texts, as transformers 4 had them, and of documents of any length, linked to what they rest on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium.checkpoint import Checkpoint
from sensorium.storage import write_text
from sensorium.tasks._links import links as linked
from sensorium.tasks._task import require_text
from sensorium.tasks.text2text_generation import Manner, Text2TextGeneration
from sensorium.text.documents import Document, Format, open_document
from sensorium.text.loops import cut_loop
from sensorium.text.sentences import sentence_spans


@dataclass(frozen=True)
class SummarizedDocument:
    """A document's summary."""

    text: str
    sections: tuple[str, ...]
    """The summaries of its stretches, in order; of a short document the summary alone."""
    source: str
    """What was read: the sentences, a line for each paragraph."""
    sentences: tuple[dict[str, Any], ...]
    """The summary's sentences with the sentences of ``source`` they rest on (``links``)."""

    def save(self, path: str | Path) -> None:
        """Write the summary, whole or not at all."""
        write_text(Path(path), self.text + "\n")


class Summarization(Text2TextGeneration):
    """A text → a shorter one.

    A text longer than the model reads is cut at the ends of sentences into stretches of about one length; each is
    summarised, and so are the summaries together, until one is left. A loop at the end of a summary is cut to one turn.
    """

    task = "summarization"
    key = "summary_text"

    def __call__(
        self,
        inputs: Any,
        *,
        links: bool = False,
        cut_loops: bool = True,
        truncation: bool | str = False,
        clean_up_tokenization_spaces: bool = False,
        assistant_model: Checkpoint | None = None,
        **options: Any,
    ) -> Any:
        """``[{"summary_text"}]`` for a text; a list of dicts for a list; a stream of lists for a generator.

        ``links``: ``sentences`` says which sentences of the text each sentence of the summary rests on, by characters,
        and how much of it they hold. The rest is as in ``text2text-generation``.
        """
        manner = self.manner(self.task, options, truncation, clean_up_tokenization_spaces, assistant_model)

        def answers(texts: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
            for text, found in self._summaries(texts, manner, cut_loops):
                yield [{self.key: one, **({"sentences": linked(one, text)} if links else {})} for one in found]

        return self.shaped(inputs, answers)

    def document(
        self,
        source: str | Path | Document,
        *,
        format: Format | None = None,
        assistant_model: Checkpoint | None = None,
        **options: Any,
    ) -> SummarizedDocument:
        """The summary of a file (Markdown, HTML, plain text, SRT, WebVTT), or of a parsed ``Document``.

        Code, tags and addresses are left out. Raises ``DataError`` for a file that can't be read or holds no text.
        """
        opened = source if isinstance(source, Document) else open_document(source, format)
        text = require_text(_plain(opened), 1)
        manner = self.manner(self.task, options, assistant=assistant_model)
        sections = [found[0] for _, found in self._once(self._stretches(text, manner), manner, True)]
        summary = " ".join(sections)
        if len(sections) > 1:
            [(_, [summary, *_])] = self._summaries([summary], manner, True)
        return SummarizedDocument(summary, tuple(sections), text, tuple(linked(summary, text)))

    # --- details -----------------------------------------------------------------------------------------------------

    def _summaries(self, texts: Iterable[Any], manner: Manner, cut_loops: bool) -> Iterator[tuple[str, list[str]]]:
        """Each text with its summaries, the best first; those that fit are written together."""

        whole: deque[str] = deque()  # of the texts on their way

        def readable() -> Iterator[str]:
            for number, one in enumerate(texts, 1):
                whole.append(require_text(one, number))
                yield self._shortened(whole[-1], manner, cut_loops)

        for _, found in self._once(readable(), manner, cut_loops):
            yield whole.popleft(), found

    def _shortened(self, text: str, manner: Manner, cut_loops: bool) -> str:
        """The text, or what its stretches' summaries say together, until the model can read it whole."""
        while not manner.truncated and not self.fits(text, manner):
            stretches = self._stretches(text, manner)
            found = [answers[0] for _, answers in self._once(stretches, manner, cut_loops)]
            shorter = " ".join(found)
            if len(shorter) >= len(text):
                break  # summaries no shorter than their texts: the model's own sentence says how long it is
            text = shorter
        return text

    def _once(self, texts: Iterable[str], manner: Manner, cut_loops: bool) -> Iterator[tuple[str, list[str]]]:
        sources = (self.source(text, manner, number) for number, text in enumerate(texts, 1))
        for source, answers in self.write(sources, manner):
            found = [one.text or "" for one in answers]
            yield source.text, [cut_loop(one, source.text) for one in found] if cut_loops else found

    def _stretches(self, text: str, manner: Manner) -> list[str]:
        """The text in as few stretches of whole sentences as the model can read, of about one length."""
        if manner.truncated or self.fits(text, manner):
            return [text]
        spans = sentence_spans(text)
        sizes = [len(self.tokenizer.encode_plain(text[start:end])) for start, end in spans]
        room = self.max_length - (len(self.token_ids("a", manner)) + 1)
        wanted = sum(sizes) / -(-sum(sizes) // room)
        stretches, first, size = [], 0, 0
        for n, own in enumerate(sizes):
            if n > first and (size + own > room or size + own / 2 > wanted):
                stretches.append(text[spans[first][0] : spans[n - 1][1]])
                first, size = n, 0
            size += own
        return [*stretches, text[spans[first][0] : spans[-1][1]]]


def _plain(document: Document) -> str:
    """The sentences of a document, a line for each paragraph."""
    paragraphs: dict[int, list[str]] = {}
    for sentence in document.sentences:
        paragraphs.setdefault(sentence.block, []).append(" ".join(sentence.text.split()))
    return "\n".join(" ".join(sentences) for sentences in paragraphs.values())
