"""A prompt goes on from what an earlier one left behind, and what it writes is the same; another's caller sees none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import UsageError
from sensorium.infer.decode import start
from sensorium.infer.prefix import PrefixStore, block_names
from sensorium.infer.settings import GenerationSettings
from sensorium.infer.write import write
from sensorium.native import PANEL

TOKENS = st.lists(st.integers(0, 49), min_size=1, max_size=9)
LONG = [7, 3, 9, 1, 4, 4, 8, 0] * 20  # 160 tokens: two blocks and a half
SEVERAL = st.lists(
    st.tuples(st.integers(0, 160), TOKENS).map(lambda drawn: LONG[: drawn[0]] + drawn[1]), min_size=1, max_size=4
)
MUCH = 2**30


def tokens_computed(model: Any, run: Any) -> int:
    seen: list[int] = []
    handle = model.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].num_tokens))
    run()
    handle.remove()
    return sum(seen)


@settings(max_examples=20)
@given(calls=st.lists(SEVERAL, min_size=2, max_size=4), most=st.sampled_from([0, 30_000, MUCH]), beams=st.booleans())
def test_what_was_kept_changes_nothing(decoder: Any, calls: list[list[list[int]]], most: int, beams: bool) -> None:
    store = PrefixStore(decoder, most)
    options = GenerationSettings(max_new_tokens=6, eos_token_id=3, num_beams=3 if beams else 1)
    for prompts in calls:
        found = write(decoder, prompts, options, prefixes=store.salted("a"))
        assert [[one.token_ids for one in answers] for answers in found] == [
            [one.token_ids for one in answers] for answers in write(decoder, prompts, options)
        ]
        assert store.num_bytes <= most
    assert store.num_bytes == sum(part.nbytes for block in store._blocks.values() for part in block)


def test_no_bit_changes_on_the_kernels(decoder: Any) -> None:
    store = PrefixStore(decoder, MUCH)
    first, second = [*LONG, 5, 6], [*LONG[:130], 1, 2]
    for prompts in ([first], [second], [first, second], [[2], first]):
        _, expected = start(decoder, prompts, max_new_tokens=3)
        for _ in range(2):
            _, logits = start(decoder, prompts, max_new_tokens=3, prefixes=store.salted(""))
            if decoder.stem.tokens.weight.dtype == torch.float64:
                assert torch.allclose(logits, expected, atol=1e-12)
            else:
                assert torch.equal(logits, expected)


def test_only_what_is_new_is_computed(decoder: Any) -> None:
    store = PrefixStore(decoder, MUCH)
    mine, others = store.salted("mine"), store.salted("another's")

    def computed(prompts: list[list[int]], prefixes: Any) -> int:
        return tokens_computed(decoder, lambda: start(decoder, prompts, max_new_tokens=1, prefixes=prefixes))

    assert computed([LONG], mine) == 160
    assert computed([LONG], mine) == 160 - 2 * PANEL
    assert computed([[*LONG[:128]]], mine) == PANEL  # a token must be left to go on from, and blocks are whole
    assert computed([[*LONG, 1], [*LONG, 2]], mine) == 160 - 2 * PANEL + 2
    assert computed([[9, *LONG]], mine) == 161
    assert computed([LONG], others) == 160
    assert computed([LONG], None) == 160


def test_the_blocks_that_nobody_asked_for_go_first_the_last_of_a_prompt_before_its_first(decoder: Any) -> None:
    store = PrefixStore(decoder, MUCH)
    for prompt in ([1] * 130, [2] * 130):
        start(decoder, [prompt], max_new_tokens=1, prefixes=store.salted(""))
    start(decoder, [[1] * 130], max_new_tokens=1, prefixes=store.salted(""))
    store.most_bytes = store.num_bytes * 3 // 4
    start(decoder, [[1] * 130], max_new_tokens=1, prefixes=store.salted(""))
    ones, twos = block_names([1] * 130, ""), block_names([2] * 130, "")
    assert set(store._blocks) == {*ones, twos[0]}


def test_a_name_tells_all_tokens_up_to_its_end_and_the_salt() -> None:
    names = block_names(LONG, "a")
    assert len(names) == 2
    assert names == block_names(LONG[:128], "a") != block_names(LONG, "b")
    other = block_names([8, *LONG[1:]], "a")
    assert not set(other) & set(names)
    assert block_names([*LONG[:127], 49], "a")[0] == names[0]
    assert block_names([1] * 63, "a") == []


def test_prefixes_of_another_model_are_refused(decoder: Any) -> None:
    class Other:
        """Not the model."""

    store = PrefixStore(Other(), MUCH)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="these prefixes are of another model; give each model a store of its own"):
        start(decoder, [[1]], max_new_tokens=1, prefixes=store.salted(""))
