"""The pages of the guide that comes with the package, and which of them explains an error."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from seedance_avatar import AvatarError, InvalidInput, JournalError, QuotaExhausted, RateLimited, SubmissionInDoubt

from .manifest.formats import ManifestError

__all__ = ["PAGES", "page_pointer", "pointer", "read_page"]

PAGES: Final = (
    "first-run",
    "tutorial",
    "troubleshooting",
    "in-doubt",
    "migrating",
    "files",
    "services",
    "limits",
    "journal",
    "architecture",
)
"""The names of the pages, in the order in which a newcomer needs them."""

_EXPLAINED: Final[tuple[tuple[type[AvatarError], str, str], ...]] = (
    (SubmissionInDoubt, "", "in-doubt"),
    (JournalError, "", "journal"),
    (QuotaExhausted, "", "limits"),
    (RateLimited, "", "limits"),
    (ManifestError, "", "files"),
    (InvalidInput, "no API key", "first-run"),
    (InvalidInput, "", ""),  # its message says all: which argument, and what is wrong with it
    (AvatarError, "", "troubleshooting"),
)
"""The page for an error of this type whose message begins so, empty for none; the first row that fits counts."""


def read_page(name: str) -> str:
    """Return the page ``name`` as Markdown; a closing ``.md`` does no harm.

    :raises InvalidInput: there is no such page; the message lists all of them.
    """
    wanted = name.removesuffix(".md").lower()
    if wanted not in PAGES:
        message = f"the guide has no page {name!r}; its pages are {', '.join(PAGES)}"
        raise InvalidInput(message)
    return (files("seedance_avatar") / "guide" / f"{wanted}.md").read_text(encoding="utf-8")


def pointer(page: str) -> str:
    """Return the last words of a line that ``page`` explains."""
    return f" (seedance-avatar guide {page})"


def page_pointer(error: BaseException) -> str:
    """Return where ``error`` is explained, as the last words of a line about it, or an empty text."""
    for kind, start, page in _EXPLAINED:
        if isinstance(error, kind) and error.message.startswith(start):
            return pointer(page) if page else ""
    return ""
