"""Records, corpora, and batches of them."""
