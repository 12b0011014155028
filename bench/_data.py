"""Where the public data lies that benchmarks and tests read."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """$WINDLASS_DATA, or `shared/data` beside the repository; it need not exist."""
    return Path(os.environ.get("WINDLASS_DATA", Path(__file__).parents[2] / "shared" / "data"))
