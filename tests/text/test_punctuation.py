"""Chinese marks beside Chinese characters, and nothing else changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.text.punctuation import chinese_punctuation


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("今天很热, 明天下雨.", "今天很热，明天下雨。"),
        ("你好!你是谁?", "你好！你是谁？"),
        ("他来了(昨天).", "他来了（昨天）。"),
        ("等等...", "等等……"),
        ("他说:\"好.\"", "他说：“好。”"),
        ("我 们 去 公园", "我们去公园"),
        ("版本 2.0.1 比 1.9 好.", "版本 2.0.1 比 1.9 好。"),
        ("价格是 3.5 元, 共 1,000 个.", "价格是 3.5 元，共 1,000 个。"),
        ("时间 10:30", "时间 10:30"),
        ("请看 https://a.b/c?d=1.", "请看 https://a.b/c?d=1."),
        ("OK, fine.", "OK, fine."),
        ("今天很热，明天下雨。", "今天很热，明天下雨。"),
    ],
)  # fmt: skip
def test_marks_are_those_of_the_script(written: str, right: str) -> None:
    assert chinese_punctuation(written) == right


@given(st.text(alphabet='好天a1 ,.!?:;()"…，。', max_size=40))
def test_what_is_right_stays_right(text: str) -> None:
    once = chinese_punctuation(text)
    assert [c for c in once if c.isalnum()] == [c for c in text if c.isalnum()]
    assert chinese_punctuation(chinese_punctuation(once)) == chinese_punctuation(once)
