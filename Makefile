# Every target that runs Python first sees to .venv, made from the locks; the second time that takes a moment only.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
BASE ?= docker.io/library/python:3.13-slim-bookworm
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' autoscaler/__init__.py)
IMAGE ?= autoscaler:$(VERSION)

# Wheels' hashes come from the index alone: nothing of this machine's own configuration may reach a lock.
COMPILE := uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

.PHONY: help demo test crashes soak bench lint types check format image test-image lock clean environment

help: ## show this list
	@echo "Start with 'make demo': thirty seconds of the whole job against a sandbox cloud; nothing is bought."
	@echo
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "PYTHON=python3.12 picks an interpreter (default: the newest, 3.11 or later); it takes hold after 'make clean'."

demo: environment ## watch the daemon buy edge workers from a sandbox cloud (no root, no services)
	@$(BIN)/autoscaler demo

test: environment ## run the tests; ARGS='-k budget' or ARGS='-m "not system"' runs some
	@tests/system/install.sh
	@$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

crashes: environment ## die at every crash point of a purchase (about an hour); ARGS='--only throttled' dies of one fault alone
	@$(BIN)/python -m tests.crashes $(ARGS)

soak: environment ## kill, stop and cut off real daemons at random (about 25 minutes); ARGS='--kills 20' for a short one
	@tests/system/install.sh
	@$(BIN)/python -m tests.soak $(ARGS)

bench: environment ## how fast a simulation is, and how much memory it takes; ARGS='--load FILE.csv' adds a recording
	@$(BIN)/python benchmarks/simulation.py $(ARGS)

lint: environment ## look for mistakes and disorder (ruff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: environment ## check the types (mypy, strict)
	@$(BIN)/mypy

check: test lint types ## all three of the above

format: environment ## put the code in order
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

image: ## build the container image with buildah; BASE=… names another Python base, IMAGE=… another name
	@command -v buildah >/dev/null || { echo "make image: buildah is missing (apt-get install buildah), or run: docker build -t $(IMAGE) ." >&2; exit 1; }
	buildah build --isolation chroot --format docker --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) --tag $(IMAGE) .

test-image: environment ## build the image and run it with podman; as root, some minutes, own base where no registry is
	@$(BIN)/pytest --timeout 900 tests/container/check_image.py $(ARGS)

lock: ## write requirements/ anew from pyproject.toml; UPGRADE=1 takes newer versions
	@command -v uv >/dev/null || { echo "make lock: uv is missing (pip install uv)" >&2; exit 1; }
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) pyproject.toml --extra credentials --extra postgres -o requirements/image.txt
	$(COMPILE) pyproject.toml --all-extras --group dev -c requirements/image.txt -c requirements/build.txt -o requirements/dev.txt

clean: ## remove .venv and what the tools left behind
	rm -rf .venv dist .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache

environment:
	@PYTHON="$(PYTHON)" .ci/environment
