"""Measuring: metrics with intervals, paired tests, baselines, leakage, the report page and a checkpoint's evidence.

evaluation = evaluate_classification(predict, records, labels=labels, train=train, model="mine", dataset="reviews")
evaluation.metrics["accuracy"]                  # Estimate(value=…, low=…, high=…, n=…)
compare(evaluation, other)                      # paired tests on the same items
write_report("report.html", [evaluation])
write_evidence("my-model", [evaluation])
"""

from __future__ import annotations

from sensorium.evaluate._shared import Settings, compare
from sensorium.evaluate.classification import evaluate_classification
from sensorium.evaluate.evaluation import Comparison, Evaluation
from sensorium.evaluate.evidence import TrainingEvidence, TrainingSource, write_evidence
from sensorium.evaluate.few_shot import evaluate_few_shot
from sensorium.evaluate.generation import evaluate_generation
from sensorium.evaluate.language_model import evaluate_language_model
from sensorium.evaluate.question_answering import evaluate_question_answering
from sensorium.evaluate.report import write_report
from sensorium.evaluate.retrieval import evaluate_retrieval
from sensorium.evaluate.similarity import evaluate_similarity
from sensorium.evaluate.statistics import Difference, Estimate
from sensorium.evaluate.token_classification import evaluate_token_classification, tagged

__all__ = [
    "Comparison",
    "Difference",
    "Estimate",
    "Evaluation",
    "Settings",
    "TrainingEvidence",
    "TrainingSource",
    "compare",
    "evaluate_classification",
    "evaluate_few_shot",
    "evaluate_generation",
    "evaluate_language_model",
    "evaluate_question_answering",
    "evaluate_retrieval",
    "evaluate_similarity",
    "evaluate_token_classification",
    "tagged",
    "write_evidence",
    "write_report",
]
