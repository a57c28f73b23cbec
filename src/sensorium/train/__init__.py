"""Training: recipe, loop, optimiser, exact resume, log."""
