# One command to install, one to check, one to a result.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PYTHON
# What the environment was made from: a change of these makes `make` bring it up to date.
WANTED := pyproject.toml constraints.txt uv.lock infra/install.sh
RUNS   := $(VENV)/.runs
DEVELOPS := $(VENV)/.develops
# Other people's models, which need other versions than ours.
PEERS  := .venv-peers
# Processes that tests are shared out among, a file to each in the order given; 0 runs them in this one.
TEST_WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: install quickstart check test golden bench kills kills-update bench-objectives bench-canvases bench-peers bench-sequence gpu feast-conformance fuzz wheel clean

# Everything, for whoever changes Playbill; TORCH_BACKEND=cpu chooses the CPU build of torch where nothing else does.
install: $(DEVELOPS)

$(DEVELOPS): $(WANTED)
	@infra/install.sh $(VENV) all,dev
	@touch $(RUNS) $(DEVELOPS)

# What trains and serves on one machine.
$(RUNS): $(WANTED)
	@infra/install.sh $(VENV) train,serving
	@touch $(RUNS)

# From nothing to a served model; the last line is one JSON object.
quickstart: $(RUNS)
	@$(BIN)/playbill quickstart --json

# Format, lint, types, import contracts, definitions, fast tests.
check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/playbill check
	$(PYTEST) tests/unit tests/contract

# Everything: check, then real Feast, Ray and MLflow, the server, the wheel and the quickstart.
test: check
	$(PYTEST) tests/e2e tests/faults tests/integration tests/parity  # the longest files first

# Whether a change of layout left what Playbill puts out as it was: four minutes, equal on the same processor and torch.
golden: install
	$(BIN)/python tests/golden/outputs.py check tests/golden/outputs.json

# Feast's own universal suites against our stores; TESTS is a folder with sdk/python/tests of a Feast tag.
feast-conformance: install
	$(BIN)/python tests/conformance/feast_universal.py $(TESTS)

# Benchmarks; each ends with one JSON line.
bench: install
	for script in tests/benchmarks/bench_*.py tests/benchmarks/asof_join.py tests/benchmarks/online_read.py \
	    tests/benchmarks/feature_build.py; do $(BIN)/python $$script --json || exit 1; done

# Random kills of everything that writes, each run again and compared; a quarter of an hour on two cores.
kills: install
	$(BIN)/python tests/benchmarks/kills.py --json

# Fifty random kills of `playbill update`, with the events that were lost or learnt twice; a quarter of an hour.
kills-update: install
	$(BIN)/python tests/benchmarks/kills_update.py --json

# What labels, rewards, evaluation and the simulated service are measured by: an hour on two cores. KUAIRAND is a folder of KuaiRand-Pure.
bench-objectives: install
	for script in labels leakage_checks negatives baselines off_policy delayed_feedback objective_before_capacity; do \
	    $(BIN)/python tests/benchmarks/$$script.py --json || exit 1; done
	$(if $(KUAIRAND),$(BIN)/python tests/benchmarks/kuairand.py --data $(KUAIRAND) --json)

# What one model for every canvas is measured by. KUAIRAND, MOVIELENS and KNOWN_ITEMS are folders of data; without them their parts are left out.
bench-canvases: install
	for script in page_scoring serving_profiles more_like_this pages gems heads; do \
	    $(BIN)/python tests/benchmarks/$$script.py --json || exit 1; done
	$(BIN)/python tests/benchmarks/search.py --json $(if $(KNOWN_ITEMS),--known-item $(KNOWN_ITEMS) --movielens $(MOVIELENS))
	$(if $(KUAIRAND),$(BIN)/python tests/benchmarks/heads.py --data $(KUAIRAND) --skip-simulated --json)

# Models of RecTools and implicit on our split, by our evaluator; ML_1M is a folder of MovieLens-1M. Hours on two cores; --models leaves networks out.
bench-peers: install $(PEERS)/.installed
	$(BIN)/python tests/benchmarks/peers.py --data $(ML_1M) --python $(PEERS)/bin/python --json

# Next plays of MovieLens-1M, and how fast the network trains beside RecTools'; an hour on two cores.
bench-sequence: install $(PEERS)/.installed
	$(BIN)/python tests/benchmarks/sequence_quality.py --data $(ML_1M) --json
	$(BIN)/python tests/benchmarks/training_speed.py --data $(ML_1M) --python $(PEERS)/bin/python --json

# The tests that need a card, and how fast training is on it: docs/results/gpu.json, by card. Refuses without one. ML_1M as above.
gpu: install
	$(BIN)/python tests/benchmarks/gpu.py $(if $(ML_1M),--data $(ML_1M)) --json

$(PEERS)/.installed: tests/benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/benchmarks/peers.txt
	@touch $@

# Requests that nobody would send, to a real server: 5,000 drawn from its OpenAPI document, and every text and moment. Ends with one JSON line.
fuzz: install
	@$(BIN)/python tests/benchmarks/fuzz.py --json

wheel: install
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) $(PEERS) dist build .playbill .mypy_cache .ruff_cache .pytest_cache .hypothesis
