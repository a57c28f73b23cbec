"""Chinese punctuation where a model wrote Western: many vocabularies fold the one into the other."""

from __future__ import annotations

import re

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WIDE = f"{_HAN}\u3000-\u303f\uff00-\uffef“”‘’…—"
_MARKS = {",": "，", ";": "；", ":": "：", "?": "？", "!": "！"}
_AFTER_HAN = re.compile(rf"(?<=[{_HAN}”’）》」』])\s*([,;:?!])(?![/\d])\s*")
_FULL_STOP = re.compile(rf"(?<=[{_HAN}”’）》」』])\s*\.(?=\s*(?:$|[{_WIDE}\"')]))\s*")
_DOTS = re.compile(rf"(?<=[{_HAN}])\s*(?:\.{{3,}}|。{{2,}}|…(?!…))")
_BRACKETS = re.compile(rf"\s*\(([^()]*[{_HAN}][^()]*)\)\s*")
_QUOTES = re.compile(rf"\"([^\"\n]*[{_HAN}][^\"\n]*)\"")
_SPACE = re.compile(rf"(?<=[{_HAN}\u3000-\u303f\uff00-\uffef])[ \t]+(?=[{_HAN}\u3000-\u303f\uff00-\uffef])")


def chinese_punctuation(text: str) -> str:
    """A Chinese text with Chinese marks beside its characters, and no spaces between them; numbers, addresses and
    words in other scripts keep theirs.

    >>> chinese_punctuation('你好, 世界! 他说: "今天 3.5 度."')
    '你好，世界！他说：“今天 3.5 度。”'
    >>> chinese_punctuation("GPT-2 (small) is good.")
    'GPT-2 (small) is good.'
    """
    text = _DOTS.sub("……", text)
    text = _BRACKETS.sub(r"（\1）", text)
    text = _FULL_STOP.sub("。", text)
    text = _QUOTES.sub(r"“\1”", text)
    text = _AFTER_HAN.sub(lambda match: _MARKS[match[1]], text)
    return _SPACE.sub("", text)
