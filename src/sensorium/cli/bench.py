"""``sensorium bench``: what this machine can do at most, and what a model does of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli._options import Json
from sensorium.errors import DataError, UsageError


def bench(
    model: Annotated[str | None, typer.Argument(help="Checkpoint: a folder, or a name on the hub.")] = None,
    file: Annotated[Path | None, typer.Option(help="Texts to read: txt, csv, tsv, jsonl, parquet.")] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="fp32, bf16, int8, int8_weight_only, int4_weight_only; all by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure the machine's ceilings, then a model: tokens a second, share of the ceiling, memory, energy.

    An encoder reads texts (yours, or some that come with Sensorium); a decoder makes tokens, one and eight at a time.
    """
    import warnings
    from dataclasses import asdict
    from json import dumps

    from sensorium.checkpoint import open_checkpoint
    from sensorium.data.records import read_records, texts_of
    from sensorium.infer.bench import ceilings, decoding_work, encoding_work, peak_memory
    from sensorium.infer.engine import DTYPES, FallbackWarning
    from sensorium.infer.quantise import PROBE
    from sensorium.machine import tune_process
    from sensorium.models.decoder import DecoderLM

    for name in dtype or ():
        if name not in DTYPES:
            raise UsageError(f"--dtype is {name!r}; known are {', '.join(DTYPES)}")
    tune_process()
    checkpoint = None if model is None else open_checkpoint(model)
    texts = list(PROBE) * 20 if file is None else [text for record in read_records(file) for text in texts_of(record)]
    if not texts:
        raise DataError(f"{file}: there are no texts to read")
    limits = ceilings()
    done = []
    if checkpoint is not None:
        for name in dict.fromkeys(DTYPES[name] for name in dtype or limits.flops):
            if name not in limits.flops:
                raise UsageError(f"{name} can't run on this machine; the dtypes that can are {', '.join(limits.flops)}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FallbackWarning)
                if isinstance(checkpoint.model, DecoderLM):
                    done += [decoding_work(checkpoint, name, num_sequences=n) for n in (1, 8)]
                else:
                    done.append(encoding_work(checkpoint, texts, name, limits))
    if json:
        facts = {"ceilings": asdict(limits), "work": [asdict(work) for work in done], "peak_memory": peak_memory()}
        typer.echo(dumps(facts, ensure_ascii=False, indent=2))
        return
    for name, flops in limits.flops.items():
        typer.echo(f"{f'products, {name}':<29}{flops / 1e9:>10,.0f} GFLOP/s")
    typer.echo(f"{'memory, read':<29}{limits.bandwidth / 1e9:>10,.1f} GB/s")
    for work in done:
        energy = "" if work.joules_per_token is None else f" · {1000 * work.joules_per_token:.2f} mJ a token"
        typer.echo(
            f"{work.name:<29}{work.tokens_per_second:>10,.0f} tokens/s · {work.share:.0%} of the {work.bound}{energy}"
        )
    if done:
        typer.echo(f"{'peak memory':<29}{peak_memory() / 2**20:>10,.0f} MiB")
