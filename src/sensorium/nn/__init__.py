"""The Transformer: attention and its kernels, block, stack, stems, heads."""
