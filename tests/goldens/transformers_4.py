"""What the pipelines of transformers 4 answer, kept where version 5 no longer has the task or answers in another shape.

Writes ``transformers_4.json`` beside itself; run it in an environment with ``transformers<5``:

    python tests/goldens/transformers_4.py

The models are tiny, and their weights a function of the weights' names: the tests build the same ones.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_suffix(".json")
WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the cat dog fox river sea paris anna lives in runs over to jump ##s ##ing ##ed un "
    "##like ##ly is a of and where who what does it not yellow banana . , ! ? 今 天 气 很 好"
).split()
LABELS = {0: "contradiction", 1: "neutral", 2: "entailment"}
TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
CONTEXT = "Anna lives in Paris, and the dog jumps over the unlikely river. The fox runs to the sea; 今天气很好! "

LONG = (
    "The cat jumps over the river. Anna likes yellow bananas, and it is unlikely to rain! Where does the dog live? "
    "Paris is of 天 and not of 气; the fox jumped in what is a sea. Who runs over Anna? 今 jumping runs, lives jumps "
    "and is not yellow: the sea of foxes runs to where a cat is, and the dogs of Anna like what is unlike a river."
)


def build(name: str, folder: Path) -> Path:
    """Save a tiny model of a published class, and its tokenizer, in ``folder``."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    labels = {"BertForTokenClassification": TAGS, "BertForSequenceClassification": LABELS}.get(name, {0: "A", 1: "B"})
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, id2label=labels, label2id={label: i for i, label in labels.items()},
    )  # fmt: skip
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
            drawn = generator.normal(1.0 if "LayerNorm.weight" in key else 0.0, 0.4, tuple(weight.shape))
            weight.copy_(torch.from_numpy(drawn.astype(np.float32)))
    model.save_pretrained(folder)
    tokenizer_config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return folder


def question_answering() -> list[dict[str, Any]]:
    """Calls of the removed task: options by the dozen, short and windowed contexts."""
    short = {"question": "Where does Anna live?", "context": CONTEXT}
    other = {
        "question": "Who runs?",
        "context": "The fox runs. The dog is jumping, and it runs over the yellow banana.",
    }
    long = {"question": "Who runs?", "context": LONG}
    return [
        {"inputs": short},
        {"inputs": [short, other]},
        {"inputs": [short, other], "top_k": 3},
        {"inputs": short, "top_k": 5, "max_answer_len": 2},
        {"inputs": short, "top_k": 5, "align_to_words": False},
        {"inputs": other, "handle_impossible_answer": True, "top_k": 40},
        {"inputs": long, "align_to_words": False},
        {"inputs": long, "align_to_words": False, "doc_stride": 8, "max_seq_len": 24},
        {"inputs": long, "align_to_words": False, "doc_stride": 0, "max_seq_len": 40, "handle_impossible_answer": True},
        {"question": short["question"], "context": short["context"]},
        {"question": [short["question"], other["question"]], "context": CONTEXT, "top_k": 2},
    ]


def calls() -> list[dict[str, Any]]:
    """Every task, model and call that is kept."""
    pair = {"text": "Anna runs.", "text_pair": "The dog jumps."}
    texts = ["Anna lives in Paris.", "The dog jumps!"]
    sequence = ("text-classification", "BertForSequenceClassification")
    zero = ("zero-shot-classification", "BertForSequenceClassification")
    mask = ("fill-mask", "BertForMaskedLM")
    tags = ("token-classification", "BertForTokenClassification")
    named: list[tuple[tuple[str, str], dict[str, Any]]] = [
        *((("question-answering", "BertForQuestionAnswering"), call) for call in question_answering()),
        *((sequence, {"inputs": one, **top}) for one in (texts[0], texts, pair, [pair]) for top in ({}, {"top_k": 1})),
        (sequence, {"inputs": texts, "top_k": None}),
        (sequence, {"inputs": texts[0], "top_k": 2, "function_to_apply": "sigmoid"}),
        (zero, {"inputs": texts[0], "candidate_labels": ["river", "dog"]}),
        (zero, {"inputs": texts, "candidate_labels": "river, dog", "multi_label": True}),
        (zero, {"inputs": texts, "candidate_labels": ["cat"], "hypothesis_template": "It is a {}."}),
        (mask, {"inputs": "The [MASK] runs."}),
        (mask, {"inputs": ["The [MASK] runs.", "Anna [MASK] in Paris."], "top_k": 2}),
        (mask, {"inputs": "The [MASK] runs.", "targets": ["dog", "fox"]}),
        *((tags, {"inputs": texts[0], "aggregation_strategy": s}) for s in ("none", "simple", "first", "max")),
        (tags, {"inputs": [CONTEXT[:60], texts[1]], "aggregation_strategy": "average", "ignore_labels": []}),
        (("feature-extraction", "BertModel"), {"inputs": "Anna runs."}),
        (("feature-extraction", "BertModel"), {"inputs": ["Anna runs.", "It is."]}),
    ]
    return [{"task": task, "model": model, "call": call} for (task, model), call in named]


def _rounded(value: Any) -> Any:
    """Seven decimals say what float32 can."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(float(value), 7) if isinstance(value, float | np.floating) else value


def _write() -> None:
    import transformers

    with tempfile.TemporaryDirectory() as temporary:
        cases = calls()
        folders = {name: build(name, Path(temporary) / name) for name in {case["model"] for case in cases}}
        for case in cases:
            call = dict(case["call"])
            given = [call.pop("inputs")] if "inputs" in call else []
            run = transformers.pipeline(case["task"], model=str(folders[case["model"]]))
            case["answer"] = _rounded(run(*given, **call))
    golden = {"transformers": transformers.__version__, "cases": cases}
    GOLDEN.write_text(json.dumps(golden, ensure_ascii=False, indent=1, default=int) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
