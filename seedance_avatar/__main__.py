"""``python -m seedance_avatar`` is ``seedance-avatar``."""

from __future__ import annotations

import sys

from seedance_avatar.cli import main

sys.exit(main())
