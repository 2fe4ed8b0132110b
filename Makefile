# make help lists the targets. Everything happens in .venv; nothing else of the machine is touched.
PYTHON ?= python3.11
PORT   ?= 8000
HOST   ?= 127.0.0.1
VENV   := .venv
PY     := $(VENV)/bin/python
DEMO   := .demo
BENCH  := .bench

.DEFAULT_GOAL := help
.PHONY: help install demo demo-release test check format bench bench-search bench-train bench-service clean

help:            ## these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[cpu,training,service,dev]'
	@touch $@

install: $(VENV)/installed  ## the environment, in .venv

$(DEMO)/interactions.parquet: | $(VENV)/installed
	$(PY) -m training synthetic --out $(DEMO)

$(DEMO)/root/current: | $(DEMO)/interactions.parquet
	draft=$$($(PY) -m training fit $(DEMO)/interactions.parquet --items $(DEMO)/items.parquet --root $(DEMO)/root --epochs 6 | tail -n 1) \
	  && $(PY) -m index build "$$draft" && $(PY) -m index publish "$$draft"

demo-release: $(DEMO)/root/current  ## a synthetic log, trained on and published under .demo

demo: demo-release  ## the same, then served on http://$(HOST):$(PORT) (PORT=... for another)
	@echo && echo 'Once it is ready, ask it:' && $(PY) -m index example --root $(DEMO)/root --url http://$(HOST):$(PORT) && echo
	@$(PY) -m service --releases $(DEMO)/root --host $(HOST) --port $(PORT)

check: $(VENV)/installed  ## format, lint, types, quick tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q -m 'not slow' --ignore=tests/end_to_end

test: $(VENV)/installed  ## all that must pass before anything lands
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q -n 2 -m 'not slow'

format: $(VENV)/installed  ## write the code as ruff would
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: bench-search bench-train bench-service  ## the numbers of the README

bench-search: $(VENV)/installed
	$(PY) tests/benchmarks/search.py

bench-train: $(VENV)/installed
	$(PY) tests/benchmarks/train.py

bench-service: $(VENV)/installed
	$(PY) tests/benchmarks/service.py

clean:           ## remove what the targets above made
	rm -rf $(VENV) $(DEMO) $(BENCH)
