"""Objectives: what a model is trained to do. One small file each: records → examples → batch → named losses."""
