"""Is this a URL that the service can fetch, and what of it may be shown.

The service fetches ``source_url`` itself and refuses what is not public with a message that names no
reason, so the reason is found here, before anything is sent. No name is resolved: the service's view of
the DNS is what counts, and looking up would tell our resolver what is being ingested.
"""

from __future__ import annotations

from .text import safe_text

__all__ = ["shown_url"]


def shown_url(url: object) -> str:
    """Return what may be shown of ``url``: no query, no fragment, no user or password; one safe line."""
    if not isinstance(url, str):
        return f"<{type(url).__name__}>"
    head, mark, _ = url.partition("?")
    head, fragment, _ = head.partition("#")
    scheme, colon, rest = head.partition("://")
    if colon:
        authority, slash, path = rest.partition("/")
        head = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    return safe_text(head + ("?…" if mark else "#…" if fragment else ""), 160)
