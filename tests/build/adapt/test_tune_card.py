"""The card of a tuned model: what it must tell, and that equal runs write the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuned_world import asked, echoes, make_home, write_rows

from windlass.build.adapt.effort import Effort
from windlass.build.adapt.tuning import tune
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def test_the_card_tells_base_data_figures_and_use(home: Path, tmp_path: Path) -> None:
    with Workspace(home) as ws:
        with ws.artifacts.build("dataset", "colours") as draft:
            write_rows(draft.path / "items.jsonl", echoes(60))
            draft.card = {"licence": "CC0-1.0"}
        said: list[str] = []
        settings = asked("colours", run__price_per_hour=0.5)
        model = tune(ws, settings, say=said.append)
        card = (model.path / "README.md").read_text(encoding="utf-8")
        base = ws.artifacts.get("base")
        points = ws.store.metrics(model.record.run)
        first, last = (p.value for p in points if p.name == "heldout_loss")
        for told in (
            f"base@1 `{base.digest[:12]}`",
            f"colours@1 `{draft.done.digest[:12]}`",
            "CC0-1.0",
            "lora of rank 4",
        ):
            assert told in card
        assert f"| heldout_loss | {first:.4f} | {last:.4f} |" in card
        assert "windlass serve base@1 --lora tuned=tuned" in card
        effort = {p.name: p.value for p in points if p.name in ("core_seconds", "watt_hours", "cost")}
        assert effort["watt_hours"] == pytest.approx(effort["core_seconds"] * 15 / 3600)
        assert effort["cost"] > 0
        assert any("s of one core at an assumed 15 W" in line for line in said)
        again = tune(ws, settings, say=said.append)
        assert again.record.files["README.md"] == model.record.files["README.md"]
        assert again.digest == model.digest


def test_energy_and_cost_are_what_they_say() -> None:
    effort = Effort(1800, 3600, 20.0, 2.0)
    assert (effort.watt_hours, effort.cost) == (20.0, 1.0)
    assert str(effort) == "about 20 Wh: 3,600.0 s of one core at an assumed 20 W, 1.0000 at 2 an hour"
    free = Effort(1800, 3600, 20.0, None)
    assert free.cost is None and "cost" not in free.metrics()
    with pytest.raises(InputError, match=r"run\.watts is 0"):
        asked("x", run__watts=0.0)
