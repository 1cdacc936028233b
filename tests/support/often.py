"""A mountd that looks at the live version repeatedly: the product does so every ten minutes."""

from __future__ import annotations

import sys

_CODE = """
import sys
from mountd.cli.main import main
from mountd.model import audit
audit.INTERVAL_S, audit.SPREAD_S = 0.5, 0.2
sys.exit(main())
"""
PROGRAM = (sys.executable, "-c", _CODE)
