"""An ingest on a Dask cluster (extra ``[dask]``); see :func:`ingest_on_cluster`."""

from __future__ import annotations

from .ingest import ingest_on_cluster

__all__ = ["ingest_on_cluster"]
