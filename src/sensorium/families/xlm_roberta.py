"""XLM-RoBERTa (Conneau et al., 2020): RoBERTa's arithmetic and names, a multilingual vocabulary."""

from __future__ import annotations

from sensorium.families.roberta import family

FAMILY = family("xlm-roberta", "XLMRoberta")
