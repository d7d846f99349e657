"""Tiny PNG pictures made by code, so that the repository holds no binary file."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIDE_PX = 8


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def square_png(colour: tuple[int, int, int]) -> bytes:
    """
    Make a PNG of 8 by 8 pixels in one colour.

    Args:
        colour: Red, green and blue, 0 to 255 each.

    Source: the PNG specification, https://www.w3.org/TR/png-3/, sections 5.2 and 11.2.
    """
    header = struct.pack(">IIBBBBB", _SIDE_PX, _SIDE_PX, 8, 2, 0, 0, 0)
    row = b"\x00" + bytes(colour) * _SIDE_PX
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(row * _SIDE_PX)),
            _chunk(b"IEND", b""),
        )
    )
