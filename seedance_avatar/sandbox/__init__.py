"""A local server that answers as ToAPIs does, for a first run, for tests and for benchmarks."""

from __future__ import annotations

from .accounts import Account, Bucket, RateLimits, Window
from .dialect import Vintage
from .fates import Fate
from .faults import Fault, Faults
from .ledger import Ledger
from .records import Delivery, Download, FileUpload, Generation, Group, Upload
from .server import Sandbox, serve

__all__ = [
    "Account",
    "Bucket",
    "Delivery",
    "Download",
    "Fate",
    "Fault",
    "Faults",
    "FileUpload",
    "Generation",
    "Group",
    "Ledger",
    "RateLimits",
    "Sandbox",
    "Upload",
    "Vintage",
    "Window",
    "serve",
]
