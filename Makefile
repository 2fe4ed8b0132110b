# make help lists the targets. Everything happens in .venv; nothing else of the machine is touched.
PYTHON ?= python3.11
PORT   ?= 8000
HOST   ?= 127.0.0.1
VENV   := .venv
PY     := $(VENV)/bin/python
DEMO   := .demo
BENCH  := .bench
MINUTES ?= 60
LOCK   := $(VENV)/bin/uv pip compile pyproject.toml --quiet --upgrade --generate-hashes --no-header --no-annotate \
            --only-binary :all: --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
            --constraints docker/locks/.constraints

.DEFAULT_GOAL := help
.PHONY: help install demo demo-release test check format bench bench-search bench-filters bench-train bench-encoders bench-service evidence-days evidence-export-kills evidence-filters evidence-fuzz evidence-mutations evidence-newcomers evidence-night-kills evidence-overload evidence-publish-kills evidence-redis-cancel evidence-redis-faults evidence-refit evidence-rolling evidence-sizes evidence-soak evidence-swaps evidence-warm stack-lock stack-try clean

help:            ## these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 24

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[cpu,training,service,tracing,client,dev]'
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

bench: bench-search bench-filters bench-train bench-encoders bench-service  ## the numbers of the README

bench-search: $(VENV)/installed
	$(PY) tests/benchmarks/search.py

bench-filters: $(VENV)/installed
	$(PY) tests/benchmarks/filters.py

bench-train: $(VENV)/installed
	$(PY) tests/benchmarks/train.py

bench-encoders: $(VENV)/installed
	$(PY) tests/benchmarks/encoders.py

bench-service: $(VENV)/installed
	$(PY) tests/benchmarks/service.py

evidence-days: $(VENV)/installed  ## seven simulated days of LOG=..., a night after each: warm, cold, and never again
	$(PY) tests/evidence/days.py "$(LOG)" --out $(BENCH)/days-$(notdir $(LOG))

evidence-export-kills: $(VENV)/installed  ## exports of events killed at each point and at random moments, then run again
	$(PY) tests/evidence/export_kills.py --each 20 --random 400

evidence-filters: $(VENV)/installed  ## 10,000 random requests against an oracle that looks at every item
	$(PY) tests/evidence/filters.py

evidence-fuzz: $(VENV)/installed  ## 100,000 requests made from the OpenAPI document, and bad ones made by hand
	$(PY) tests/evidence/fuzz.py

evidence-mutations: $(VENV)/installed  ## 10,000 damaged releases offered to a running server
	$(PY) tests/evidence/mutations.py

evidence-newcomers: $(VENV)/installed  ## what items of LOG=... that came after the release are worth beside it
	$(PY) tests/evidence/newcomers.py "$(LOG)" --out $(BENCH)/newcomers-$(notdir $(LOG))

evidence-night-kills: $(VENV)/installed  ## nights killed 20 times at each boundary and at random, then run again
	$(PY) tests/evidence/night_kills.py --each 20 --random 300

evidence-overload: $(VENV)/installed  ## 2, 5 and 10 times the load that can be answered
	$(PY) tests/benchmarks/overload.py

evidence-publish-kills: $(VENV)/installed  ## publishing, rolling back and pruning killed at each point and at random
	$(PY) tests/evidence/publish_kills.py --each 20 --random 500

evidence-redis-cancel: $(VENV)/installed  ## 100,000 calls of Redis cancelled under way: whose answers come
	$(PY) tests/evidence/redis_cancel.py

evidence-redis-faults: $(VENV)/installed  ## what becomes of requests while Redis, or the way to it, fails
	$(PY) tests/evidence/redis_faults.py

evidence-refit: $(VENV)/installed  ## how a night is best trained on with its day, on LOG=...
	$(PY) tests/evidence/refit.py "$(LOG)"

evidence-rolling: $(VENV)/installed  ## rolling restarts of three replicas behind HAProxy, under load
	$(PY) tests/evidence/rolling.py

evidence-sizes: $(VENV)/installed  ## memory and time as functions of items, users and events, at three sizes
	$(PY) tests/evidence/sizes.py

evidence-soak: $(VENV)/installed  ## mixed traffic and swaps of the release for an hour (MINUTES=... for another time)
	$(PY) tests/evidence/soak.py --minutes $(MINUTES)

evidence-swaps: $(VENV)/installed  ## 1,000 swaps of the release under load: every answer whole, and of one release
	$(PY) tests/evidence/swaps.py

evidence-warm: $(VENV)/installed  ## how soon a warm start on LOG=... is where a cold one ends
	$(PY) tests/evidence/warm_start.py "$(LOG)" --out $(BENCH)/warm-$(notdir $(LOG))

stack-lock: $(VENV)/installed  ## what the images install, locked anew; needs PyTorch's CPU wheels (UV_FIND_LINKS or UV_INDEX)
	sed 's/^torch==.*/&+cpu/' constraints.txt > docker/locks/.constraints
	$(LOCK) --extra cpu --extra service --extra tracing --output-file docker/locks/server.txt
	$(LOCK) --extra cpu --extra service --extra tracing --extra client --extra training --output-file docker/locks/trainer.txt
	sed '/^torch==/d' constraints.txt > docker/locks/.constraints
	$(LOCK) --extra gpu --extra service --extra tracing --output-file docker/locks/server-gpu.txt
	echo 'setuptools>=80' | $(LOCK:pyproject.toml=-) --output-file docker/locks/build.txt
	@rm docker/locks/.constraints

stack-try: $(VENV)/installed  ## the images built, the stack started, asked, watched, through a night, and removed (STACK=--no-grafana without its image)
	docker-compose build
	$(PY) tests/evidence/stack.py $(STACK)

clean:           ## remove what the targets above made
	rm -rf $(VENV) $(DEMO) $(BENCH)
