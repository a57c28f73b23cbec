"""A document's sentences through a translator, and what was lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sensorium.infer.alignment import Alignment
from sensorium.storage import write_text
from sensorium.tasks._markup import place_marks
from sensorium.text.documents import MARK, STYLES, Document, Sentence, plain_text
from sensorium.text.kept import Glossary, kept_best, lost_numbers, lost_terms, num_lost, numbers, terms_in

Translate = Callable[[list[str]], list[list[str]]]
"""Texts → the translations of each, the best first."""
Align = Callable[[list[tuple[str, str]]], list[Alignment | None]]
"""Texts with a translation each → which words come from which; ``None`` where that can't be said."""


@dataclass(frozen=True)
class Loss:
    """A sentence whose translation does not keep something."""

    source: str
    translation: str
    lost: tuple[str, ...]


@dataclass(frozen=True)
class TranslatedDocument:
    """A document in another language, and what a reader should look at."""

    text: str
    num_sentences: int
    markup_placed: int
    """Sentences whose markup the model lost, and that has been put where its words went."""
    markup_lost: int
    """Sentences of which that could not be said: the texts between were translated by themselves."""
    num_numbers: int
    """Numbers in the sentences."""
    lost_numbers: tuple[Loss, ...]
    num_terms: int
    """Terms of the glossary in the sentences."""
    lost_terms: tuple[Loss, ...]

    @property
    def number_error_rate(self) -> float:
        """Numbers lost, of all."""
        return sum(len(one.lost) for one in self.lost_numbers) / max(self.num_numbers, 1)

    @property
    def term_error_rate(self) -> float:
        """Terms lost, of all."""
        return sum(len(one.lost) for one in self.lost_terms) / max(self.num_terms, 1)

    @property
    def summary(self) -> str:
        """What happened, in a sentence."""
        numbers_lost = sum(len(one.lost) for one in self.lost_numbers)
        terms_lost = sum(len(one.lost) for one in self.lost_terms)
        said = [f"{self.num_sentences:,} sentences", f"{numbers_lost:,} of {self.num_numbers:,} numbers lost"]
        said += [f"{terms_lost:,} of {self.num_terms:,} terms lost"] if self.num_terms else []
        said += [f"markup of {self.markup_placed:,} placed by attention"] if self.markup_placed else []
        said += [f"{self.markup_lost:,} translated in pieces, to keep their markup"] if self.markup_lost else []
        return "; ".join(said)

    def save(self, path: str | Path) -> None:
        """Write the text, whole or not at all."""
        write_text(Path(path), self.text)


def translate_document(
    document: Document, translate: Translate, glossary: Glossary, keeps: Callable[[str], bool], align: Align
) -> TranslatedDocument:
    """Each sentence in its best wording that keeps its markup. ``keeps``: whether the model can say a text as it is.

    Where none keeps it, the sentence is translated without, and its markup is put where the words went (``align``).
    """
    sentences = document.sentences
    style = next((style for style in STYLES if keeps(style.format(1)) and style.format(1) not in document.source), MARK)
    texts = list(dict.fromkeys(sentence.marked(style) for sentence in sentences))
    found = dict(zip(texts, translate(texts), strict=True)) if texts else {}
    chosen = [_chosen(document, sentence, found[sentence.marked(style)], glossary, style) for sentence in sentences]
    missed = [sentence for sentence, one in zip(sentences, chosen, strict=True) if one is None]
    placed = _placed(document, missed, translate, glossary, align, style)
    given = iter(placed)
    chosen = [next(given) if one is None else one for one in chosen]
    missed = [sentence for sentence, one in zip(sentences, chosen, strict=True) if one is None]
    pieces = list(dict.fromkeys(piece.strip() for sentence in missed for piece in sentence.stretches))
    wordings = {piece: best for piece, (best, *_) in zip(pieces, translate(pieces), strict=True)} if pieces else {}
    written, seen = [], []
    for sentence, one in zip(sentences, chosen, strict=True):
        if one is None:
            wording = [wordings[piece.strip()] for piece in sentence.stretches]
            written.append(sentence.with_stretches(wording, document.escaped))
            seen.append(" ".join([*wording, *(piece.text for piece in sentence.pieces if piece.kind == "single")]))
        else:
            written.append(one.source)
            seen.append(one.seen)
    return _result(document, written, seen, glossary, len(placed) - len(missed), len(missed))


class _Wording(NamedTuple):
    """A sentence in other words: as the document has it, and what a reader sees."""

    source: str
    seen: str


def _chosen(
    document: Document, sentence: Sentence, found: list[str], glossary: Glossary, style: str
) -> _Wording | None:
    """Of the wordings that keep the markup, the first that loses least; ``None`` where none keeps it."""
    rendered = ((text, document.rendered(sentence, text, style)) for text in found)
    kept = [_Wording(source, sentence.seen(text, style)) for text, source in rendered if source is not None]
    own = sentence.text
    losses = [num_lost(own, one.seen, glossary) for one in kept]
    return kept[losses.index(min(losses))] if kept else None


def _placed(
    document: Document, sentences: list[Sentence], translate: Translate, glossary: Glossary, align: Align, style: str
) -> list[_Wording | None]:
    """Sentences translated without their markup, which is then put where its words went."""
    plains = [plain_text(sentence) for sentence in sentences]
    texts = list(dict.fromkeys(text for text, _ in plains))
    found = dict(zip(texts, translate(texts), strict=True)) if texts else {}
    best = {text: kept_best(text, found[text], glossary)[0] for text in texts}
    alignments = dict(zip(texts, align(list(best.items())), strict=True)) if texts else {}
    wordings: list[_Wording | None] = []
    for sentence, (text, places) in zip(sentences, plains, strict=True):
        alignment = alignments[text]
        marked = None if alignment is None else place_marks(text, places, best[text], alignment, style)
        source = None if marked is None else document.rendered(sentence, marked, style)
        wordings.append(None if marked is None or source is None else _Wording(source, sentence.seen(marked, style)))
    return wordings


def _result(
    document: Document, written: list[str], seen: list[str], glossary: Glossary, placed: int, missed: int
) -> TranslatedDocument:
    pairs = [(sentence.text, text) for sentence, text in zip(document.sentences, seen, strict=True)]
    losses_of_numbers = [Loss(a, b, tuple(lost)) for a, b in pairs if (lost := lost_numbers(a, b))]
    losses_of_terms = [Loss(a, b, tuple(lost)) for a, b in pairs if (lost := lost_terms(a, b, glossary))]
    return TranslatedDocument(
        text=document.replaced(list(written)),
        num_sentences=len(pairs),
        markup_placed=placed,
        markup_lost=missed,
        num_numbers=sum(len(numbers(a)) for a, _ in pairs),
        lost_numbers=tuple(losses_of_numbers),
        num_terms=sum(len(terms_in(a, glossary)) for a, _ in pairs),
        lost_terms=tuple(losses_of_terms),
    )
