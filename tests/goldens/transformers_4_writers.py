"""What the tasks of transformers 4 that read one text and write another answer; version 5 no longer has them.

Writes ``transformers_4_writers.json`` beside itself; run it in an environment with ``transformers<5``:

    python tests/goldens/transformers_4_writers.py

The models are tiny, and their weights a function of the weights' names: the tests build the same ones. Where a call or
a checkpoint says ``max_length``, ``max_new_tokens=None`` goes with it: the last releases of version 4 gave these
pipelines 256 new tokens by default, which there wins over any ``max_length`` that was asked for.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_suffix(".json")
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
WORDS = (
    "the cat dog fox river sea paris anna lives in runs over to a of and . , ! ? translate English German : summarize "
    "it n't 's is where yellow der hund die katze läuft über den fluss und 今 天 气 很 好"
).split()
CODES = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX "
    "ro_RO ru_RU si_LK tr_TR vi_VN zh_CN af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN "
    "pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
).split()
TASKS = {
    "summarization": {"prefix": "summarize : ", "max_length": 14, "min_length": 5, "no_repeat_ngram_size": 3,
                      "num_beams": 4, "early_stopping": True, "length_penalty": 2.0},
    "translation_en_to_de": {"prefix": "translate English to German : ", "max_length": 12, "num_beams": 3},
}  # fmt: skip
TEXT = "the cat runs over the river and anna lives in paris ."
OTHER = "where is the yellow dog ?"
LONG = " ".join([TEXT, OTHER] * 8)
SIZES = {
    "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 48, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip


def build(name: str, folder: Path) -> Path:
    """Save a tiny model of a published class, and its tokenizer, in ``folder``."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    codes = CODES if name == "MBartForConditionalGeneration" else []
    size = len(SPECIALS) + len(WORDS) + len(codes) + (len(codes) > 0)
    if name == "T5ForConditionalGeneration":
        config: Any = transformers.T5Config(
            vocab_size=size, d_model=24, d_kv=12, d_ff=32, num_layers=2, num_heads=2, pad_token_id=1, eos_token_id=2,
            decoder_start_token_id=1, task_specific_params=TASKS,
        )  # fmt: skip
    else:
        kind = name.removesuffix("ForConditionalGeneration")
        config = getattr(transformers, f"{kind}Config")(vocab_size=size, **SIZES)
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
            drawn = generator.normal(1.0 if "norm" in key and "weight" in key else 0.0, 0.5, tuple(weight.shape))
            weight.copy_(torch.from_numpy(drawn.astype(np.float32)))
            if key in ("shared.weight", "model.shared.weight"):  # words are likelier than what stands for none
                weight[: len(SPECIALS)] *= 0.3
                weight[len(SPECIALS) + len(WORDS) :] *= 0.3
    model.save_pretrained(folder)
    if name == "T5ForConditionalGeneration":  # version 5 no longer writes it
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**written, "task_specific_params": TASKS}))
    _save_tokenizer(folder, codes, framed=name != "T5ForConditionalGeneration")
    return folder


def _save_tokenizer(folder: Path, codes: list[str], *, framed: bool) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors

    pieces = [*SPECIALS, *(f"▁{word}" for word in WORDS), *codes, *(["<mask>"] if codes else [])]
    backend = tokenizers.Tokenizer(models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens([*SPECIALS, *codes, *(["<mask>"] if codes else [])])
    single = "<s> $A </s>" if framed else "$A </s>"
    if codes:
        single = "en_XX $A </s>"
    known = [(token, pieces.index(token)) for token in ("<s>", "</s>", "en_XX") if token in pieces]
    pair = f"{single} $B </s>"
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=known)
    backend.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"}
    kind = "MBart50Tokenizer" if codes else "PreTrainedTokenizerFast"
    if codes:
        names |= {"cls_token": "<s>", "mask_token": "<mask>"}
    config = {"tokenizer_class": kind, "model_max_length": 48, "clean_up_tokenization_spaces": False, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(names))


def calls() -> list[dict[str, Any]]:
    """Every task, model and call that is kept."""
    t5, bart, mbart = (f"{name}ForConditionalGeneration" for name in ("T5", "Bart", "MBart"))
    pair = [TEXT, OTHER]
    languages = {"src_lang": "en_XX", "tgt_lang": "de_DE", "max_length": 12}
    named: list[tuple[str, str, dict[str, Any]]] = [
        ("text2text-generation", t5, {"inputs": TEXT, "max_new_tokens": 9, "min_length": 6}),
        ("text2text-generation", t5, {"inputs": pair, "max_length": 10}),
        ("text2text-generation", t5, {"inputs": pair, "max_new_tokens": 8, "num_beams": 3, "num_return_sequences": 2}),
        ("text2text-generation", t5, {"inputs": TEXT, "max_length": 8, "num_beams": 1}),
        ("text2text-generation", t5, {"inputs": [TEXT], "min_length": 9, "max_length": 12, "num_beams": 1}),
        ("text2text-generation", bart, {"inputs": OTHER, "max_new_tokens": 12, "repetition_penalty": 1.8}),
        ("text2text-generation", bart, {"inputs": pair, "max_new_tokens": 12, "no_repeat_ngram_size": 2,
                                        "clean_up_tokenization_spaces": True}),
        ("text2text-generation", bart, {"inputs": LONG, "truncation": True, "max_new_tokens": 6}),
        ("summarization", t5, {"inputs": TEXT}),
        ("summarization", t5, {"inputs": pair}),
        ("summarization", t5, {"inputs": TEXT, "max_length": 9, "min_length": 4}),
        ("summarization", bart, {"inputs": LONG, "truncation": True, "max_length": 11, "min_length": 3}),
        ("summarization", bart, {"inputs": pair, "max_length": 10, "num_beams": 2, "length_penalty": 0.5}),
        ("translation_en_to_de", t5, {"inputs": TEXT}),
        ("translation_en_to_de", t5, {"inputs": pair, "num_beams": 1}),
        ("translation", bart, {"inputs": pair, "max_length": 9}),
        ("translation", mbart, {"inputs": TEXT, **languages}),
        ("translation", mbart, {"inputs": pair, **languages, "num_beams": 2, "repetition_penalty": 2.0}),
        ("translation_en_XX_to_zh_CN", mbart, {"inputs": pair, "max_new_tokens": 6, "tgt_lang": "zh_CN",
                                               "src_lang": "en_XX"}),
    ]  # fmt: skip
    return [{"task": task, "model": model, "call": call} for task, model, call in named]


def _write() -> None:
    import transformers

    with tempfile.TemporaryDirectory() as temporary:
        cases = calls()
        folders = {name: build(name, Path(temporary) / name) for name in {case["model"] for case in cases}}
        for case in cases:
            call = dict(case["call"])
            task = case["task"] if case["task"].count("_") in (0, 3) else "translation"
            run = transformers.pipeline(task, model=str(folders[case["model"]]))
            given = {**TASKS.get(task, {}), **call} if case["model"].startswith("T5") else call
            lengths = {"max_new_tokens": None} if "max_length" in given and "max_new_tokens" not in call else {}
            case["answer"] = run(call.pop("inputs"), **call, **lengths)
    golden = {"transformers": transformers.__version__, "cases": cases}
    GOLDEN.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
