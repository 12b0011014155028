"""Where encoders lie: in folders, in models of the workspace, in adapters together with what they were trained on."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from windlass.core.workspace import Workspace
from windlass.loop.releasing.releases import live

_ADAPTER = "adapter_config.json"
_WRITING = (None, "CAUSAL_LM", "SEQ_2_SEQ_LM")
"""What PEFT calls the tasks of adapters that are no encoder's."""


@contextlib.contextmanager
def encoder_place(ws: Workspace | None, name: str) -> Iterator[tuple[Path, str | None]]:
    """The folder of that name, or that of the model of the workspace, if there is one, and what it is called there.

    An adapter of an encoder is merged into its base; the folder of the two is there for as long as the block lasts. For
    a name of something else the path is the name. Raises `InputError` where the base of an adapter is not at hand.
    """
    folder, called = Path(name), None
    if ws is not None and not folder.is_dir() and live(ws, name) is None:
        artifact = ws.artifacts.find(name)
        if artifact is not None and artifact.kind in ("model", "adapter"):
            folder, called = artifact.path, artifact.record.name
    if not (folder / _ADAPTER).is_file():
        yield folder, called
        return
    from windlass.build.adapt.peft.artifacts import stored, write_merged
    from windlass.build.transformer.adapters.base import task_of

    if task_of(folder) in _WRITING:
        yield folder, called
        return
    with tempfile.TemporaryDirectory() as place:
        write_merged(stored(ws, name), Path(place))
        yield Path(place), called or folder.resolve().name
