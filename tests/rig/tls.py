"""Certificates for loopback servers, good ones and bad ones, signed by an authority of the test's own."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Sequence

import trustme

__all__ = ["client_context", "server_context"]

_AUTHORITY = trustme.CA()


def server_context(*names: str, expired: bool = False, authority: trustme.CA | None = None) -> ssl.SSLContext:
    """Return a server's context with a certificate for ``names`` (127.0.0.1 when none is given).

    :param expired: True for a certificate that ended in 2001.
    :param authority: who signs; by default the authority that :func:`client_context` trusts.
    """
    identities: Sequence[str] = names or ("127.0.0.1",)
    signer = authority or _AUTHORITY
    past = dt.datetime(2001, 1, 1, tzinfo=dt.UTC) if expired else None
    leaf = signer.issue_cert(*identities, not_before=past and past - dt.timedelta(days=1), not_after=past)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    """Return a client's context that trusts the authority of :func:`server_context` and nobody else."""
    context = ssl.create_default_context()
    _AUTHORITY.configure_trust(context)
    return context
