"""The entries of the ledger, as immutable values. Times are seconds on the sandbox's clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from seedance_avatar.text import redact_url


@attrs.frozen(kw_only=True)
class Group:
    """A group that was created."""

    group_id: str
    number: int
    name: str
    description: str | None
    account: str
    at: float


@attrs.frozen(kw_only=True)
class Upload:
    """An asset that was created by a POST, whether or not its answer arrived.

    :ivar at: when it was accepted; ``ready_at`` when processing ends.
    :ivar fate: its final status, ``active`` or ``failed``; ``reason`` why, where there is a reason.
    :ivar status: its status when this entry was read.
    :ivar answered: True when the whole answer to the POST was written to an open connection.
    :ivar looks: how often its status was queried.
    """

    asset_id: str
    source_url: str = attrs.field(repr=redact_url)
    group_id: str
    asset_type: str
    name: str | None
    description: str | None
    account: str
    at: float
    ready_at: float
    fate: str
    reason: str | None
    status: str
    answered: bool
    looks: int


@attrs.frozen(kw_only=True)
class Generation:
    """A generation task that was created by a POST and paid for.

    What has the same name as in :class:`Upload` is the same, only that a fate is ``completed`` or ``failed``.

    :ivar request: its body.
    :ivar repeats: how often the same ``client_business_id`` was posted again, and answered with this task.
    """

    task_id: str
    client_business_id: str | None
    request: Mapping[str, Any] = attrs.field(repr=False)
    account: str
    at: float
    ready_at: float
    fate: str
    reason: str | None
    status: str
    repeats: int
    looks: int


@attrs.frozen(kw_only=True)
class FileUpload:
    """A local file that was uploaded completely."""

    file_id: str
    url: str
    mime_type: str
    size: int
    sha256: str
    account: str
    at: float


@attrs.frozen(kw_only=True)
class Download:
    """A request to the files host.

    :ivar authorized: True when it had an ``Authorization`` header, which would send the API key to another host.
    :ivar ranged: its ``Range`` header, or None.
    """

    path: str
    status: int
    authorized: bool
    ranged: str | None
    at: float


@attrs.frozen(kw_only=True)
class Delivery:
    """One attempt to deliver a webhook; ``status`` is None when nobody answered."""

    event_id: str
    task_id: str
    url: str = attrs.field(repr=redact_url)
    attempt: int
    status: int | None
    at: float
