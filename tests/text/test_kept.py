"""Numbers and terms: what is kept in another way of writing is kept, what is lost is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.text.kept import lost_numbers, lost_terms, terms_in


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("It costs 1,299.50 euros.", "Es kostet 1.299,50 Euro."),
        ("12 000 people", "12 000 Menschen"),
        ("1'000 people", "1000 Menschen"),
        ("3.5 million people live here", "350万人住在这里"),
        ("2 billion", "20亿"),
        ("2 billion", "2 Milliarden"),
        ("room 12, floor 3", "3楼12号房间"),
        ("at 10:30 on 2023-05-01", "2023年5月1日10点30分"),
        ("version 2.0.1", "版本 2.0.1"),
        ("3 dogs, 2 cats", "三只狗，两只猫"),
        ("20 people in 1999", "二十个人，一九九九年"),
        ("3005 stones", "三千零五块石头"),
        ("12 eggs", "zwölf Eier"),
        ("１２ 个", "12 of them"),
        ("50%", "50 %"),
    ],
)
def test_a_number_written_otherwise_is_kept(source: str, translation: str) -> None:
    assert lost_numbers(source, translation) == []


@pytest.mark.parametrize(
    ("source", "translation", "lost"),
    [
        ("room 12", "房间", ["12"]),
        ("from 5 to 5", "bis 5", ["5"]),
        ("3.5 kg", "35 kg", ["3.5"]),
        ("1.5 million", "15 Millionen", ["1.5 million"]),
        ("version 2.0.1", "version 2.1.0", ["2.0.1"]),
        ("no number", "7", []),
    ],
)
def test_a_number_that_is_gone_is_named(source: str, translation: str, lost: list[str]) -> None:
    assert lost_numbers(source, translation) == lost


@given(st.text(max_size=80))
def test_every_text_keeps_its_own_numbers(text: str) -> None:
    assert lost_numbers(text, text) == []


def test_terms_are_whole_words_in_the_source_and_any_of_their_words_in_the_translation() -> None:
    glossary = {"entity": ("实体", "实体对象"), "state machine": "Zustandsautomat", "state": "Zustand", "模型": "model"}
    assert terms_in("The Entity has a\nstate machine.", glossary) == ["entity", "state machine"]
    assert terms_in("identity, estate", glossary) == []
    assert lost_terms("this entity", "这个实体", glossary) == []
    assert lost_terms("大模型很好", "The big MODEL is good", glossary) == []
    assert lost_terms("the state of the entity", "der Zustand", glossary) == ["entity"]
