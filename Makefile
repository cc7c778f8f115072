# Each command makes the virtual environment it needs. Variables, e.g. `make demo DEMO_ARGS=--help PYTHON=python3.12`:
#   PYTHON      Python 3.11 or newer to make the environment with (the first fitting one of python3, python3.13 …)
#   VENV        where the environment lies (.venv)
#   EXTRA       cpu or gpu: the build of ONNX Runtime (gpu where an NVIDIA driver answers)
#   DEMO_ARGS, TEST_ARGS, BENCH_ARGS, CHAOS_ARGS, FUZZ_ARGS, KAFKA_ARGS   handed on to the command
#   SEEDS       A-B: the schedules that `make chaos` plays (1-20)
# Settings of pip (an index, a proxy, a cache) are the user's own and are honoured.

SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
SEEDS ?= 1-20
ifdef PYTHON
PYTHONS := $(PYTHON)
else
PYTHONS := python3 python3.13 python3.12 python3.11
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test prove check bench chaos fuzz kafka

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## */\1|/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY)  ## make the virtual environment and install everything into it

demo: $(READY)  ## watch this machine: learn what is normal, provoke faults, catch them (about 4 minutes)
	$(BIN)/python -m trainer.demo $(DEMO_ARGS)

# The demo measures this machine: it runs by itself, after what may share it.
test: $(READY)  ## run the tests, fast ones first; those with Kafka need Java 17 and Maven, some of them Go
ifdef TEST_ARGS
	$(BIN)/python -m pytest $(TEST_ARGS)
else
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/integration/test_demo.py tests
	$(BIN)/python -m pytest tests/integration/test_demo.py
endif

prove: $(READY)  ## run all tests, with as many examples as it takes (an hour)
	RESIDUAL_THOROUGH=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/integration/test_demo.py tests
	$(BIN)/python -m pytest tests/integration/test_demo.py

check: $(READY)  ## style, types, the direction of imports, the JSON Schema files, what is in deploy/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m schemas --check
	$(BIN)/python deploy/check.py

bench: $(READY)  ## measure readings per CPU-second, beside what one would do without this
	$(BIN)/python tests/bench/run.py $(BENCH_ARGS)

chaos: $(READY)  ## play schedules of faults over a real Kafka against the oracle (Java 17, Maven and Go)
	$(BIN)/python tests/integration/chaos $(SEEDS) $(CHAOS_ARGS)

fuzz: $(READY)  ## send a million records through the detector, half of them garbage, and account for each
	$(BIN)/python tests/bench/fuzz.py $(FUZZ_ARGS)

kafka:  ## run a local Apache Kafka at 127.0.0.1:9092 until ctrl-C (Java 17 and Maven)
	@for p in $(PYTHONS); do "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
		exec "$$p" deploy/kafka/broker.py $(KAFKA_ARGS); done; \
	echo "make: no Python 3.11 or newer among: $(PYTHONS); install one, or name it with PYTHON=…" >&2; exit 2

# The stamp is written last: an environment whose set-up was interrupted has none, and is made anew from nothing.
$(READY): pyproject.toml constraints.txt
	@set -e; python=; \
	for p in $(PYTHONS); do \
		if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$p"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "make: no Python 3.11 or newer among: $(PYTHONS); install one, or name it with PYTHON=…" >&2; exit 2; \
	fi; \
	extra="$(EXTRA)"; \
	if [ -z "$$extra" ]; then if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then extra=gpu; else extra=cpu; fi; fi; \
	if [ "`cat $(READY) 2>/dev/null`" != "$$extra" ]; then \
		if [ -n "`ls -A "$(VENV)" 2>/dev/null`" ] && [ ! -e "$(VENV)/pyvenv.cfg" ]; then \
			echo "make: $(VENV) is no virtual environment: empty it, or name another folder with VENV=…" >&2; exit 2; \
		fi; \
		rm -rf "$(VENV)"; "$$python" -m venv "$(VENV)"; \
	fi; \
	rm -f $(READY); \
	echo "Installing into $(VENV) (trainer, dev, $$extra): some minutes the first time …"; \
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[trainer,dev,$$extra]"; \
	echo "$$extra" > $(READY).aside; mv $(READY).aside $(READY)
