"""The tables and the plot of ``docs/performance.md``, from ``results/*.csv``: what stands there is what was measured.

    python benchmarks/tables.py

Of each processor, the latest row of everything measured; of what the recipes reach, where the processor hardly matters,
the latest of all. A test holds the page to this.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE, PLOT = ROOT / "docs" / "performance.md", ROOT / "docs" / "assets" / "peers.svg"
Row = dict[str, str]
COLOURS = {"fp32": "#7a8b99", "bf16": "#2a7f8f", "int8": "#c0702f"}


def results(name: str) -> Path:
    """The file of a benchmark."""
    return Path(__file__).parent / "results" / f"{name}.csv"


def by_processor(name: str, *key: str) -> dict[str, list[Row]]:
    """Processor → the latest row of each key; the processor measured last comes first."""
    with results(name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[tuple[str, ...], Row]] = {}
    for row in rows:
        latest = found.setdefault(row["processor"], {})
        latest.pop(of := tuple(row[column] for column in key), None)
        latest[of] = row
    newest_first = dict.fromkeys(row["processor"] for row in reversed(rows))
    return {processor: list(found[processor].values()) for processor in newest_first}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; what is ours stands in bold."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for first, *others in rows:
        name = f"**{first}**" if first.startswith("sensorium") else first
        lines.append("| " + " | ".join([name, *others]) + " |")
    return "\n".join(lines)


def caption(processor: str, rows: Sequence[Row]) -> str:
    """Where and when."""
    dates = sorted({row["date"] for row in rows})
    versions = f"torch {rows[-1]['torch']}, transformers {rows[-1]['transformers']}"
    return f"{processor}; {versions}; {dates[0]}{'' if len(dates) == 1 else f' to {dates[-1]}'}."


def number(text: str) -> str:
    """Thousands apart; three places are enough below a hundred."""
    value = float(text)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: str) -> str:
    """Of one."""
    return f"{float(share):.0%}".replace("%", " %") if share else ""


def peers(processor: str, rows: Sequence[Row]) -> str:
    """Sentence embeddings."""
    header = ["who", "tokens/s (slowest–fastest turn)", "× the first", "cosine: mean, least"]
    cells = []
    for row in rows:
        spread = "–".join(map(number, row["spread"].split("–")))
        cosines = f"{row['cosine'][:7]}, {row['least_cosine'][:7]}"
        cells.append([row["what"], f"{number(row['tokens_per_second'])} ({spread})", row["times_first"], cosines])
    return table(header, cells)


def decoding(processor: str, rows: Sequence[Row]) -> str:
    """GPT-2, one and eight sequences in a line."""
    of = {(row["what"], row["sequences"]): row for row in rows}
    cells = []
    for what in dict.fromkeys(row["what"] for row in rows):
        one, eight = of[what, "1"], of[what, "8"]
        times = f"{one['times_transformers_bf16']}, {eight['times_transformers_bf16']}"
        speeds = number(one["tokens_per_second"]), number(eight["tokens_per_second"])
        cells.append([what, speeds[0], percent(one["share_of_bandwidth"]), speeds[1], times])
    return table(
        ["who", "one sequence: tokens/s", "of memory", "eight: tokens/s", "× transformers bf16: one, eight"], cells
    )


def training(processor: str, rows: Sequence[Row]) -> str:
    """Pretraining."""
    cells = [
        [row["what"], number(row["tokens_per_second"]), row["times_padded_fp32"], row["times_padded_bf16"]]
        for row in rows
    ]
    return table(["who", "real tokens/s", "× padded fp32", "× padded bf16 autocast"], cells)


def training_loss(processor: str, rows: Sequence[Row]) -> str:
    """The loss after the same tokens."""
    cells = [[row["what"], number(row["tokens"]), row["held_out_loss"], row["seconds"]] for row in rows]
    return table(["who", "tokens", "held-out loss", "seconds"], cells)


def fine_tuning(processor: str, rows: Sequence[Row]) -> str:
    """Banking77."""
    cells = []
    for row in rows:
        low, high = (f"{100 * float(x):.1f}" for x in row["interval"].split("–"))
        cells.append([row["what"], f"{100 * float(row['accuracy']):.1f} % ({low}–{high})", row["seconds"]])
    return table(["who", "test accuracy", "seconds"], cells)


def quantised(processor: str, rows: Sequence[Row]) -> str:
    """Banking77 by dtype."""
    cells = [
        [row["what"], f"{100 * float(row['accuracy']):.2f} %", f"{100 * float(row['difference']):+.2f} points"]
        for row in rows
    ]
    return table(["dtype", "test accuracy", "beside fp32"], cells)


def rounding(processor: str, rows: Sequence[Row]) -> str:
    """Cosines with fp32."""
    return table(["dtype", "mean", "least"], [[row["what"], row["cosine_mean"], row["cosine_least"]] for row in rows])


def growth(processor: str, rows: Sequence[Row]) -> str:
    """Cost a token and memory."""
    cells = [[number(row["texts"]), row["microseconds_per_token"], row["peak_memory_mib"]] for row in rows]
    return table(["texts", "µs a token", "peak memory, MiB"], cells)


def smollm2(processor: str, rows: Sequence[Row]) -> str:
    """SmolLM2 beside llama.cpp, a line for each contestant."""
    of = {(row["what"], row["work"]): row for row in rows}
    works = list(dict.fromkeys(row["work"] for row in rows))
    cells = []
    for what in dict.fromkeys(row["what"] for row in rows):
        pair = [of[what, work] for work in works]
        cells.append([what, *(f"{number(row['tokens_per_second'])} ({row['times_llama_cpp']} ×)" for row in pair)])
    return table(["who", *(f"{work}: tokens/s" for work in works)], cells)


def gguf_agreement(processor: str, rows: Sequence[Row]) -> str:
    """The same file here and in llama.cpp."""
    cells = [
        [row["what"], row["reference"], f"{100 * float(row['top-1 agreement']):.2f} %", row["perplexity"],
         row["reference's"]]
        for row in rows
    ]  # fmt: skip
    return table(["who", "beside", "same likeliest token", "perplexity", "the other's"], cells)


def translating(processor: str, rows: Sequence[Row]) -> str:
    """A translator of Marian's size beside CTranslate2."""
    of = {(row["what"], row["beams"]): row for row in rows}
    cells = []
    for what in dict.fromkeys(row["what"] for row in rows):
        pair = [of[what, beams] for beams in ("1", "4")]
        cells.append(
            [what, *(f"{number(row['tokens_per_second'])} ({row['times_ctranslate2_int8']} ×)" for row in pair)]
        )
    return table(["who", "greedy: tokens/s", "four beams: tokens/s"], cells)


def score(row: Row, name: str, interval: str = "", *, times: int = 1, digits: int = 1) -> str:
    """A figure and its interval."""
    low, high = (f"{times * float(x):.{digits}f}" for x in row[interval or f"{name}_interval"].split("–"))
    return f"{times * float(row[name]):.{digits}f} ({low}–{high})"


def multi30k(processor: str, rows: Sequence[Row]) -> str:
    """Captions into German."""
    cells = [
        [row["what"], row["how"], *(score(row, name, digits=2) for name in ("bleu", "chrf")), row["seconds"]]
        for row in rows
    ]
    return table(["who", "how it is counted", "BLEU", "chrF", "seconds"], cells)


def software(processor: str, rows: Sequence[Row]) -> str:
    """Strings and help of programs."""
    cells = [
        [row["what"], row["language"], f"{row['data'].replace('_', ' ')} ({number(row['n'])})", score(row, "chrf"),
         score(row, "bleu")]
        for row in rows
    ]  # fmt: skip
    return table(["who", "into", "texts", "chrF", "BLEU"], cells)


def summaries(processor: str, rows: Sequence[Row]) -> str:
    """First lines of docstrings, and sentences about papers."""
    cells = [
        [row["what"], f"{row['data']} ({number(row['n'])})",
         *(score(row, rouge, times=100) for rouge in ("rouge1", "rouge2", "rougeL")), row["seconds"]]
        for row in rows
    ]  # fmt: skip
    return table(["who", "texts", "ROUGE-1", "ROUGE-2", "ROUGE-L", "seconds"], cells)


def slots(processor: str, rows: Sequence[Row]) -> str:
    """Restaurant8k."""
    cells = [[row["what"], score(row, "average_f1", "interval", digits=3), row["seconds"]] for row in rows]
    return table(["who", "average F1", "seconds"], cells)


def tiny_gpt(processor: str, rows: Sequence[Row]) -> str:
    """Bits per byte for the same seconds."""
    cells = []
    for row in rows:
        tokens = number(row["tokens"]) if row["tokens"] else ""
        interval = row["interval"] + (f", p = {row['p_value']}" if row["p_value"] else "")
        cells.append([row["what"], tokens, row["seconds"], f"{row['bits_per_byte']} ({interval})"])
    return table(["who", "tokens", "seconds", "bits per byte"], cells)


def few_shot(processor: str, rows: Sequence[Row]) -> str:
    """Which of four goes on, after 0, 1 and 2 worked examples."""
    cells = [
        [row["what"], row["shots"], score(row, "accuracy", "interval", times=100),
         score(row, "accuracy_norm", "norm_interval", times=100)]
        for row in rows
    ]  # fmt: skip
    return table(["who", "examples", "accuracy, %", "by likelihood a character, %"], cells)


def icons(processor: str, rows: Sequence[Row], kind: str = "icon") -> str:
    """Icons found by words, and words by icons."""
    ways = {"text_to_image": f"words → {kind}", "image_to_text": f"{kind} → words"}
    cells = [
        [row["what"], f"{row['data']} ({number(row['n'])})", ways[row["way"]],
         *(score(row, f"recall_{k}") for k in (1, 5, 10)), row["seconds"]]
        for row in rows
    ]  # fmt: skip
    return table(["who", "asked", "way", "among 1, %", "among 5, %", "among 10, %", "seconds"], cells)


def pictures(processor: str, rows: Sequence[Row]) -> str:
    """The same of emoji and clip art."""
    return icons(processor, rows, "picture")


def contrastive(processor: str, rows: Sequence[Row]) -> str:
    """CLIP's training on one thread."""
    cells = [
        [row["what"], number(row["images_per_second"]), row["times_fp32"], row["times_bf16_autocast"]] for row in rows
    ]
    return table(["who", "images/s", "× open_clip fp32", "× open_clip bf16 autocast"], cells)


def values(rows: Sequence[Row], kind: str) -> list[list[str]]:
    """Cells of rows that say what was measured, of which kind, on how many, and how much with its interval."""
    return [
        [row["what"], row[kind], number(row["n"]), row["value"] + (f" ({row['interval']})" if row["interval"] else "")]
        for row in rows
    ]


def searching(processor: str, rows: Sequence[Row]) -> str:
    """A folder of icons as an index."""
    header = ["what", "measured", "of", "value (interval, or slowest–fastest turn)"]
    return table(header, values(rows, "measured"))


def vqa(processor: str, rows: Sequence[Row]) -> str:
    """Questions about pictures."""
    cells = [
        [row["sees"], number(row["n"]), score(row, "accuracy", "interval", digits=2), row["seconds"]] for row in rows
    ]
    return table(["sees", "questions", "right, %", "seconds"], cells)


def captions(processor: str, rows: Sequence[Row]) -> str:
    """Captions of pictures."""
    names = ("both", "colour", "shape", "bleu", "chrf")
    cells = [[row["what"], *(score(row, name) for name in names), row["seconds"]] for row in rows]
    return table(["who", "both right, %", "colour, %", "shape, %", "BLEU", "chrF", "seconds"], cells)


def drawing(processor: str, rows: Sequence[Row]) -> str:
    """Drawings of captions, and what judges see in them."""
    return table(["drawn", "judge", "pictures", "right, % (interval), or distance"], values(rows, "judge"))


SECTIONS = {
    "peers": (peers, "peers", ["what"]),
    "decoding": (decoding, "decoding", ["what", "sequences"]),
    "smollm2": (smollm2, "smollm2", ["what", "work"]),
    "gguf agreement": (gguf_agreement, "gguf_agreement", ["what", "reference"]),
    "translating": (translating, "translating", ["what", "beams"]),
    "rounding": (rounding, "rounding", ["what"]),
    "quantised": (quantised, "quantised", ["what"]),
    "growth": (growth, "growth", ["texts"]),
    "searching": (searching, "searching", ["measured", "what", "n"]),
    "training": (training, "pretraining", ["what"]),
    "contrastive": (contrastive, "contrastive", ["what"]),
    "training loss": (training_loss, "pretraining_loss", ["what"]),
    "fine-tuning": (fine_tuning, "banking77", ["what"]),
}
REACHED = {
    "slots": (slots, "restaurant8k", ["what"]),
    "multi30k": (multi30k, "multi30k", ["what", "how"]),
    "software": (software, "software", ["language", "data", "what"]),
    "summaries": (summaries, "summaries", ["data", "what"]),
    "tiny gpt": (tiny_gpt, "tiny_gpt", ["what"]),
    "icons": (icons, "icons", ["data", "what", "way"]),
    "pictures": (pictures, "pictures", ["data", "what", "way"]),
    "vqa": (vqa, "vqa", ["sees"]),
    "captions": (captions, "captions", ["what"]),
    "drawing": (drawing, "drawing", ["what", "judge"]),
    "drawing icons": (drawing, "drawing_icons", ["what", "judge"]),
    "few shot": (few_shot, "tiny_gpt_few_shot", ["what", "shots"]),
}
"""Mark on the page → how to draw the table, its file, and what tells its rows apart."""


def page(text: str) -> str:
    """The page with its tables drawn anew, each between ``<!-- name -->`` and ``<!-- end of name -->``."""
    for mark, (draw, name, key) in {**SECTIONS, **REACHED}.items():
        if not results(name).exists():  # not measured yet: it has no place on the page
            continue
        found = list(by_processor(name, *key).items())[: 1 if mark in REACHED else None]
        tables = [f"{caption(p, rows)}\n\n{draw(p, rows)}" for p, rows in found]
        before, begin, rest = text.partition(f"<!-- {mark} -->\n")
        _, end, after = rest.partition(f"<!-- end of {mark} -->")
        if not begin or not end:
            raise SystemExit(f"{PAGE}: there is no place for {mark}")
        text = before + begin + "\n\n".join(tables) + "\n" + end + after
    return text


def plot() -> str:
    """Sentence embeddings: a bar each, by speed, a block for each processor, as an SVG that needs nothing."""
    blocks, y = [], 0
    for processor, rows in by_processor("peers", "what").items():
        ordered = sorted(rows, key=lambda row: -float(row["tokens_per_second"]))
        most = float(ordered[0]["tokens_per_second"])
        blocks.append(f'<text x="8" y="{y + 20}" fill="#76838c">{processor}: tokens per second</text>')
        y += 30
        for row in ordered:
            width = 410 * float(row["tokens_per_second"]) / most
            weight = ' font-weight="bold"' if row["what"].startswith("sensorium") else ""
            blocks.append(
                f'<text x="238" y="{y + 14}" text-anchor="end" fill="#76838c"{weight}>{row["what"]}</text>'
                f'<rect x="246" y="{y}" width="{width:.0f}" height="19" rx="3" fill="{COLOURS[row["dtype"]]}"/>'
                f'<text x="{252 + width:.0f}" y="{y + 14}" fill="#76838c">{number(row["tokens_per_second"])}</text>'
            )
            y += 26
        y += 14
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {y}" font-family="sans-serif" font-size="13">'
    return "\n".join([head + "<title>Sentence embeddings, tokens per second</title>", *blocks, "</svg>\n"])


def main() -> None:
    """Write both."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    PLOT.write_text(plot(), encoding="utf-8")


if __name__ == "__main__":
    main()
