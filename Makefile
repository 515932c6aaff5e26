# Each target sets up what it needs; see tools/prepare-host.

VENV := .venv
PYTHON := $(VENV)/bin/python
PYTEST_ARGS ?=

.PHONY: record-failures help prepare demo test lint docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the whole way from a push to an image, with real BitBake and a small forge"
	@echo "make test    lint, type checks and all tests, with containers"
	@echo "make lint    ruff, mypy, and whether generated documents and code are fresh"
	@echo "make docs    write the generated parts of docs/ anew"
	@echo "make bench   measure smidr against raw BitBake"
	@echo "make record-failures   provoke the failures under tests/data/failures again"
	@echo "make clean   remove what these targets made"

prepare:
	@tools/prepare-host

demo: prepare
	@tools/demo

lint: prepare
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTHON) tools/generate_docs.py --check
	$(PYTHON) tools/generate_protos.py --check

test: lint
	$(VENV)/bin/pytest tests/unit --numprocesses auto --dist worksteal $(PYTEST_ARGS)
	$(VENV)/bin/pytest tests/integration --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

docs: prepare
	$(PYTHON) tools/generate_docs.py

bench: prepare
	$(PYTHON) -m benchmarks.overhead
	$(PYTHON) -m benchmarks.workspaces
	$(PYTHON) -m benchmarks.uploads
	$(PYTHON) -m benchmarks.pickup

record-failures: prepare
	$(PYTHON) tools/record_failures.py $(FAILURES)

clean:
	rm -rf examples/hello/work .smidr-test .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf $(VENV) dist
