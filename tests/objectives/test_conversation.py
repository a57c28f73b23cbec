"""Conversations: what is learnt is what `transformers` marks as the assistant's, and no other token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import transformers

from sensorium.errors import DataError
from sensorium.objectives._base import Batch
from sensorium.objectives.conversation import Conversation
from sensorium.text.training import train_byte_level_bpe

pytest.importorskip("jinja2")

CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content + '<|im_end|>\\n' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
# Only the last answer keeps what was thought before it.
FORGETFUL = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.thought and loop.last %}{{ '(' + message.thought + ')' }}{% endif %}
    {{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
CHATS: list[list[dict[str, str]]] = [
    [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Where is the harbour?"},
        {"role": "assistant", "content": "Behind the bridge."},
        {"role": "user", "content": "今天天气怎么样？"},
        {"role": "assistant", "content": "很好。"},
    ],
    [{"role": "user", "content": "Goodbye."}, {"role": "assistant", "content": "Bye!"}],
]
TOKENIZER = train_byte_level_bpe([m["content"] for chat in CHATS for m in chat], 320)
TOKENIZER.backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])


def batch_of(objective: Conversation, chats: list[Any]) -> Batch:
    generator = np.random.default_rng(0)
    prepared = objective.prepare([{"messages": chat} for chat in chats], TOKENIZER)
    return objective.collate(objective.examples(prepared, generator), TOKENIZER, generator)


def test_what_is_learnt_is_what_transformers_marks() -> None:
    peer = transformers.PreTrainedTokenizerFast(tokenizer_object=TOKENIZER.backend, chat_template=CHATML)
    batch = batch_of(Conversation(CHATML), CHATS)
    ids: list[int] = []
    marked: list[bool] = []
    for chat in CHATS:
        expected = peer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
        ids += expected["input_ids"]
        marked += map(bool, expected["assistant_masks"])
    assert batch.packed.values.tolist() == ids
    rows = np.flatnonzero(marked)
    assert batch.targets["rows"].tolist() == (rows - 1).tolist()
    assert batch.targets["next"].tolist() == [ids[row] for row in rows]
    assert batch.counts == {"language_model": len(rows)}


def test_a_template_that_rewrites_earlier_turns_gives_an_example_for_each() -> None:
    chat = [{**m, "thought": "hm"} if m["role"] == "assistant" else m for m in CHATS[0]]
    batch = batch_of(Conversation(FORGETFUL), [chat])
    texts = [TOKENIZER.decode(part.tolist()) for part in batch.packed.split(batch.packed.values)]
    assert len(texts) == 2
    assert "(hm)Behind the bridge." in texts[0]
    assert "(hm)Behind" not in texts[1]
    assert TOKENIZER.decode(batch.targets["next"].tolist()) == "(hm)Behind the bridge.\n(hm)很好。\n"


def test_long_conversations_are_cut_and_those_without_an_answer_left_are_left_out() -> None:
    answers = len(batch_of(Conversation(CHATML), CHATS).targets["next"])
    short = batch_of(Conversation(CHATML, max_length=40), CHATS)
    assert max(short.packed.lengths) <= 40
    assert 0 < len(short.targets["next"]) < answers
    with pytest.raises(DataError, match="says nothing within the first 5 tokens"):
        batch_of(Conversation(CHATML, max_length=5), CHATS[:1])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "its 'messages' is empty"),
        (7, "record 1: a chat is a list of messages"),
        ([{"role": "poet", "content": "a"}], "record 1: message 1 has the role 'poet'"),
        ([{"role": "user", "content": "a"}], "the assistant says nothing"),
        ([{"role": "assistant", "content": "It is not asked."}], "the assistant says nothing"),
    ],
)
def test_a_record_that_is_no_conversation_is_named(messages: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        batch_of(Conversation(CHATML), [messages])
