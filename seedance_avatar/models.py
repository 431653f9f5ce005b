"""Sources, groups, assets and video tasks: immutable values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import attrs

from .errors import AssetFailed, InvalidInput
from .text import redact_url, safe_redacted, safe_text

__all__ = ["ASSET_TYPES", "Asset", "AssetGroup", "AssetSource", "AssetType", "VideoTask"]

AssetType: TypeAlias = Literal["image", "video", "audio"]
ASSET_TYPES: Final = ("image", "video", "audio")


_EXTENSIONS: Final[Mapping[str, AssetType]] = {
    **dict.fromkeys((".mp4", ".mov", ".webm", ".m4v"), "video"),
    **dict.fromkeys((".mp3", ".wav", ".m4a"), "audio"),
}


@attrs.frozen
class AssetSource:
    """One image, video or audio that shall become an asset, by its public URL or from a local file.

    It is checked when it is uploaded, not when it is created: one bad URL among 500,000 is one ``Failed`` outcome.

    :ivar source_url: the public ``http`` or ``https`` URL, sent unchanged.
    :ivar asset_type: ``"image"``, ``"video"`` or ``"audio"``.
    :ivar name: a name that the service stores, at most 64 characters, or None.
    :ivar description: a description that the service stores, at most 300 characters, or None.
    :ivar key: the caller's own stable name for this source (a signed URL changes with every signature), or None. It
        is never sent; it comes back in the outcome, and two sources with one key are one upload.
    :ivar path: the local file that is uploaded first, or None; see :meth:`from_file`.
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

        Its ``source_url`` is a ``file:`` URL that only names the file: a ``file:`` URL passed to another constructor
        is refused, never read.

        :param path: the file.
        :param asset_type: ``"image"``, ``"video"`` or ``"audio"``; by default from the file's extension, else image.
        :param name: as in the class; so are ``description`` and ``key``.
        """
        file = Path(path).absolute()
        asset_type = asset_type or _EXTENSIONS.get(file.suffix.lower(), "image")
        return cls(file.as_uri(), asset_type, name, description, key, path=file)

    @classmethod
    def image(
        cls, source_url: str, *, name: str | None = None, description: str | None = None, key: str | None = None
    ) -> Self:
        """Return a source for an image at ``source_url``: see the class for ``name``, ``description``, ``key``."""
        return cls(source_url, "image", name, description, key)

    @classmethod
    def video(
        cls, source_url: str, *, name: str | None = None, description: str | None = None, key: str | None = None
    ) -> Self:
        """Return a source for a video at ``source_url``: see the class for ``name``, ``description``, ``key``."""
        return cls(source_url, "video", name, description, key)

    @classmethod
    def audio(
        cls, source_url: str, *, name: str | None = None, description: str | None = None, key: str | None = None
    ) -> Self:
        """Return a source for an audio at ``source_url``: see the class for ``name``, ``description``, ``key``."""
        return cls(source_url, "audio", name, description, key)

    @property
    def label(self) -> str:
        """The name of this source in messages: its key, if it has one, and its URL without secrets."""
        shown = redact_url(self.source_url)
        return shown if self.key is None else f"{safe_redacted(self.key, 80)} ({shown})"


@attrs.frozen(kw_only=True)
class AssetGroup:
    """A group of assets, one for each virtual character.

    :ivar group_id: the service's opaque id.
    :ivar name: the name as the service returned it, or None.
    :ivar description: the description as the service returned it, or None.
    :ivar raw: the answer that it was read from, with all its fields.
    """

    group_id: str
    name: str | None = None
    description: str | None = None
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)


def _shown_or_none(url: str | None) -> str:
    return "None" if url is None else redact_url(url)


@attrs.frozen(kw_only=True)
class Asset:
    """An asset as the service described it; only ``asset_id`` and ``status`` are always there.

    :ivar asset_id: the service's opaque id.
    :ivar group_id: the id of its group, or None where the answer did not say.
    :ivar asset_type: ``image``, ``video`` or ``audio`` (or an unknown type), or None.
    :ivar source_url: the URL as the service returned it, which can differ from the one sent, or None.
    :ivar status: in lower case: ``processing``, ``active``, ``failed``, or an unknown status, which counts as not
        finished.
    :ivar name: the name as the service returned it, or None.
    :ivar reason: why it failed, made safe to show, or None where the service gave no reason.
    :ivar source: the :class:`AssetSource` that it was made from, or None when it was looked up by its id.
    :ivar raw: the answer that it was read from.
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
        """Whether it can be used for generation."""
        return self.status == "active"

    @property
    def is_failed(self) -> bool:
        """Whether it failed, and will never become active."""
        return self.status == "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether its status is final."""
        return self.status in {"active", "failed"}

    @property
    def uri(self) -> str:
        """``asset://<asset_id>``, the form in which a generation refers to it.

        :raises AssetFailed: the asset failed and can never be used.
        :raises InvalidInput: it is not active yet.
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


_VIDEO_DONE: Final = frozenset({"completed", "complete", "succeeded", "success", "successful", "done", "finished"})
_VIDEO_FAILED: Final = frozenset(
    {"failed", "failure", "fail", "error", "cancelled", "canceled", "expired", "rejected", "refused", "denied"}
    | {"timeout", "timed_out", "timedout", "aborted", "blocked", "terminated"}
)


@attrs.frozen(kw_only=True)
class VideoTask:
    """A video generation as the service described it, in an answer or a webhook.

    :ivar task_id: the service's opaque id.
    :ivar status: in lower case. The service has used several words for each status: use :attr:`is_completed`,
        :attr:`is_failed` and :attr:`is_terminal`.
    :ivar model: the model's name as the service returned it, or None.
    :ivar progress: percent as the service reports it, or None; it stays at 10 for most of the time, so it is no use for
        a progress bar.
    :ivar url: the URL of the finished video, valid until ``expires_at``, or None.
    :ivar last_frame_url: the URL of its last frame, where that was asked for, or None.
    :ivar client_business_id: the caller's own id of it, where the answer has it, or None.
    :ivar created_at: seconds since the epoch, or None; so are ``completed_at`` and ``expires_at``.
    :ivar reason: why it failed, made safe to show, or None where the service gave no reason.
    :ivar code: the service's code of that failure, or None.
    :ivar raw: the answer that it was read from.
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
        """Whether the video is finished."""
        return self.status in _VIDEO_DONE

    @property
    def is_failed(self) -> bool:
        """Whether it failed, and there will be no video."""
        return self.status in _VIDEO_FAILED

    @property
    def is_terminal(self) -> bool:
        """Whether its status is final."""
        return self.is_completed or self.is_failed
