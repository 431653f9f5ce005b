"""What the methods of a session delegate to: single assets, videos, and streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from seedance_avatar.errors import InvalidInput
from seedance_avatar.ingest.sources import SourceReader
from seedance_avatar.ingest.stream import Ingest
from seedance_avatar.videos.model_table import VideoModel

from .asset_calls import Assets
from .engine import Engine

if TYPE_CHECKING:
    from .video_calls import Videos

__all__ = ["Calls"]


@attrs.define(eq=False, repr=False)
class Calls:
    """The calls of one session. They exist before it is opened, and ask for its engine at each call.

    :ivar engine: returns the open session's engine, or raises :class:`SessionStateError`.
    """

    engine: Callable[[], Engine]
    allow_private: bool
    video_models: Mapping[str, VideoModel]
    assets: Assets = attrs.field(init=False)
    _videos: Videos | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.assets = Assets(self.engine, self.allow_private)

    @property
    def videos(self) -> Videos:
        """The calls for videos."""
        if self._videos is None:
            from .video_calls import Videos  # noqa: PLC0415 - most sessions make no videos, and start faster without

            self._videos = Videos(self.engine, self.video_models, self.allow_private)
        return self._videos

    def stream(self, adapter: Any, sources: Any, *, on_failure: str, **options: Any) -> Ingest[Any, Any]:  # noqa: ANN401 - the methods of the session that call this are typed
        """Return a stream over ``sources``; nothing is read before it is entered.

        :param options: of :meth:`Engine.begin`.
        :raises InvalidInput: ``sources`` is no iterable, or ``on_failure`` is unknown.
        """
        if on_failure not in {"continue", "stop"}:
            message = f"on_failure must be 'continue' or 'stop', not {on_failure!r}"
            raise InvalidInput(message)
        SourceReader.of(sources)

        def begin() -> Awaitable[Any]:
            return self.engine().begin(adapter, sources, stop_on_failure=on_failure == "stop", **options)

        return Ingest(begin)
