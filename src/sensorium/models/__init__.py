"""Models: a stem, a stack and heads put together."""
