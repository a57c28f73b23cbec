"""A tiny GPT on docstrings: our recipe beside `transformers`, the same sizes, text and seconds, in bits per byte.

    python benchmarks/tiny_gpt.py

Ours trains by ``recipes/tiny-gpt.toml``. The other is ``GPT2LMHeadModel`` of the same sizes with the same tokenizer, in
the common loop: the texts joined and cut into blocks (nothing is padded), AdamW with the recipe's settings, gradients
clipped, a cosine over as many updates as fit into the seconds that ours took, which its first updates tell. It runs in
float32 or under bf16 autocast, whichever makes more tokens a second here. Both are scored by the same code on
docstrings of packages that are on the test side: bits per byte of UTF-8, each text from its beginning, the text being
what is resampled.

Both are then asked, with 0, 1 and 2 worked examples, which of four beginnings goes on from a docstring's first line, on
the same packages: a choice that needs the text to be understood a little, and where chance is 25 %. Appends to
``benchmarks/results/tiny_gpt.csv`` and ``tiny_gpt_few_shot.csv``.
"""

from __future__ import annotations

import math
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append
from _writing import cells

from sensorium import open_checkpoint
from sensorium.data.corpora import read_corpus
from sensorium.evaluate.few_shot import evaluate_few_shot
from sensorium.evaluate.likelihood import likelihood
from sensorium.evaluate.options import option_scorer
from sensorium.evaluate.statistics import Outcomes, bootstrap_intervals, outcomes, paired_difference
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.train.optim import learning_rate_factor
from sensorium.train.recipe import Recipe, read_recipe
from sensorium.train.run import run_recipe

TEST, LIMIT = "package_docstrings:test", 1000
SHOTS, CHOICES, BEGINNING, ASKED = (0, 1, 2), 4, 100, 500
"""Worked examples, beginnings to choose from, characters of each, and how many docstrings are asked about."""
WARM_UP, TIMED = 3, 8
"""Updates before the clock starts, and updates that tell the speed."""


def blocks(stream: np.ndarray, length: int, rows: int) -> Iterator[torch.Tensor]:
    """[rows, length] token ids, without end, in another order each time round."""
    whole = torch.from_numpy(stream[: len(stream) // length * length].astype(np.int64)).view(-1, length)
    for epoch in range(10**9):
        order = np.random.default_rng(epoch).permutation(len(whole))
        for start in range(0, len(order) - rows + 1, rows):
            yield whole[order[start : start + rows]]


class Loop:
    """The common loop over ``GPT2LMHeadModel``."""

    def __init__(self, recipe: Recipe, vocabulary_size: int, *, bf16: bool) -> None:
        sizes, self.settings, self.bf16 = recipe.model, recipe.train, bf16
        torch.manual_seed(self.settings.seed)
        config = transformers.GPT2Config(
            vocab_size=vocabulary_size, n_positions=sizes.max_length, n_embd=sizes.hidden_size,
            n_layer=sizes.num_layers, n_head=sizes.num_heads, n_inner=sizes.mlp_size,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        self.model = transformers.GPT2LMHeadModel(config).train()
        decayed = [p for p in self.model.parameters() if p.dim() > 1]
        plain = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        betas = (self.settings.betas[0], self.settings.betas[1])
        self.adamw = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=betas)

    def step(self, ids: torch.Tensor, factor: float) -> None:
        """One update."""
        for group in self.adamw.param_groups:
            group["lr"] = self.settings.learning_rate * factor
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.adamw.step()
        self.adamw.zero_grad()

    def speed(self, batches: Iterator[torch.Tensor]) -> float:
        """Updates a second."""
        for _ in range(WARM_UP):
            self.step(next(batches), 1e-3)
        begin = time.perf_counter()
        for _ in range(TIMED):
            self.step(next(batches), 1e-3)
        return TIMED / (time.perf_counter() - begin)


def plain_training(recipe: Recipe, folder: Path, seconds: float) -> tuple[Path, int, str]:
    """Train for so many seconds; returns the checkpoint, its tokens and its precision."""
    tokenizer = open_checkpoint(recipe.train.output).require_tokenizer()
    stream = CausalLanguageModel(recipe.objective.max_length).prepare(read_corpus(corpus_of(recipe)), tokenizer)
    length, rows = recipe.objective.max_length, (recipe.train.batch_tokens or 4096) // recipe.objective.max_length
    speeds = {
        bf16: Loop(recipe, tokenizer.vocabulary_size, bf16=bf16).speed(blocks(stream, length, rows))
        for bf16 in (False, True)
    }
    bf16 = speeds[True] > speeds[False]
    total = int(speeds[bf16] * seconds)
    loop, batches, done = Loop(recipe, tokenizer.vocabulary_size, bf16=bf16), blocks(stream, length, rows), 0
    begin = time.perf_counter()
    while done < total and time.perf_counter() - begin < seconds:
        loop.step(next(batches), learning_rate_factor(done, total, recipe.train.warmup, "cosine"))
        done += 1
    loop.model.save_pretrained(folder)
    for file in Path(recipe.train.output).iterdir():
        if "token" in file.name or file.name in ("vocab.json", "merges.txt"):
            shutil.copy(file, folder / file.name)
    return folder, done * rows * length, "bf16 autocast" if bf16 else "fp32"


def corpus_of(recipe: Recipe) -> str:
    """The corpus the recipe trains on."""
    assert isinstance(recipe.data.train, str), "this benchmark reads one corpus"
    return recipe.data.train.removeprefix("corpus:")


def score(folder: str | Path, texts: list[str]) -> Outcomes:
    """(nats, bytes) of each text."""
    found = likelihood(open_checkpoint(folder))(texts)
    return outcomes([(nats, len(text.encode())) for (nats, _), text in zip(found, texts, strict=True)])


def bits_per_byte(sums: Any) -> Any:
    """Nats and bytes, [..., 2] → [..., 1]."""
    return sums[..., :1] / sums[..., 1:] / math.log(2)


def choices(side: str, count: int) -> list[dict[str, Any]]:
    """First lines of a side's docstrings, each with its own beginning of the body and those of three others."""
    pairs, draw = read_corpus(f"docstring_summaries:{side}"), random.Random(0)
    draw.shuffle(pairs)
    records = []
    for number, pair in enumerate(pairs[:count]):
        others = draw.sample([*pairs[:number], *pairs[number + 1 :]], CHOICES - 1)
        beginnings = [" ".join(one["text"][:BEGINNING].split()) for one in (pair, *others)]
        if len(set(beginnings)) == CHOICES:
            ordered = draw.sample(beginnings, CHOICES)
            records.append({"text": pair["target"], "choices": ordered, "label": beginnings[0]})
    return records


def few_shot(models: dict[str, str | Path]) -> list[list[Any]]:
    """Rows of a table: model, examples shown, accuracy by the likeliest beginning and by the likeliest a character."""
    asked, shown = choices("test", ASKED), choices("train", 50)
    rows = []
    for name, folder in models.items():
        score = option_scorer(open_checkpoint(folder))
        for shots in SHOTS:
            found = evaluate_few_shot(score, asked, shots=shots, train=shown, prompt="{text}\n\n", model=name).metrics
            accuracy, by_length = found["accuracy"], found["accuracy_norm"]
            rows.append([name, len(asked), shots, *cells(accuracy, 4), *cells(by_length, 4)])
    return rows


def main() -> None:
    """Train both, score both on the same texts."""
    recipe = read_recipe(ROOT / "recipes" / "tiny-gpt.toml", sys.argv[1:])
    begin = time.perf_counter()
    outcome = run_recipe(recipe)
    whole = time.perf_counter() - begin
    seconds = outcome.position.seconds
    print(f"{whole:.0f} s with reading and tokenising, {seconds:.0f} s of training")
    folder, tokens, precision = plain_training(recipe, Path(f"{recipe.train.output}-transformers"), seconds)
    texts = [record["text"] for record in read_corpus(TEST)[:LIMIT]]
    ours, theirs = score(recipe.train.output, texts), score(folder, texts)
    rows = []
    for name, scored, read in (
        ("sensorium recipe", ours, outcome.position.tokens), (f"transformers {precision}", theirs, tokens),
    ):  # fmt: skip
        [bits] = bootstrap_intervals(scored, bits_per_byte)
        rows.append(
            [name, len(texts), read, f"{seconds:.0f}", f"{bits.value:.4f}", f"{bits.low:.4f}–{bits.high:.4f}", ""]
        )
    [d] = paired_difference(ours, theirs, bits_per_byte)
    rows.append(
        ["difference", len(texts), "", "", f"{d.value:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}", f"{d.p_value:.2g}"]
    )
    append("tiny_gpt", ["what", "texts", "tokens", "seconds", "bits_per_byte", "interval", "p_value"], rows)
    header = ["what", "n", "shots", "accuracy", "interval", "accuracy_norm", "norm_interval"]
    append("tiny_gpt_few_shot", header, few_shot({"sensorium recipe": recipe.train.output, "transformers": folder}))


if __name__ == "__main__":
    main()
