"""`python -m windlass` is `windlass`: the form that torchrun can start."""

from __future__ import annotations

import sys

from windlass.cli.main import main

sys.exit(main())
