"""Small real media files, made here byte by byte."""

from __future__ import annotations

import io
import struct
import wave
import zlib


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(8000)
        out.writeframes(b"\x80" * round(8000 * seconds))
    return file.getvalue()


def mp4(seconds: float, brand: bytes = b"isom") -> bytes:
    def box(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", 8 + len(data)) + kind + data

    mvhd = struct.pack(">IIIII", 0, 0, 0, 1000, round(1000 * seconds)) + bytes(80)
    return box(b"ftyp", brand + bytes(4) + brand) + box(b"moov", box(b"mvhd", mvhd)) + box(b"mdat", b"\0" * 64)
