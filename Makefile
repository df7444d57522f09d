# Everything is run from here. `make` alone lists what there is.

PYTHON ?= python3.11
CLUSTER ?= local
UNTIL ?= end
ONLY ?=
REGISTRY ?=
IMAGES ?=
K ?=
KEEP ?=
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
VERSION ?=
RELEASE_ARGS ?=

export PYTHON
BIN := .venv/bin
LOCAL := $(BIN)/python -m localcluster

.DEFAULT_GOAL := help
.PHONY: help venv demo up down status kubeconfig test unit images release docs lint format generate lock bench clean
.NOTPARALLEL:

help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  CLUSTER=local|current|kind  where `make demo` runs\n'
	@printf '  UNTIL=answers|scaling|receipt|gateway|round\n                              where `make demo` stops; at its end by default\n'
	@printf '  ONLY=unit,api,chart,e2e     which suites `make test` runs\n'
	@printf '  K=EXPRESSION                which tests; KEEP=1 keeps their cluster up\n'
	@printf '  REGISTRY=HOST/PATH          where `make images` pushes; IMAGES= some of them\n'
	@printf '  BENCH_ARGS="NAME ..."       what `make bench` measures; all, an hour, by\n'
	@printf '                              default; --help lists them. It needs wrk and the\n'
	@printf '                              cluster of `make demo`: what needs what is not\n'
	@printf '                              there is left out, and said so\n'

venv: ## Set up .venv from the locked requirements
	@local/bootstrap.sh

demo: ## Two doctors' twins on a real cluster: they answer, one learns
	@local/bootstrap.sh git $(if $(filter local,$(CLUSTER)),go)
	@$(BIN)/python -m demo run --cluster $(CLUSTER) --until $(UNTIL) $(DEMO_ARGS)

up: ## Bring up the local cluster, empty
	@local/bootstrap.sh git go
	@$(LOCAL) --name demo up

down: ## End the local cluster; nothing stays running or mounted
	@local/bootstrap.sh
	@$(LOCAL) --name demo down
	@$(BIN)/python tests/run.py --clear

status: venv ## Show the local cluster
	@$(LOCAL) --name demo status

kubeconfig: ## Print the path of the local cluster's kubeconfig
	@local/bootstrap.sh
	@$(LOCAL) --name demo kubeconfig

test: ## Run all tests, with all of their set-up
	@local/bootstrap.sh git go
	@$(BIN)/python tests/run.py $(if $(ONLY),--only $(ONLY)) $(if $(K),-k '$(K)') $(if $(KEEP),--keep) $(TEST_ARGS)

unit: venv ## Run the tests that need no cluster
	@$(BIN)/python tests/run.py --only unit $(if $(K),-k '$(K)')

images: venv ## Build the images; with REGISTRY= push them too
	@$(BIN)/python -m imagebuilder $(if $(REGISTRY),push $(REGISTRY),build) $(IMAGES)

release: venv ## Make the release VERSION= into dist/; pushes nothing
	@$(if $(VERSION),,echo "say which: make release VERSION=1.2.3" >&2; exit 1)
	@$(BIN)/python -m release $(VERSION) $(RELEASE_ARGS)

docs: venv ## Build the documentation into build/docs; broken links fail
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/docs-trees . build/docs
	@printf 'build/docs/index.html\n'

lint: venv ## ruff, mypy, layers, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m bettertherapy_api.crd --check
	$(BIN)/python charts/generate.py --check
	$(BIN)/python operator/api_structure.py --check
	$(BIN)/python docs/generate.py --check

format: venv ## Format the Python code and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

generate: venv ## Regenerate CRDs, charts' schemas, and tables in the docs
	$(BIN)/python -m bettertherapy_api.crd
	$(BIN)/python charts/generate.py
	$(BIN)/python operator/api_structure.py
	$(BIN)/python docs/generate.py

lock: venv ## Lock the requirements anew, with hashes
	printf 'uv\n' | $(BIN)/uv pip compile - -q --no-header --no-annotate --generate-hashes --universal --python-version 3.11 -o requirements/bootstrap.txt
	sed -i '1i # The installer of everything else. Locked by `make lock`.' requirements/bootstrap.txt
	$(BIN)/uv pip compile requirements/dev.in -q --generate-hashes --universal --python-version 3.11 -o requirements/dev.txt
	$(BIN)/uv pip compile requirements/docs.in -q --generate-hashes --universal --python-version 3.11 -c requirements/dev.txt -o requirements/docs.txt
	$(BIN)/python -m imagebuilder lock

bench: ## Measure the figures and print the tables
	@local/bootstrap.sh git go
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

clean: ## Remove what was made in this folder, but caches of builds
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .venv
	find . -name __pycache__ -type d -not -path './.git/*' -exec rm -rf {} +
