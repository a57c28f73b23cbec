"""The page of pictures: whole, alone without the network, and safe with hostile text."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("jinja2", reason="the page needs the extra 'report'")

from sensorium.demo.pictures import TITLE, Row, Seen, _page
from tests.evaluate.test_report import HOSTILE, Page


def test_the_page_of_pictures_needs_nothing_else_and_hostile_text_stays_text() -> None:
    picture = "data:image/png;base64,AAAA"
    rows = [Row(HOSTILE, [Seen(picture, HOSTILE, right=False), Seen(picture, "yes", right=True), Seen(picture)])]
    text = _page(rows, rows, rows)
    page = Page(text)
    assert page.text.count(TITLE) == 2  # in the window's bar, and above the pictures
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "link", "base", "form"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert [attributes["src"] for tag, attributes in page.elements if tag == "img"] == [picture] * 9
    assert len([attributes for _, attributes in page.elements if attributes.get("class") == "wrong"]) == 3
    assert not re.findall(r"url\(|@import|https?://", text)
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'")
