"""A real local ToAPIs on a loopback port, for a first run, for tests and for benchmarks."""

from __future__ import annotations

from .accounts import Account
from .fates import Fate
from .faults import Fault, Faults
from .ledger import Group, Ledger, Upload
from .limits import Bucket, RateLimits, Window
from .server import Sandbox
from .serving import serve
from .vintage import Vintage

__all__ = [
    "Account",
    "Bucket",
    "Fate",
    "Fault",
    "Faults",
    "Group",
    "Ledger",
    "RateLimits",
    "Sandbox",
    "Upload",
    "Vintage",
    "Window",
    "serve",
]
