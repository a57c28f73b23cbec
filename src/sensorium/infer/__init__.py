"""Inference: token-budget batches in input order, generation with a cache, sampling."""
