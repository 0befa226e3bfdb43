# Every target installs what it needs first; `make` alone prints this help.

ARCH    ?= digitnet
RECIPE  ?= default
DATASET ?= auto
DEVICE  ?= auto
EPOCHS  ?=
PORT    ?= 50051
GATEWAY_PORT ?= 8015
SERVERS ?= 1
PYTHON  ?= python3

VENV := .venv
BIN  := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help venv data train export teachers serve predict evaluate gateway image up down test test-container check
.PHONY: bench bench-training soak report reproduce screenshot format proto lock clean

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  ARCH=$(ARCH) RECIPE=$(RECIPE) DATASET=$(DATASET) DEVICE=$(DEVICE) EPOCHS=$(EPOCHS) PORT=$(PORT)"
	@echo "  GATEWAY_PORT=$(GATEWAY_PORT) SERVERS=$(SERVERS)"

venv: $(VENV)/.dev ## Create .venv with everything in it

data: $(VENV)/.training ## Fetch MNIST into data/ (or take it from MNIST_SOURCE)
	$(BIN)/python -m training data --dataset $(DATASET)

train: $(VENV)/.training ## Train ARCH by its RECIPE on DATASET
	$(BIN)/python -m training train --arch $(ARCH) --recipe $(RECIPE) --dataset $(DATASET) --device $(DEVICE) $(if $(EPOCHS),--epochs $(EPOCHS))

export: $(VENV)/.training ## Export what was trained as a new version in models/, once parity is proved
	$(BIN)/python -m training export --arch $(ARCH)

teachers: $(VENV)/.training ## Train and export what teaches digitnet-l's recipe "best"
	$(BIN)/python -m training study --arch digitnet-xl --seeds 3 --dataset $(DATASET) --device $(DEVICE) --results runs/teachers
	for seed in 0 1 2; do version=$$((seed + 1)); \
		[ -e runs/teachers/digitnet-xl/$$version ] || $(BIN)/python -m training export --arch digitnet-xl \
			--name digitnet-xl-default-$$seed --models runs/teachers --version $$version || exit; \
	done

serve: $(VENV)/.server ## Serve models/ over gRPC on PORT, ARCH as the default model
	$(BIN)/python -m server --port $(PORT) --default-model $(ARCH)

predict: $(VENV)/.client ## Ask the server on PORT about the bundled samples
	$(BIN)/python -m client predict --server localhost:$(PORT) --samples

evaluate: $(VENV)/.client $(VENV)/.training ## Send all test images to the server on PORT
	$(BIN)/python -m training data --dataset $(DATASET)
	$(BIN)/python -m client evaluate --server localhost:$(PORT) --dataset $(DATASET)

gateway: $(VENV)/.gateway ## Answer HTTP on GATEWAY_PORT, with a page to draw on, for the server on PORT
	$(BIN)/python -m gateway --port $(GATEWAY_PORT) --server localhost:$(PORT)

COMPOSE = REVISION="$$(git describe --always --dirty --abbrev=40 --exclude='*')" PORT=$(PORT) GATEWAY_PORT=$(GATEWAY_PORT) docker compose

image: ## Build the server's image
	$(COMPOSE) build server

# Several servers cannot share PORT: the balancer has it then.
several := $(filter-out 1,$(SERVERS))
up: ## Serve from a container on PORT, or with SERVERS=3 from three behind a balancer
	$(if $(several),SERVER_PORT=) $(COMPOSE) $(if $(several),--profile scale) up --build --wait --scale server=$(SERVERS)

down: ## Stop what runs in containers; what was trained there stays in its volume
	$(COMPOSE) --profile '*' down

test: $(VENV)/.dev $(VENV)/proto/.installed $(VENV)/triton/.installed ## Run all tests but those of the containers
	$(BIN)/pytest

test-container: $(VENV)/.dev ## Build the images and test them, where a container engine answers
	$(BIN)/pytest -m container tests/test_container_*.py

LOCKS := server/requirements.txt client/requirements.txt gateway/requirements.txt
# The oldest release that knows all of what is asked for, and the newest whose schemas are here.
KUBERNETES := 1.30.0 1.37.0
MANIFESTS  := $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/base/*.yaml))

check: $(VENV)/.dev $(VENV)/proto/.installed ## Lint, format, types, secrets, audit, manifests, stub drift: what CI runs beside the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --disable-plugin HexHighEntropyString
	$(BIN)/pip-audit --require-hashes --disable-pip --progress-spinner off $(LOCKS:%=--requirement %)
	@for version in $(KUBERNETES); do \
		$(BIN)/kubernetes-validate --kubernetes-version $$version --strict --quiet $(MANIFESTS) || exit; \
	done
	$(PROTOC) -Iproto --include_imports --include_source_info -o $(VENV)/proto/image.binpb $(patsubst proto/%,%,$(PROTOS))
	$(BIN)/buf lint $(VENV)/proto/image.binpb --config proto/buf.yaml
	rm -rf $(VENV)/proto/stubs && mkdir $(VENV)/proto/stubs
	$(call generate,$(VENV)/proto/stubs)
	@for stub in $$(cd $(VENV)/proto/stubs && find . -type f); do \
		cmp -s $(VENV)/proto/stubs/$$stub $$stub || { echo "$$stub differs from its .proto: run make proto and commit the result" >&2; exit 1; }; \
	done

bench: $(VENV)/.dev runs/bench/models/tiny/1 ## Measure the server, and the gateway, beside what each could be at most, or replaces
	$(BIN)/python -m bench.serving
	$(BIN)/python -m bench.gateway

bench-training: $(VENV)/.training ## Measure the fast recipe beside light's, and two processes beside one
	$(BIN)/python -m bench.training --device $(DEVICE) --dataset $(DATASET)
	$(BIN)/python -m bench.distributed --recipe fast --device $(DEVICE) --dataset $(DATASET)

report: $(VENV)/.training ## Write docs/models.md, model cards and plots from docs/results/ and models/
	$(BIN)/python -m training report

reproduce: $(VENV)/.training ## Train and measure all models anew in runs/reproduced/, or go on with that
	$(BIN)/python -m training reproduce --device $(DEVICE)

soak: $(VENV)/.dev runs/bench/models/tiny/1 ## Send 200,000 calls and see that memory stays flat
	$(BIN)/python -m bench.soak

# Speed does not depend on what the weights are, so they are trained in seconds.
runs/bench/models/tiny/1: | $(VENV)/.training
	$(BIN)/python -m training train --arch tiny --dataset digits --epochs 1 --runs runs/bench
	$(BIN)/python -m training export --arch tiny --runs runs/bench --models runs/bench/models --version 1

screenshot: $(VENV)/.dev ## Make the README's picture of the page again
	MNIST_GATEWAY_SCREENSHOT=docs/gateway.png $(BIN)/pytest tests/test_gateway_page.py -k screenshot

format: $(VENV)/.dev ## Format the code and fix what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

PROTOS := $(shell find proto -name '*.proto')
PROTOC  = PATH=$(VENV)/proto/bin:$$PATH $(VENV)/proto/bin/python -m grpc_tools.protoc \
	-I"$$($(VENV)/proto/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
generate = $(PROTOC) -I. --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)

proto: $(VENV)/proto/.installed ## Generate the stubs from the .proto files
	$(call generate,.)

lock: $(VENV)/.dev ## Lock what the images install, with hashes
	for lock in $(LOCKS); do \
		$(BIN)/pip-compile --quiet --strip-extras --extra $$(dirname $$lock) --generate-hashes --no-emit-index-url \
			--no-emit-find-links --no-emit-options --output-file $$lock pyproject.toml || exit; \
	done

clean: ## Remove what was installed and trained; models/ and data/ stay
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The server's needs are few and locked by hash; everything else is pinned.
$(VENV)/.server: server/requirements.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/.client $(VENV)/.gateway $(VENV)/.training $(VENV)/.dev: $(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# Environments of their own, for what needs an older protobuf than the server has.
$(VENV)/proto/.installed: proto/requirements.txt
$(VENV)/triton/.installed: tests/requirements-triton.txt
$(VENV)/proto/.installed $(VENV)/triton/.installed: $(VENV)/%/.installed: | $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/$*
	$(VENV)/$*/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@
