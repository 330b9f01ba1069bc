PYTHON ?= python3
BIN := .venv/bin

.PHONY: search test lint docs docs-serve venv slow-tests browser-tests docs-tests gpu-tests faults cluster-tests

search: venv
	$(BIN)/unfreeze search

# side by side, a file in one process: what its tests share is made once; COVERAGE=yes traces every
# line, which takes a third longer, and holds the floor of pyproject.toml
test: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(COVERAGE),--cov=trainer --cov=search --cov=clusters)

slow-tests: venv
	$(BIN)/python -m pytest -m slow

browser-tests: venv
	$(BIN)/python -m pytest -m browser

docs-tests: venv
	$(BIN)/python -m pytest -m docs

gpu-tests: venv
	$(BIN)/python -m pytest -m gpu

faults: venv
	$(BIN)/python -m pytest -m faults

cluster-tests: venv
	$(BIN)/python -m pytest -m cluster

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: venv .venv/installed-docs
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.pictures
	$(BIN)/zensical build --strict

docs-serve: docs
	$(BIN)/zensical serve

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint clusters/constraints.txt --editable '.[docs]'
	touch $@

venv: .venv/installed

# the mark is newer than what it was installed from: a second time nothing is done
.venv/installed: pyproject.toml clusters/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Unfreeze needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint clusters/constraints.txt --editable '.[dev]'
# on all cores, where pip takes one; left to Python, it is never done where PYTHONDONTWRITEBYTECODE
# is set, and every worker would compile torch anew; a few files of others' are templates, no Python
	$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true
	touch $@
