"""``python -m seedance_avatar.cli`` is ``seedance-avatar``."""

from __future__ import annotations

import sys

from . import main

sys.exit(main())
