"""The service on a raw socket: right in everything but what it was told to get wrong.

service = Service(post=[Close()], get=[raw_answer(b"", 502)])   # the first upload and the first look go wrong
async with RudeServer(service) as server: ...
service.posts    # the source URLs that arrived, in their order
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .rude import Act, Bytes, Seen, json_answer

__all__ = ["Service", "accepted"]


def accepted(asset_id: str, status: str = "processing") -> Bytes:
    """The right answer about an asset."""
    return json_answer({"success": True, "message": "", "data": {"asset_id": asset_id, "status": status}})


class Service:
    """A script for a :class:`~rig.rude.RudeServer`.

    :ivar posts: source URLs as they arrived; ``looks`` asset ids as they were asked for.
    :ivar made: the ids of the uploads that were answered rightly, by source URL.
    """

    def __init__(self, *, post: Iterable[Act] = (), get: Iterable[Act] = (), ends_as: str = "active") -> None:
        self._post: Iterator[Act] = iter(post)
        self._get: Iterator[Act] = iter(get)
        self._ends_as = ends_as
        self.posts: list[str] = []
        self.looks: list[str] = []
        self.made: dict[str, str] = {}

    def __call__(self, seen: Seen) -> Act:
        if seen.path.endswith("/groups"):
            return json_answer({"success": True, "data": {"group_id": "pg_1", "name": seen.json()["name"]}})
        if seen.method == "POST":
            url = seen.json()["source_url"]
            self.posts.append(url)
            act = next(self._post, None)
            if act is not None:
                return act
            self.made[url] = f"pa_{len(self.posts)}"
            return accepted(self.made[url])
        asset_id = seen.path.rpartition("/")[2]
        self.looks.append(asset_id)
        return next(self._get, None) or accepted(asset_id, self._ends_as)

    def most_posts(self) -> int:
        """Return how often the source that was sent most was sent."""
        return max(Counter(self.posts).values(), default=0)
