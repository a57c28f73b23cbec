"""Translation: of texts, as transformers 4 had it, and of documents, which keep all that is not text."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.errors import UsageError
from sensorium.infer.alignment import Alignment, Located, align
from sensorium.infer.write import Written
from sensorium.tasks._languages import framing, task_name
from sensorium.tasks._task import require_text
from sensorium.tasks._translated import TranslatedDocument, translate_document
from sensorium.tasks.text2text_generation import Manner, Source, Text2TextGeneration
from sensorium.text.documents import Document, Format, open_document
from sensorium.text.kept import Glossary, kept_best, lost_numbers, lost_terms
from sensorium.text.loops import cut_loop
from sensorium.text.punctuation import chinese_punctuation
from sensorium.text.sentences import sentence_spans, space_between

_CLAUSE = re.compile(r"[,;:，；：、]\s*")
_SPACE = re.compile(r"\s+")
CHINESE = ("zh", "zho", "cmn", "chi")


class Translation(Text2TextGeneration):
    """A text in one language → the text in another.

    A text longer than the model reads is translated sentence by sentence. A loop at the end of what the model writes is
    cut to one turn (``cut_loops``). Western marks beside Chinese characters become Chinese ones where ``tgt_lang`` says
    Chinese.
    """

    task = "translation"
    key = "translation_text"

    def __call__(
        self,
        inputs: Any,
        *,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        glossary: Glossary | None = None,
        cut_loops: bool = True,
        truncation: bool | str = False,
        clean_up_tokenization_spaces: bool = False,
        assistant_model: Checkpoint | None = None,
        **options: Any,
    ) -> Any:
        """``[{"translation_text"}]`` for a text; a list of dicts for a list; a stream of lists for a generator.

        ``src_lang`` and ``tgt_lang`` are needed by models of many languages, in their own codes; of others they choose
        the pair (``translation_en_to_de`` says both). ``glossary``: terms and what they must become. With one, of the
        answers of a beam search the first that keeps most terms and numbers is taken, and ``lost_terms`` and
        ``lost_numbers`` say what it does not keep; an empty one is for numbers alone. The rest is as in
        ``text2text-generation``.
        """
        manner = self._manner(
            src_lang,
            tgt_lang,
            options,
            glossary,
            truncation=truncation,
            clean_up=clean_up_tokenization_spaces,
            assistant=assistant_model,
        )
        chinese = _is_chinese(tgt_lang)
        wanted = options.get("num_return_sequences") or 1

        def ranked(source: str, found: list[str]) -> list[str]:
            return found if glossary is None else kept_best(source, found, glossary)

        def answers(texts: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
            for source, found in self.translations(texts, manner, cut_loops=cut_loops, chinese=chinese):
                yield [self._answer(source, text, glossary) for text in ranked(source, found)[:wanted]]

        return self.shaped(inputs, answers)

    def document(
        self,
        source: str | Path | Document,
        *,
        format: Format | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        glossary: Glossary | None = None,
        cut_loops: bool = True,
        assistant_model: Checkpoint | None = None,
        **options: Any,
    ) -> TranslatedDocument:
        """A file (Markdown, HTML, plain text, SRT, WebVTT), or a parsed ``Document``, in another language.

        Code, addresses, tags, front matter and times stay byte for byte. Markup within a sentence goes with its words:
        as the model has it, else as its attention says, else the texts between are translated by themselves, which the
        result counts. So it does numbers and terms that were lost. Raises ``DataError`` for a file that can't be read.
        """
        manner = self._manner(src_lang, tgt_lang, options, glossary or {}, assistant=assistant_model)
        opened = source if isinstance(source, Document) else open_document(source, format)
        chinese = _is_chinese(tgt_lang)

        def translate(texts: list[str]) -> list[list[str]]:
            return [found for _, found in self.translations(texts, manner, cut_loops=cut_loops, chinese=chinese)]

        return translate_document(
            opened, translate, glossary or {}, self._keeps, lambda pairs: self._alignments(pairs, manner)
        )

    def translations(
        self, texts: Iterable[Any], manner: Manner, *, cut_loops: bool, chinese: bool
    ) -> Iterator[tuple[str, list[str]]]:
        """Each text with its translations, the best first."""
        spaces: deque[list[str]] = deque()  # before each part of each text on its way

        def sources() -> Iterator[Source]:
            for number, one in enumerate(texts, 1):
                text = require_text(one, number)
                parts = self._parts(text, manner)
                spaces.append([before for before, _ in parts])
                yield from (self.source(part, manner, number) for _, part in parts)

        stream = self.write(sources(), manner)
        for first in stream:
            parts = [first, *(next(stream) for _ in spaces[0][1:])]
            befores = spaces.popleft()
            whole = "".join(before + source.text for before, (source, _) in zip(befores, parts, strict=True))
            count = min(len(answers) for _, answers in parts)
            found = []
            for n in range(count):
                written = [_finished(source.text, answers[n], cut_loops, chinese) for source, answers in parts]
                joined = befores[0] + written[0]
                for before, sentence in zip(befores[1:], written[1:], strict=True):
                    joined += space_between(before, joined, sentence) + sentence
                found.append(joined)
            yield whole, found

    # --- details -----------------------------------------------------------------------------------------------------

    def _manner(
        self,
        source: str | None,
        target: str | None,
        options: Mapping[str, Any],
        glossary: Glossary | None,
        **reading: Any,
    ) -> Manner:
        told = framing(self.tokenizer, self.task_parameters(), source, target, where=str(self.checkpoint.folder))
        given = dict(options)
        if told.forced_bos_token_id is not None:
            given.setdefault("forced_bos_token_id", told.forced_bos_token_id)
        name = task_name(source, target)
        manner = self.manner(name, given, before=told.before, after=told.after, framed=told.framed, **reading)
        manner = replace(manner, prefix=told.prefix or manner.prefix)
        if glossary is not None and manner.settings.num_beams > 1 and not options.get("num_return_sequences"):
            settings = replace(manner.settings, num_return_sequences=manner.settings.num_beams)
            manner = replace(manner, settings=settings)
        return manner

    def _parts(self, text: str, manner: Manner) -> list[tuple[str, str]]:
        """The text as one, or as its sentences where the model can't read it whole, each with what stands before."""
        if self.fits(text, manner) or manner.truncated:
            return [("", text)]
        parts, done = [], 0
        for start, end in sentence_spans(text):
            first, *others = self._cut(text[start:end], manner)
            parts += [(text[done:start], first), *(("", other) for other in others)]
            done = end
        return parts

    def _cut(self, sentence: str, manner: Manner) -> list[str]:
        """A sentence as it is, or cut near its middle, at a comma or a space if there is one, until each part fits."""
        if len(sentence) < 2 or self.fits(sentence, manner):
            return [sentence]
        middle = len(sentence) // 2
        places = [match.end() for match in _CLAUSE.finditer(sentence, 1, len(sentence) - 1)]
        places = places or [match.end() for match in _SPACE.finditer(sentence, 1, len(sentence) - 1)] or [middle]
        place = min(places, key=lambda place: abs(place - middle))
        return [*self._cut(sentence[:place], manner), *self._cut(sentence[place:], manner)]

    def _alignments(self, pairs: list[tuple[str, str]], manner: Manner) -> list[Alignment | None]:
        """Which words of translations come from which of their sources; ``None`` for what was not read as a whole.

        The engine's kernels keep no attention, so the checkpoint is opened once more, for as long as this takes.
        """
        model: Any = open_checkpoint(self.checkpoint.folder).model
        chosen, forced = manner.settings.decoder_start_token_id, manner.settings.forced_bos_token_id
        begin = [model.config.start_token_id if chosen is None else chosen, *([] if forced is None else [forced])]
        frame = (manner.before, manner.after) if manner.framed else None
        located = [
            (
                Located.of(text, self.tokenizer, prefix=manner.prefix, frame=frame),
                Located.of(translation, self.tokenizer.target, frame=(begin, ())),
            )
            for text, translation in pairs
        ]
        return align(model, located)

    def _answer(self, source: str, text: str, glossary: Glossary | None) -> dict[str, Any]:
        if glossary is None:
            return {self.key: text}
        lost = {"lost_terms": lost_terms(source, text, glossary), "lost_numbers": lost_numbers(source, text)}
        return {self.key: text, **lost}

    def _keeps(self, text: str) -> bool:
        """Whether both vocabularies, of what is read and of what is written, have a text as it is."""
        read, target = self.tokenizer.encode_plain(text), self.tokenizer.target
        written = target.encode_plain(text)
        known = self.tokenizer.unk_id not in read and target.unk_id not in written
        return known and target.decode(written).strip() == text


def _finished(source: str, written: Written, cut_loops: bool, chinese: bool) -> str:
    text = written.text or ""
    text = cut_loop(text, source) if cut_loops else text
    return chinese_punctuation(text) if chinese else text


def _is_chinese(language: str | None) -> bool:
    if language is not None and not isinstance(language, str):
        raise UsageError(f"tgt_lang is {language!r}; a text is expected")
    return language is not None and language.lower().replace("-", "_").split("_")[0] in CHINESE
