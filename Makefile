# Everything a newcomer needs: `make run`, `make test`. Both set up .venv by themselves.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
STUDIO_HOME ?= $(HOME)/.studio
export STUDIO_HOME
BENCH ?=
# What `make run` passes on, such as OPTIONS="--port 7999 --no-browser".
OPTIONS ?=
# A file's tests stay in one process, since they share what is slow to make.
IN_PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: run demo test test-steps test-matrix check fix lint bench bench-methods bench-studio starter
run: $(VENV)/.product
	$(BIN)/python app.py open $(OPTIONS)

demo: $(VENV)/.product
	$(BIN)/python app.py demo

# The journeys through the whole page are among these; every corner of each step is tested apart.
test: $(VENV)/.tools
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not step and not matrix"

test-steps: $(VENV)/.tools
	$(BIN)/python -m pytest $(IN_PARALLEL) -m step

# Every method in every precision on every architecture, and on every kind of model; `make test`
# covers each pair of the former, and a part of the latter.
test-matrix: $(VENV)/.tools
	$(BIN)/python -m pytest $(IN_PARALLEL) -m matrix

check: lint
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow and not step and not matrix"

lint: $(VENV)/.tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet app.py templates data_prep engine studio starter

fix: $(VENV)/.tools
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Ours beside the peers, which live apart: hours on a machine that does nothing else, and resumable.
# BENCH=--quick takes a first look.
bench: $(VENV)/.tools $(PEERS)/.ready
	$(BIN)/python -m benchmarks.train $(BENCH)
	$(BIN)/python -m benchmarks.infer $(BENCH)
	$(BIN)/python -m benchmarks.report

bench-methods: $(VENV)/.tools
	$(BIN)/python -m benchmarks.methods $(BENCH)
	$(BIN)/python -m benchmarks.mixed

bench-studio: $(VENV)/.tools
	for file in estimate_accuracy jobs page; do echo "== $$file"; $(BIN)/python benchmarks/$$file.py || exit 1; done

# The base model that ships, from raw text (STUDIO_DATA) to weights and card: about three hours.
starter: $(VENV)/.tools
	$(BIN)/python -m starter.pretrain
	$(BIN)/python -m starter.measure $(if $(wildcard build/first/model),--first build/first/model)
	$(BIN)/python -m starter.card

$(VENV)/.product: requirements.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; install it, or name it: make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt
	touch $@

$(VENV)/.tools: requirements-dev.txt requirements-trackers.txt $(VENV)/.product
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	npm install --prefix $(VENV)/axe --no-save --ignore-scripts --no-audit --no-fund --silent axe-core@4.14.1 \
		|| echo "No npm here: whether the page is accessible is not tested"
	touch $@

$(PEERS)/.ready: benchmarks/requirements.txt constraints.txt $(VENV)/.product
	test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements.txt
	touch $@
