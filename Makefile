# make demo    train a small BLIP on data made on the spot and write a report about it
# make test    the tests, but for those that take long
# make test-slow   those that take long
# make test-quick   a small, broad part of them: a few minutes
# make lock    constraints.txt anew: what setup.py asks for, its versions kept where they still fit
# make docs    the documentation, warnings are errors
# make lint    ruff and mypy
# make wheel   dist/lavis_lite-*.whl
# make clean   remove what the targets above made, but no environment and no output/
#
# Everything runs in the environment VENV, which is made with PYTHON when it is missing and
# brought up to date when setup.py or constraints.txt changes. It gets the versions that
# constraints.txt names, which all tests have run with; pip without it takes the newest that
# setup.py allows. EXTRAS=ci adds what a few tests need, and skip without (Ray is large). An activated environment is left alone: to use it,
# say `make test VENV=$$VIRTUAL_ENV`. Tests run in two processes side by side, each file in one of
# them: TEST_PROCESSES=8 where there are more cores, 0 for one after the other.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
EXTRAS ?= dev
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
LOCK_ARGS ?=

# The demo in a short form: every part runs, nothing is learnt.
SHORT ?= \
	$(foreach stage,pretrain again captioner captioner_again filter filter_again, \
		stages.$(stage).set.run.max_steps=4 'stages.$(stage).set.evaluate[0].data.limit=24') \
	$(foreach stage,captioner captioner_again filter filter_again, \
		'stages.$(stage).set.evaluate[1].data.limit=24') \
	stages.capfilt.set.data.source.size=96 stages.capfilt.set.filter.threshold=0
SHORT_OUTPUT ?= output/quickstart-short

.PHONY: demo demo-short test test-slow test-quick docs lint format wheel lock install install-dev clean

demo: install
	$(BIN)/python run.py --cfg configs/quickstart.yaml
	@echo
	@echo "The report: $(CURDIR)/output/quickstart/report.html"

demo-short: install
	rm -rf $(SHORT_OUTPUT)
	$(BIN)/python run.py --cfg configs/quickstart.yaml run.output_dir=$(SHORT_OUTPUT) $(SHORT)
	test -s $(SHORT_OUTPUT)/report.html

test: install-dev
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not slow" $(PYTEST_ARGS)

test-slow: install-dev
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# What feels first that a library has moved: numbers that were recorded, files that are read, parts
# that are built by name, a few steps of training. Whole files, so that nothing has to be marked.
QUICK = tests/config tests/registry/test_registry.py tests/registry/test_registered.py \
	tests/models/test_zoo.py tests/cli/test_sizes.py tests/modules/test_vision.py \
	tests/modules/layers/test_flops.py tests/modules/layers/test_linear.py tests/modules/med \
	tests/modules/text tests/modules/generation tests/losses/test_shared.py \
	tests/projects/blip/test_golden.py tests/projects/blip/test_huggingface.py \
	tests/projects/blip/test_tasks.py tests/projects/clip/test_transformers.py \
	tests/checkpoint/test_weights.py tests/data/files tests/data/test_image_processors.py \
	tests/data/scenes tests/metrics/captioning tests/runners/train/test_runner.py \
	tests/runners/train/test_lora.py tests/runners/test_loggers.py tests/report/test_report.py

test-quick: install-dev
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not slow" $(PYTEST_ARGS) $(QUICK)

# The pages' programs, configs and commands are run first, as they stand there.
docs: install-dev
	$(BIN)/python -m pytest -q tests/test_docs.py
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "The documentation: $(CURDIR)/docs/_build/html/index.html"

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lavis_lite projects run.py

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: install-dev
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# One file for all platforms and every Python from 3.11 on. It keeps the versions that stand in it;
# the newest: make lock LOCK_ARGS=--upgrade, and then all tests.
lock: | $(BIN)/pip
	$(BIN)/python -m pip install --quiet "uv>=0.9"
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --extra ci \
		--no-annotate --custom-compile-command "make lock" $(LOCK_ARGS) \
		--output-file constraints.txt setup.py

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: setup.py pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: setup.py pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $(VENV)/.installed $@

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lavis_lite needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf build dist *.egg-info docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
