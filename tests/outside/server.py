"""A server for the checks with other people's clients: `python server.py FOLDER` prints its address.

`tiny` is a small random model in a real engine, `french` an adapter on it; `caller` is one that calls tools; `speller`
obeys schemas and calls tools, as a trained model would.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))

from engine_world import TEMPLATE, make_calling_folder, make_folder, make_lora
from serving_fakes import Letters, Overlap, Speller, Vowels

from windlass.core.sqlite_store import SqliteStore
from windlass.core.trace import Recorder
from windlass.serve import run
from windlass.serve.adapter_folders import AdapterFolders
from windlass.serve.app import create_app
from windlass.serve.engine.local import LocalModel


class Plain:
    """A model without its tokens: lm-eval asks for the tokenizer of a server that has just one."""

    def __init__(self, model: Speller | LocalModel) -> None:
        self.name, self.digest = model.name, model.digest
        self.complete, self.stream = model.complete, model.stream


def main(folder: Path) -> None:
    store = SqliteStore(folder / "windlass.db")
    recorder = Recorder(store)
    made = make_folder(folder / "tiny", context=1024, template=TEMPLATE)
    tiny = LocalModel.load(made, recorder=recorder, policy="fp32")  # its scores are compared with transformers'
    caller = LocalModel.load(make_calling_folder(folder / "caller"), recorder=recorder)
    tiny.load_adapter("french", make_lora(folder / "adapters/french"))
    app = create_app(
        {"tiny": tiny, "caller": Plain(caller), "speller": Plain(Speller())}, {"letters": Letters()}, store, recorder,
        rerankers={"overlap": Overlap()}, classifiers={"vowels": Vowels()}, folder=folder / "serve",
        adapter_folders=AdapterFolders([folder / "adapters"]),
    )  # fmt: skip
    listener = run.listen("127.0.0.1", 0)
    run.run(app, listener, on_start=lambda: print(run.url(listener), flush=True))
    recorder.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
