"""The videos that the sandbox serves: small real files, see ``media/MADE.md``, stretched to the length asked for."""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from typing import Final

__all__ = ["last_frame", "video"]

_RATIOS: Final = frozenset({"21:9", "16:9", "4:3", "1:1", "3:4", "9:16"})
_TIMES: Final = ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20), (b"stts", 16))
"""The boxes with durations in a file of one track, and the offset of the 32-bit number from the box's type."""


@functools.cache
def _read(ratio: str, ending: str) -> bytes:
    name = ratio if ratio in _RATIOS else "16:9"  # which is also what "adaptive" gets here
    return Path(__file__).with_name("media").joinpath(f"{name.replace(':', 'x')}.{ending}").read_bytes()


def video(ratio: str, seconds: int, task_id: str) -> bytes:
    """Return an MP4 of the aspect ratio ``ratio`` that plays for ``seconds`` exactly.

    The file holds one second in 24 frames, and each frame is shown ``seconds`` times as long. At its end is a box
    that players skip: it holds ``task_id``, so that no two tasks have the same file.
    """
    data = bytearray(_read(ratio, "mp4"))
    for box, offset in _TIMES:
        at = data.index(box) + offset
        struct.pack_into(">I", data, at, seconds * struct.unpack_from(">I", data, at)[0])
    return bytes(data) + struct.pack(">I4s", 8 + len(task_id), b"free") + task_id.encode()


def last_frame(ratio: str) -> bytes:
    """Return the last frame of that video, as a PNG."""
    return _read(ratio, "png")
