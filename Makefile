# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# How many processes share the fast tests.
WORKERS ?= 2
READY  := $(VENV)/.ready

.PHONY: help demo test test-slow clients peers rag-peers lm-eval-peers lint docs bench clean

help:
	@echo "make demo       set up, then run the whole loop on this machine's Python documentation"
	@echo "make test       set up, then run all fast tests"
	@echo "make test-slow  the long checks: oracles, real processes, the demo itself"
	@echo "make clients    install the outside clients that the long checks use"
	@echo "make peers      install the peers of bench.tasks, which pin each other's versions"
	@echo "make rag-peers  install the peers of bench.rag"
	@echo "make lm-eval-peers  install lm-evaluation-harness for bench.evaluate and the long checks"
	@echo "make lint       ruff, mypy --strict, import contracts"
	@echo "make docs       run every code block of the docs"
	@echo "make bench      the benchmarks; installs their peers"

# Torch first and by itself: asked for on its own, pip takes a build that fits the machine.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet "torch>=2.9,<2.14"
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	@touch $@

demo: $(READY)
	$(BIN)/windlass demo

test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-slow: $(READY) clients lm-eval-peers
	$(BIN)/python -m pytest -m slow

# Other people's clients pin each other's versions: they get an environment of their own.
clients: .venv-clients/.ready

.venv-clients/.ready: tests/outside/requirements.txt
	test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --upgrade "pip>=25"
	.venv-clients/bin/python -m pip install --quiet -r tests/outside/requirements.txt
	@touch $@

# So do the peers of typed tasks.
peers: .venv-tasks-peers/.ready

.venv-tasks-peers/.ready: bench/tasks-peers.txt
	test -x .venv-tasks-peers/bin/python || $(PYTHON) -m venv .venv-tasks-peers
	.venv-tasks-peers/bin/python -m pip install --quiet --upgrade "pip>=25"
	.venv-tasks-peers/bin/python -m pip install --quiet -r bench/tasks-peers.txt
	@touch $@

# And those of retrieval.
rag-peers: .venv-rag-peers/.ready

.venv-rag-peers/.ready: bench/rag-peers.txt
	test -x .venv-rag-peers/bin/python || $(PYTHON) -m venv .venv-rag-peers
	.venv-rag-peers/bin/python -m pip install --quiet --upgrade "pip>=25"
	.venv-rag-peers/bin/python -m pip install --quiet "torch>=2.9,<2.14"
	.venv-rag-peers/bin/python -m pip install --quiet -r bench/rag-peers.txt
	@touch $@

# And lm-evaluation-harness, which the long checks use too.
lm-eval-peers: .venv-lm-eval-peers/.ready

.venv-lm-eval-peers/.ready: bench/lmeval-peers.txt
	test -x .venv-lm-eval-peers/bin/python || $(PYTHON) -m venv .venv-lm-eval-peers
	.venv-lm-eval-peers/bin/python -m pip install --quiet --upgrade "pip>=25"
	.venv-lm-eval-peers/bin/python -m pip install --quiet "torch>=2.9,<2.14"
	.venv-lm-eval-peers/bin/python -m pip install --quiet -r bench/lmeval-peers.txt
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python -m pytest tests/test_docs.py -m "slow or not slow"

bench: $(READY) peers rag-peers lm-eval-peers
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	for module in bench/[a-z]*.py; do $(BIN)/python -m bench.$$(basename $$module .py) || exit 1; done

clean:
	rm -rf $(VENV) .venv-clients .venv-tasks-peers .venv-rag-peers .venv-lm-eval-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
