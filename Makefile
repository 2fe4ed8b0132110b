# make help lists the targets. Everything is installed in .venv; nothing else on the machine changes.
PYTHON ?= python3.11
PORT   ?= 8000
HOST   ?= 127.0.0.1
VENV   := .venv
PY     := $(VENV)/bin/python
DEMO   := .demo
TS     := service/client/typescript
BENCH  := .bench
MINUTES ?= 60
KERNEL ?= auto
LOCK   := $(VENV)/bin/uv pip compile pyproject.toml --quiet --upgrade --generate-hashes --no-header --no-annotate \
            --only-binary :all: --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
            --constraints docker/locks/.constraints

.DEFAULT_GOAL := help
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 24

$(VENV)/installed: pyproject.toml constraints.txt index/ann/native.c
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[cpu,training,large-logs,object-stores,service,tracing,client,dev,milvus,sharded]'
	$(PY) -m pip install --quiet --constraint constraints.txt --no-deps torchrec
	@touch $@

install: $(VENV)/installed  ## create the environment in .venv

$(DEMO)/interactions.parquet: | $(VENV)/installed
	$(PY) -m training synthetic --out $(DEMO)

$(DEMO)/root/current: | $(DEMO)/interactions.parquet
	draft=$$($(PY) -m training fit $(DEMO)/interactions.parquet --items $(DEMO)/items.parquet --root $(DEMO)/root --epochs 6 | tail -n 1) \
	  && $(PY) -m index build "$$draft" && $(PY) -m index publish "$$draft"

demo-release: $(DEMO)/root/current  ## train on a synthetic log and publish the release under .demo

demo: demo-release  ## demo-release, then serve it on http://$(HOST):$(PORT) (PORT=... for another port)
	@echo && echo 'Once it is ready, send a request:' && $(PY) -m index example --root $(DEMO)/root --url http://$(HOST):$(PORT)
	@echo && echo 'or try it in a browser: http://$(HOST):$(PORT)/' && echo
	@$(PY) -m service --releases $(DEMO)/root --host $(HOST) --port $(PORT)

check: $(VENV)/installed  ## check format, lint, imports and types; run the quick tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy
	$(PY) -m pytest -q -m 'not slow' --ignore=tests/end_to_end

test: $(VENV)/installed  ## everything that must pass before a merge
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy
	$(PY) -m pytest -q -n 2 -m 'not slow'

format: $(VENV)/installed  ## format the code with ruff
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: bench-search bench-filters bench-train bench-encoders bench-service  ## the numbers of tests/README.md

$(VENV)/bench: $(VENV)/installed
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[bench]' || echo 'some rivals cannot be installed here'
	@touch $@

bench-search: $(VENV)/bench
	$(PY) tests/benchmarks/search.py

bench-filters: $(VENV)/installed
	$(PY) tests/benchmarks/filters.py

bench-train: $(VENV)/installed
	$(PY) tests/benchmarks/train.py

bench-engines: $(VENV)/installed  ## recall, time and memory of faiss and of milvus-lite, 368,000 items; some 15 minutes
	$(PY) tests/benchmarks/engines.py --folder $(BENCH)/engines

bench-encoders: $(VENV)/installed
	$(PY) tests/benchmarks/encoders.py

bench-service: $(VENV)/installed
	$(PY) tests/benchmarks/service.py

evidence-days: $(VENV)/installed  ## seven simulated days of LOG=..., a training run after each: warm, cold and none
	$(PY) tests/evidence/days.py "$(LOG)" --out $(BENCH)/days-$(notdir $(LOG))

evidence-export-kills: $(VENV)/installed  ## kill event exports at each step and at random times, then run them again
	$(PY) tests/evidence/export_kills.py --each 20 --random 400

evidence-filters: $(VENV)/installed  ## 10,000 random requests against an exhaustive oracle (KERNEL=... by one kernel)
	$(PY) tests/evidence/filters.py --kernel $(KERNEL)

evidence-fuzz: $(VENV)/installed  ## 100,000 requests generated from the OpenAPI document, and hand-written invalid ones
	$(PY) tests/evidence/fuzz.py

evidence-growth: $(VENV)/installed  ## build, load, serve and search ten thousand to ten million items (ITEMS=... for other numbers)
	$(PY) tests/evidence/growth.py $(if $(ITEMS),--items $(ITEMS))

evidence-impressions: $(VENV)/installed  ## 100,000 requests for pages and with caps under load: nothing repeated, no cap exceeded
	$(PY) tests/evidence/impressions.py

evidence-large-logs: $(VENV)/installed  ## time and memory of logs of 1, 10 and 100 million rows, by both engines (ROWS=... for other numbers)
	$(PY) tests/evidence/large_logs.py $(if $(ROWS),--rows $(ROWS))

evidence-milvus-switches: $(VENV)/installed  ## 200 switches of the alias in Milvus under load: no answer fails or is mixed
	$(PY) tests/evidence/milvus_switches.py

evidence-mutations: $(VENV)/installed  ## 10,000 corrupted releases offered to a running server
	$(PY) tests/evidence/mutations.py

evidence-canary: $(VENV)/installed  ## simulated weeks of a better, an equal and a worse canary: is each recognised?
	$(PY) tests/evidence/canary_week.py

evidence-tenants: $(VENV)/installed  ## 100,000 requests to several shops of one service: does any see another's?
	$(PY) tests/evidence/tenants.py

evidence-cold-items: $(VENV)/installed  ## recall of items hidden from training, by their words: LOG=... ITEMS=...
	$(PY) tests/evidence/cold_items.py "$(LOG)" "$(ITEMS)" --out $(BENCH)/cold-items-$(notdir $(LOG)) \
		--set encoder=linear --set interests=1 --set history=1000 --set history_decay=1.0

evidence-times: $(VENV)/installed  ## what the times of histories are worth on LOG=...
	$(PY) tests/evidence/time_gaps.py "$(LOG)" --out $(BENCH)/time-gaps-$(notdir $(LOG))

LEAVE_ONE_OUT = sasrec,transformer
evidence-leave-one-out: $(VENV)/installed  ## recall@10 and NDCG@10 of last items on LOG=..., three seeds (ENCODERS=... for others)
	$(PY) -m training compare "$(LOG)" --split leave-one-out --set selection_metric=recall@20 \
		--set validation_users=25000 --encoders '$(or $(ENCODERS),$(LEAVE_ONE_OUT))' --seeds 3 --trials 1 \
		--out $(BENCH)/leave-one-out-$(notdir $(LOG))

evidence-newcomers: $(VENV)/installed  ## accuracy of cold-start items of LOG=... beside the release; ITEMS=... for their words
	$(PY) tests/evidence/newcomers.py "$(LOG)" --out $(BENCH)/newcomers-$(notdir $(LOG)) \
		$(if $(ITEMS),--items "$(ITEMS)" --set encoder=linear --set interests=1 \
		--set history=1000 --set history_decay=1.0)

evidence-night-kills: $(VENV)/installed  ## kill training runs 20 times at each step and at random times, then run them again
	$(PY) tests/evidence/night_kills.py --each 20 --random 300

evidence-overload: $(VENV)/installed  ## 2, 5 and 10 times the capacity
	$(PY) tests/benchmarks/overload.py

$(VENV)/browser: $(VENV)/installed
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	@touch $@

evidence-page: $(VENV)/browser demo-release  ## the page in a headless Chromium (Debian's): every control, axe, times, screenshots
	$(PY) -m pytest -q tests/service/page/test_browser.py
	$(PY) tests/evidence/page.py --root $(DEMO)/root --out $(BENCH)/page

evidence-publish-kills: $(VENV)/installed  ## kill publish, rollback and prune at each step and at random times
	$(PY) tests/evidence/publish_kills.py --each 20 --random 500

evidence-ranks: $(VENV)/installed  ## a fit by two processes, of which one is killed ten times, beside a fit by one
	$(PY) tests/evidence/rank_kills.py
	$(PY) tests/evidence/rank_kills.py --shards

evidence-shards: $(VENV)/installed  ## memory and time of an item table in shards, beside one that each process has whole
	$(PY) tests/evidence/shards.py

evidence-redis-cancel: $(VENV)/installed  ## cancel 100,000 Redis calls in flight: no caller gets another's reply
	$(PY) tests/evidence/redis_cancel.py

evidence-redis-faults: $(VENV)/installed  ## requests while Redis, or the network to it, fails
	$(PY) tests/evidence/redis_faults.py

evidence-refit: $(VENV)/installed  ## compare ways to include the last day in training, on LOG=...
	$(PY) tests/evidence/refit.py "$(LOG)"

evidence-rolling: $(VENV)/installed  ## rolling restarts of three replicas behind HAProxy, under load
	$(PY) tests/evidence/rolling.py

evidence-sizes: $(VENV)/installed  ## memory and time as functions of items, users and events, at three sizes
	$(PY) tests/evidence/sizes.py

evidence-soak: $(VENV)/installed  ## mixed traffic and release swaps for an hour (MINUTES=... for another duration)
	$(PY) tests/evidence/soak.py --minutes $(MINUTES)

evidence-swaps: $(VENV)/installed  ## 1,000 release swaps under load: each response is complete and from one release
	$(PY) tests/evidence/swaps.py

evidence-warm: $(VENV)/installed  ## training time of a warm start on LOG=... to the quality of a cold one
	$(PY) tests/evidence/warm_start.py "$(LOG)" --out $(BENCH)/warm-$(notdir $(LOG))

typescript-client: $(VENV)/installed  ## generate the TypeScript client and pack it for npm; needs Node.js
	$(PY) -m service openapi > $(TS)/openapi.json
	cd $(TS) && npm ci --no-audit --no-fund && npm run generate && npm pack

gpu-check: $(VENV)/installed  ## every check and figure that needs a GPU, into tests/GPU.md (GPU="--device cpu --quick": a stand-in)
	$(PY) tests/evidence/gpu_check.py $(GPU)

stack-lock: $(VENV)/installed  ## write the lock files of the images; needs PyTorch's CPU wheels (UV_FIND_LINKS or UV_INDEX)
	sed 's/^torch==.*/&+cpu/' constraints.txt > docker/locks/.constraints
	$(LOCK) --extra cpu --extra service --extra tracing --output-file docker/locks/server.txt
	$(LOCK) --extra cpu --extra service --extra tracing --extra client --extra training --output-file docker/locks/trainer.txt
	$(LOCK) --extra cpu --extra service --extra tracing --extra milvus --output-file docker/locks/server-milvus.txt
	sed '/^torch==/d' constraints.txt > docker/locks/.constraints
	$(LOCK) --extra gpu --extra service --extra tracing --output-file docker/locks/server-gpu.txt
	echo 'setuptools>=80' | $(LOCK:pyproject.toml=-) --output-file docker/locks/build.txt
	@rm docker/locks/.constraints

stack-try: $(VENV)/installed  ## build the images, start the stack, test it through a training run, remove it (STACK=--no-grafana without that image)
	docker-compose build
	$(PY) tests/evidence/stack.py $(STACK)

clean:           ## remove everything that the targets created
	rm -rf $(VENV) $(DEMO) $(BENCH) build index/ann/native_code*.so
