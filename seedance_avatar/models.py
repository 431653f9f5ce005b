"""The values that go in and come out: sources, assets, tasks and the five outcomes. Frozen facts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

from .errors import AssetFailed, InvalidInput
from .text import redact_url, safe_redacted, safe_text

__all__ = [
    "ASSET_TYPES",
    "Asset",
    "AssetGroup",
    "AssetSource",
    "AssetType",
    "VideoTask",
]

AssetType: TypeAlias = Literal["image", "video", "audio"]
ASSET_TYPES: Final = ("image", "video", "audio")


_ENDINGS: Final[Mapping[str, AssetType]] = {
    **dict.fromkeys((".mp4", ".mov", ".webm", ".m4v"), "video"),
    **dict.fromkeys((".mp3", ".wav", ".m4a"), "audio"),
}


@attrs.frozen
class AssetSource:
    """One public URL that shall become an asset.

    It is judged when its turn comes, not here: one bad URL among 500,000 is one failed outcome.

    :ivar source_url: the public ``http`` or ``https`` URL, sent byte for byte.
    :ivar asset_type: ``"image"``, ``"video"`` or ``"audio"``.
    :ivar name: a name for the service to keep, at most 64 characters, or None.
    :ivar description: a description for the service to keep, at most 300 characters, or None.
    :ivar key: the caller's own stable name for this source (a signed URL changes at every signing). It is
        never sent; it comes back in the outcome, and two sources of one key are one upload.
    :ivar path: the local file that is uploaded first, to be fetched from there, or None; see :meth:`from_file`.
    """

    source_url: str = attrs.field(repr=redact_url)
    asset_type: AssetType = "image"
    name: str | None = None
    description: str | None = None
    key: str | None = None
    path: Path | None = attrs.field(default=None, kw_only=True)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        asset_type: AssetType | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        key: str | None = None,
    ) -> Self:
        """Return a source for a local file, which is uploaded to the service before it becomes an asset.

        Its ``source_url`` is a ``file:`` URL, which names it; only a source that is made here is read from the disk.

        :param path: the file.
        :param asset_type: what it is; by default told by the ending of its name.
        :param name: kept by the service, at most 64 characters.
        :param description: kept by the service, at most 300 characters.
        :param key: the caller's own stable name for it.
        """
        place = Path(path).absolute()
        told = asset_type or _ENDINGS.get(place.suffix.lower(), "image")
        return cls(place.as_uri(), told, name, description, key, path=place)

    @classmethod
    def image(
        cls, source_url: str, *, name: str | None = None, description: str | None = None, key: str | None = None
    ) -> Self:
        """Return a source for an image.

        :param source_url: its public URL.
        :param name: kept by the service, at most 64 characters.
        :param description: kept by the service, at most 300 characters.
        :param key: the caller's own stable name for it.
        """
        return cls(source_url, "image", name, description, key)

    @classmethod
    def video(
        cls, source_url: str, *, name: str | None = None, description: str | None = None, key: str | None = None
    ) -> Self:
        """Return a source for a video.

        :param source_url: its public URL.
        :param name: kept by the service, at most 64 characters.
        :param description: kept by the service, at most 300 characters.
        :param key: the caller's own stable name for it.
        """
        return cls(source_url, "video", name, description, key)

    @classmethod
    def audio(
        cls, source_url: str, *, name: str | None = None, description: str | None = None, key: str | None = None
    ) -> Self:
        """Return a source for a voice or other audio.

        :param source_url: its public URL.
        :param name: kept by the service, at most 64 characters.
        :param description: kept by the service, at most 300 characters.
        :param key: the caller's own stable name for it.
        """
        return cls(source_url, "audio", name, description, key)

    @property
    def label(self) -> str:
        """What names this source in messages: its key where it has one, and its URL without secrets."""
        shown = redact_url(self.source_url)
        return shown if self.key is None else f"{safe_redacted(self.key, 80)} ({shown})"


@attrs.frozen(kw_only=True)
class AssetGroup:
    """A group of assets, one for each virtual character.

    :ivar group_id: the service's opaque id.
    :ivar name: the name as the service returned it, or None; so is the ``description``.
    :ivar raw: the answer it was read from; it may hold more than is known here.
    """

    group_id: str
    name: str | None = None
    description: str | None = None
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)


def _shown_or_none(url: str | None) -> str:
    return "None" if url is None else redact_url(url)


@attrs.frozen(kw_only=True)
class Asset:
    """An asset as the service told of it; only ``asset_id`` and ``status`` can be relied on.

    :ivar asset_id: the service's opaque id.
    :ivar group_id: the group it belongs to, or None where the answer did not say.
    :ivar asset_type: ``image``, ``video`` or ``audio`` (or a word not known here), or None.
    :ivar source_url: the URL as the service returned it; it can differ from the one sent.
    :ivar status: in lower case: ``processing``, ``active``, ``failed``, or a word not known here, which
        counts as not finished.
    :ivar name: the name as the service returned it, or None.
    :ivar reason: why it failed, where the service said so, made safe to show.
    :ivar source: the :class:`AssetSource` it was made from, or None when it was asked for by its id.
    :ivar raw: the answer it was read from.
    """

    asset_id: str
    group_id: str | None = None
    asset_type: str | None = None
    source_url: str | None = attrs.field(default=None, repr=_shown_or_none)
    status: str = "processing"
    name: str | None = None
    reason: str | None = None
    source: AssetSource | None = None
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)

    @property
    def is_active(self) -> bool:
        """True when it can be used for generation."""
        return self.status == "active"

    @property
    def is_failed(self) -> bool:
        """True when it will never become active."""
        return self.status == "failed"

    @property
    def is_terminal(self) -> bool:
        """True when its status will not change any more."""
        return self.status in {"active", "failed"}

    @property
    def uri(self) -> str:
        """``asset://<asset_id>``, as video generation takes it.

        :raises AssetFailed: the asset failed, it can never be used.
        :raises InvalidInput: it is not active yet (also a ``ValueError``).
        """
        if self.is_active:
            return f"asset://{self.asset_id}"
        if self.is_failed:
            raise AssetFailed(self)
        message = (
            f"asset {self.asset_id} is {safe_text(self.status, 40)}, not active: "
            "wait for it with session.wait_until_active() before using its URI"
        )
        raise InvalidInput(message)


_VIDEO_DONE: Final = frozenset({"completed", "succeeded", "success"})
_VIDEO_FAILED: Final = frozenset({"failed", "failure", "error", "cancelled", "canceled", "expired"})


@attrs.frozen(kw_only=True)
class VideoTask:
    """A video generation as the service told of it, by polling or by webhook.

    :ivar task_id: the service's opaque id.
    :ivar status: in lower case, in whatever vintage of words the service used; ask :attr:`is_completed`,
        :attr:`is_failed` and :attr:`is_terminal`.
    :ivar model: the model's name as the service returned it, or None.
    :ivar progress: percent as the service tells it (it sticks at 10; do not build a bar on it), or None.
    :ivar url: where the finished video can be fetched until ``expires_at``, or None.
    :ivar last_frame_url: where its last frame can be fetched, where that was asked for, or None.
    :ivar client_business_id: the caller's own id of it, where the answer tells, or None.
    :ivar created_at: seconds since the epoch, as the service tells them, or None; so are
        ``completed_at`` and ``expires_at``.
    :ivar reason: why it failed, where the service said so, made safe to show.
    :ivar code: the service's code of that failure, or None.
    :ivar raw: the answer it was read from.
    """

    task_id: str
    status: str = "queued"
    model: str | None = None
    progress: float | None = None
    url: str | None = attrs.field(default=None, repr=_shown_or_none)
    last_frame_url: str | None = attrs.field(default=None, repr=_shown_or_none)
    created_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    client_business_id: str | None = None
    reason: str | None = None
    code: str | None = None
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)

    @property
    def is_completed(self) -> bool:
        """True when the video is finished."""
        return self.status in _VIDEO_DONE

    @property
    def is_failed(self) -> bool:
        """True when there will be no video."""
        return self.status in _VIDEO_FAILED

    @property
    def is_terminal(self) -> bool:
        """True when the status will not change any more."""
        return self.is_completed or self.is_failed
