"""Ingests a folder in a process of its own, that a test may kill: `python ingesting_process.py HOME`."""

from __future__ import annotations

import sys
from pathlib import Path

from ingest_world import World

if __name__ == "__main__":
    world = World(Path(sys.argv[1]))
    print("ready", flush=True)
    world.ingest()
    print("done", flush=True)
    world.close()
