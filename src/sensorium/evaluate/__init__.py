"""Measuring: metrics with intervals, paired tests, baselines, leakage, the report page and a checkpoint's evidence."""
