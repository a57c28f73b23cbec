"""A task's answer as lines for people."""

from __future__ import annotations

from typing import Any

NUMBERS = 6
"""Of a vector, shown."""


def shown(answer: Any) -> str:
    """An answer, a line for each of its alternatives.

    >>> print(shown([{"label": "good", "score": 0.98765}, {"label": "bad", "score": 0.01235}]))
    0.9877  good
    0.0123  bad
    >>> print(shown({"answer": "Ada", "score": 0.5, "start": 3, "end": 6}))
    0.5000  Ada  start=3  end=6
    """
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if isinstance(answer, list) and answer and all(isinstance(one, int | float) for one in answer):
        numbers = " ".join(f"{one:.4f}" for one in answer[:NUMBERS])
        return f"[{len(answer)}] {numbers}" + " …" * (len(answer) > NUMBERS)
    if isinstance(answer, list):
        return "\n".join(map(shown, answer)) if answer else "(nothing)"
    if isinstance(answer, dict):
        return _fields(answer)
    return f"{answer:.4f}" if isinstance(answer, float) else str(answer)


WRITTEN = ("generated_text", "translation_text", "summary_text")
MAIN = ("label", "labels", "answer", "sequence", *WRITTEN, "word", "entity", "entity_group")
"""Keys shown without their name: what an answer is about."""


def _fields(answer: dict[str, Any]) -> str:
    """The score first, then what it is about, then the rest with names."""
    if len(answer) == 1 and (written := set(answer) & set(WRITTEN)):
        text = answer[written.pop()]
        return str(text if isinstance(text, str) else text[-1]["content"])  # of a chat, the answer
    if "labels" in answer and "scores" in answer:  # zero-shot: labels and scores side by side
        ranked = zip(answer["labels"], answer["scores"], strict=True)
        return "\n".join(f"{score:.4f}  {label}" for label, score in ranked)
    parts = [f"{answer['score']:.4f}"] if "score" in answer else []
    parts += [str(answer[key]) for key in MAIN if key in answer]
    parts += [f"{key}={value}" for key, value in answer.items() if key != "score" and key not in MAIN]
    return "  ".join(parts)
