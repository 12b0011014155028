"""`windlass keys`: make, list, revoke."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.core.workspace import Workspace
from windlass.serve.keys import FILE, Keys


def test_a_key_from_its_making_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(tmp_path) as ws:
        root = ws.root
    where = ["--workspace", str(tmp_path)]
    assert main(["keys", "list", *where]) == 0 and "No keys" in capsys.readouterr().out
    assert main(["keys", "add", "ann", "--scope", "embed", "--tokens-per-day", "500", *where]) == 0
    secret = capsys.readouterr().out.split()[-1]
    keys = Keys(root / FILE)
    found = keys.find(secret)
    assert found is not None and found.scopes == {"embed"} and found.limits.tokens_per_day == 500
    keys.charge(found, 40, 0.5)
    keys.flush()
    assert main(["keys", "list", *where]) == 0
    shown = capsys.readouterr().out
    assert "ann" in shown and "in use" in shown and "500 tokens per day" in shown and "0.50" in shown
    assert secret not in shown
    assert main(["keys", "revoke", found.id, *where]) == 0 and keys.find(secret) is None
    assert main(["keys", "list", *where]) == 0 and "revoked" in capsys.readouterr().out
    keys.close()


def test_mistakes_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Workspace(tmp_path).close()
    where = ["--workspace", str(tmp_path)]
    assert main(["keys", "add", "ann", "--scope", "fly", *where]) == 2
    assert "no scope 'fly'" in capsys.readouterr().err
    assert main(["keys", "revoke", "nobody", *where]) == 2 and "nobody" in capsys.readouterr().err
    assert main(["keys", "add", "ann", "--requests-per-minute", "0", *where]) == 2
