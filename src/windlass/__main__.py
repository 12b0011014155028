"""`python -m windlass` is `windlass`: the form that torchrun can start."""

from __future__ import annotations

import sys

try:
    from windlass.cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # before or after the command itself
    sys.exit(130)
