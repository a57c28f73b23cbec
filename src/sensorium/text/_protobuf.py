"""The wire format of protocol buffers, as far as reading a file needs it: numbered fields, one after another.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES = 0, 1, 2, 5
MOST_VARINT = 10
"""Bytes of the longest number."""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and the value of each field: a whole number, or its bytes.

    Raises ``ValueError`` where a field does not fit what is left.

    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
    [(1, 150), (2, b'hi')]
    """
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == DELIMITED:
            size, place = _varint(data, place)
        elif kind in (FOUR_BYTES, EIGHT_BYTES):
            size = 4 if kind == FOUR_BYTES else 8
        else:
            raise ValueError(f"a field of unknown kind {kind} at byte {place:,}")
        if size > end - place:
            raise ValueError(f"a field of {size:,} bytes at byte {place:,}, and {end - place:,} are left")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    value = 0
    for count, byte in enumerate(data[place : place + MOST_VARINT]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise ValueError(f"a number without an end at byte {place:,}")
