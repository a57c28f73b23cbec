"""``sensorium tokenizer``: learn a vocabulary from text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

tokenizer = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make tokenizers.")


class Kind(StrEnum):
    """The algorithms there are."""

    WORDPIECE = "wordpiece"
    BPE = "bpe"


@tokenizer.command("train")
def train(
    files: Annotated[list[Path], typer.Argument(help="Text to learn from: txt, csv, tsv, jsonl or parquet files.")],
    output: Annotated[Path, typer.Option(help="Folder for the tokenizer.")],
    kind: Annotated[Kind, typer.Option(help="WordPiece (as BERT) or byte-level BPE (as GPT-2).")] = Kind.WORDPIECE,
    vocabulary_size: Annotated[int, typer.Option(min=300, help="Tokens, special ones included.")] = 30_000,
    column: Annotated[str, typer.Option(help="Column that holds the text.")] = "text",
    cased: Annotated[bool, typer.Option("--cased", help="WordPiece: keep capitals and accents.")] = False,
) -> None:
    """Learn a vocabulary from text and save it where transformers, too, can open it."""
    from sensorium.data.records import read_records, texts_of
    from sensorium.text.training import train_byte_level_bpe, train_wordpiece

    texts = [text for file in files for record in read_records(file, text=column) for text in texts_of(record)]
    if kind is Kind.WORDPIECE:
        learned = train_wordpiece(texts, vocabulary_size, lowercase=not cased)
    else:
        learned = train_byte_level_bpe(texts, vocabulary_size)
    output.mkdir(parents=True, exist_ok=True)
    learned.save(output)
    typer.echo(f"{output}: {learned.vocabulary_size:,} tokens, learned from {len(texts):,} texts")
