"""Which families can be trained for which objective, and what each kind of training reads and writes."""

from __future__ import annotations

ENCODERS = ("bert", "roberta", "distilbert")
MODERN_DECODERS = ("llama", "mistral", "qwen2", "qwen3")
DECODERS = ("gpt2", *MODERN_DECODERS)
LLAMAS = (*MODERN_DECODERS, "llava", "janus")
"""Families whose decoder is a Llama."""
ENCODER_DECODERS = ("marian", "bart")
DUAL_ENCODERS = ("clip", "siglip", "vit")
READERS_OF_IMAGES = ("llava", "janus")
DRAWERS = ("janus",)
CODECS = ("janus_vqgan",)
CAPTIONERS = ("blip",)
LOOKING = (*DUAL_ENCODERS, *READERS_OF_IMAGES, *CODECS, *CAPTIONERS)
LEARNERS = {
    "masked_token": ENCODERS, "sequence": ENCODERS, "token": ENCODERS, "span": ENCODERS, "causal": DECODERS,
    "conversation": DECODERS, "seq2seq": ENCODER_DECODERS, "denoising": ENCODER_DECODERS,
    "contrastive": DUAL_ENCODERS, "answering": READERS_OF_IMAGES, "codec": CODECS, "drawing": DRAWERS,
    "captioning": CAPTIONERS,
}  # fmt: skip
"""The families of which a new model can be trained for an objective."""
TWO_TEXTS = tuple(kind for kind, families in LEARNERS.items() if families == ENCODER_DECODERS)
"""Objectives that read one text and write another."""
LOOKING_KINDS = ("contrastive", "answering", "codec", "drawing", "captioning")
"""Objectives whose records have images."""
WRITERS = ("causal", "conversation", "seq2seq", "denoising")
"""Objectives whose head every such model has."""
TAUGHT = ("sequence", "causal", "conversation", "seq2seq")
"""Objectives that can be learnt from a teacher."""
