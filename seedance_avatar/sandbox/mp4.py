"""A small real video, made from nothing: H.264 that every player opens, in an MP4 that starts at once.

Every picture is a mosaic of flat tiles, one for each macroblock of 16 by 16. The first picture writes all of
them as I_PCM, which is to say as plain samples without any coding; the others write only the tiles that
changed and skip the rest. That is Constrained Baseline, and needs no encoder. A light runs over the mosaic.

The bit stream follows ITU-T H.264 (7.3.2, 7.3.3, 7.3.5), the boxes ISO/IEC 14496-12 and 14496-15.
"""

from __future__ import annotations

import colorsys
import functools
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final, TypeAlias

__all__ = ["make_mp4", "make_png", "size_for"]

FRAMES: Final = 48
_TILE: Final = 16
_I_PCM: Final = 25  # mb_type in an I slice; in a P slice the intra types follow the five of its own
_I_PCM_IN_P: Final = 30

_SIZES: Final = {
    "21:9": (168, 72),
    "16:9": (160, 90),
    "4:3": (128, 96),
    "1:1": (112, 112),
    "3:4": (96, 128),
    "9:16": (90, 160),
}

Tile: TypeAlias = tuple[int, int, int]
"""Luma and the two chroma samples of one flat tile."""


def size_for(aspect_ratio: str) -> tuple[int, int]:
    """Return width and height in pixels for an aspect ratio; 16:9 for ``adaptive`` and what is not known."""
    return _SIZES.get(aspect_ratio, _SIZES["16:9"])


@functools.lru_cache(64)
def make_mp4(width: int, height: int, seconds: float, seed: int) -> bytes:
    """Return an MP4 of ``width`` by ``height`` pixels (even numbers) that plays for ``seconds``; some 130 KB."""
    samples = [
        _length(_idr(frame) if number == 0 else _p_slice(frame, before, number))
        for number, frame, before in _frames(width, height, seed)
    ]
    tick = round(1000 * seconds / FRAMES)
    head = _ftyp()
    moov = _moov(width, height, tick, samples, 0)
    moov = _moov(width, height, tick, samples, len(head) + len(moov) + 8)
    return head + moov + _box(b"mdat", *samples)


@functools.lru_cache(64)
def make_png(width: int, height: int, seed: int) -> bytes:
    """Return the last picture of that video as a PNG."""
    *_, (_, tiles, _) = _frames(width, height, seed)
    columns = _tiles(width)
    rows = bytearray()
    for row in range(height):
        line = tiles[row // _TILE * columns : (row // _TILE + 1) * columns]
        rows += b"\0" + b"".join(bytes(_rgb(tile)) * _TILE for tile in line)[: 3 * width]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    )


# The pictures


def _tiles(pixels: int) -> int:
    return -(-pixels // _TILE)


def _frames(width: int, height: int, seed: int) -> Iterator[tuple[int, list[Tile], list[Tile]]]:
    columns, rows = _tiles(width), _tiles(height)
    hue = seed % 360 / 360
    ground = [
        _yuv(colorsys.hsv_to_rgb((hue + 0.25 * column / columns) % 1, 0.55, 0.35 + 0.3 * row / rows))
        for row in range(rows)
        for column in range(columns)
    ]
    # Row by row and back again, as the ox ploughs.
    path = [
        row * columns + (column if row % 2 == 0 else columns - 1 - column)
        for row in range(rows)
        for column in range(columns)
    ]
    light = [_yuv(colorsys.hsv_to_rgb((hue + 0.5) % 1, 0.3, value)) for value in (1.0, 0.85, 0.7)]
    before: list[Tile] = []
    for number in range(FRAMES):
        frame = list(ground)
        for age, tile in enumerate(light):
            frame[path[(number * len(path) // FRAMES - age) % len(path)]] = tile
        yield number, frame, before
        before = frame


def _yuv(rgb: tuple[float, float, float]) -> Tile:
    # BT.601, limited range: no sample is 0, so a start code cannot come about by accident.
    red, green, blue = rgb
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return round(16 + 219 * luma), round(128 + 126 * (blue - luma)), round(128 + 160 * (red - luma))


def _rgb(tile: Tile) -> tuple[int, int, int]:
    luma, blue, red = (tile[0] - 16) / 219, (tile[1] - 128) / 126, (tile[2] - 128) / 160
    green = (luma - 0.299 * (luma + red) - 0.114 * (luma + blue)) / 0.587
    clipped = (max(0, min(255, round(255 * value))) for value in (luma + red, green, luma + blue))
    return next(clipped), next(clipped), next(clipped)


# The bit stream


class _Bits:
    """Bits in the order of the standard: fixed length, Exp-Golomb, and whole bytes once aligned."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._pending = ""

    def u(self, value: int, width: int = 1) -> _Bits:
        self._pending += f"{value:0{width}b}"
        return self

    def ue(self, value: int) -> _Bits:
        code = f"{value + 1:b}"
        self._pending += "0" * (len(code) - 1) + code
        return self

    def _flush(self) -> None:
        whole = len(self._pending) // 8
        self._out += bytes(int(self._pending[8 * at : 8 * at + 8], 2) for at in range(whole))
        self._pending = self._pending[8 * whole :]

    def pcm(self, tile: Tile) -> None:
        """Align with zeros, then write the samples of a macroblock: 256 of luma, 64 and 64 of chroma."""
        self._pending += "0" * (-len(self._pending) % 8)
        self._flush()
        self._out += bytes((tile[0],)) * 256 + bytes((tile[1],)) * 64 + bytes((tile[2],)) * 64

    def nal(self, head: int) -> bytes:
        """End with the stop bit and return a NAL unit, emulation prevention bytes put in."""
        self._pending += "1"
        self._pending += "0" * (-len(self._pending) % 8)
        self._flush()
        # The look-ahead keeps what follows for the next match: 00 00 00 00 01 needs two of them.
        return bytes((head,)) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", bytes(self._out))


def _sps(width: int, height: int) -> bytes:
    columns, rows = _tiles(width), _tiles(height)
    bits = _Bits().u(66, 8).u(0xC0, 8).u(30, 8)  # Constrained Baseline, level 3
    bits.ue(0).ue(4).ue(2).ue(1).u(0)  # id, frame_num of 8 bits, output in decoding order, one reference, no gaps
    bits.ue(columns - 1).ue(rows - 1).u(1).u(1)
    bits.u(1).ue(0).ue((columns * _TILE - width) // 2).ue(0).ue((rows * _TILE - height) // 2)  # cropping
    return bits.u(0).nal(0x67)


def _pps() -> bytes:
    bits = _Bits().ue(0).ue(0).u(0).u(0).ue(0).ue(0).ue(0).u(0).u(0, 2)
    return bits.ue(0).ue(0).ue(0).u(1).u(0).u(0).nal(0x68)  # the slices say that there is no deblocking


def _idr(frame: list[Tile]) -> bytes:
    bits = _Bits().ue(0).ue(7).ue(0).u(0, 8).ue(0).u(0).u(0).ue(0).ue(1)
    for tile in frame:
        bits.ue(_I_PCM).pcm(tile)
    return bits.nal(0x65)


def _p_slice(frame: list[Tile], before: list[Tile], number: int) -> bytes:
    bits = _Bits().ue(0).ue(5).ue(0).u(number % 256, 8).u(0).u(0).u(0).ue(0).ue(1)
    skipped = 0
    for tile, old in zip(frame, before, strict=True):
        if tile == old:
            skipped += 1
            continue
        bits.ue(skipped).ue(_I_PCM_IN_P).pcm(tile)
        skipped = 0
    if skipped:
        bits.ue(skipped)
    return bits.nal(0x41)


def _length(nal: bytes) -> bytes:
    return struct.pack(">I", len(nal)) + nal


# The boxes


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)


def _ftyp() -> bytes:
    return _box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2avc1mp41")


_MATRIX: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def _moov(width: int, height: int, tick: int, samples: list[bytes], offset: int) -> bytes:
    length = tick * len(samples)
    mvhd = _full(
        b"mvhd", struct.pack(">4IIH10x", 0, 0, 1000, length, 0x10000, 0x100), _MATRIX, bytes(24), struct.pack(">I", 2)
    )
    tkhd = _full(
        b"tkhd",
        struct.pack(">5I8x4H", 0, 0, 1, 0, length, 0, 0, 0, 0),
        _MATRIX,
        struct.pack(">II", width << 16, height << 16),
        flags=3,
    )
    mdhd = _full(b"mdhd", struct.pack(">4IHH", 0, 0, 1000, length, 0x55C4, 0))
    hdlr = _full(b"hdlr", bytes(4), b"vide", bytes(12), b"VideoHandler\0")
    minf = _box(
        b"minf",
        _full(b"vmhd", bytes(8), flags=1),
        _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1))),
        _stbl(width, height, tick, samples, offset),
    )
    return _box(b"moov", mvhd, _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, minf)))


def _stbl(width: int, height: int, tick: int, samples: list[bytes], offset: int) -> bytes:
    sps, pps = _sps(width, height), _pps()
    avcc = _box(
        b"avcC",
        bytes((1, sps[1], sps[2], sps[3], 0xFF, 0xE1)),
        struct.pack(">H", len(sps)) + sps,
        b"\x01" + struct.pack(">H", len(pps)) + pps,
    )
    avc1 = _box(
        b"avc1",
        struct.pack(">6xH16xHHIII", 1, width, height, 0x480000, 0x480000, 0),
        struct.pack(">H32sHh", 1, b"", 0x18, -1),
        avcc,
    )
    count = len(samples)
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), avc1),
        _full(b"stts", struct.pack(">III", 1, count, tick)),
        _full(b"stss", struct.pack(">II", 1, 1)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", struct.pack(">II", 0, count), *(struct.pack(">I", len(sample)) for sample in samples)),
        _full(b"stco", struct.pack(">II", 1, offset)),
    )
