# What CI runs is what you run. All targets share one environment, .venv, made from requirements.lock with plain pip
# and made again only when the lock or pyproject.toml has changed.

PYTHON ?= python3
VENV := .venv
SDK_TS := sdk/typescript
POLYGLOT := examples/polyglot
FLEET := tests/chaos/fleet
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK_VENV := build/lock
LINTED := $(wildcard jetflow tests docker docs examples benchmarks conformance)

# pyright looks for packages beside the first python on PATH (--verifytypes ignores --pythonpath), and would ask the
# network on each run whether there is a newer pyright.
PYRIGHT := PATH="$(CURDIR)/$(BIN):$$PATH" PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env demo polyglot docs lint-js test test-sdk test-sdk-go test-sdk-ts test-polyglot test-fleet chaos-fleet \
	model mutants \
	crash-points chaos conformance conformance-faults vendor lint format lock clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

env: $(STAMP)  ## Make .venv, or bring it up to date

demo: $(STAMP)  ## Parse and index the standard library with child workflows, on a server of its own
	@$(BIN)/python examples/02_index_tree.py

test: $(STAMP)  ## Run the tests; ARGS="-k join" chooses
	$(BIN)/python -m pytest $(ARGS)

test-sdk: test-sdk-ts test-sdk-go test-polyglot test-fleet  ## Build and test the SDKs of other languages, and play the conformance suite on them

# What npm has installed is newer than the lock it was installed from.
$(SDK_TS)/node_modules/.installed: $(SDK_TS)/package.json $(SDK_TS)/package-lock.json
	npm --prefix $(SDK_TS) ci
	@touch $@

test-sdk-ts: $(STAMP) $(SDK_TS)/node_modules/.installed  ## Build, lint and test the SDK for TypeScript; needs Node 20
	npm --prefix $(SDK_TS) run build
	npm --prefix $(SDK_TS) run lint
	PYTHON=$(CURDIR)/$(BIN)/python npm --prefix $(SDK_TS) test
	$(BIN)/python -m conformance --level parent -- node $(SDK_TS)/dist/conformance/kit.js
	PYTHON=$(CURDIR)/$(BIN)/python node $(SDK_TS)/dist/conformance/play.js

polyglot: $(STAMP) $(SDK_TS)/node_modules/.installed  ## Survey the standard library with Go and TypeScript children
	npm --prefix $(SDK_TS) run --silent build
	npm --prefix $(POLYGLOT)/typescript install --silent --no-package-lock
	npm --prefix $(POLYGLOT)/typescript run --silent build
	go build -C $(POLYGLOT)/go -o build/worker .
	$(BIN)/python $(POLYGLOT)/survey.py $(ARGS)

test-polyglot: polyglot  ## Run that example; it must come to what one process comes to
	cd $(POLYGLOT)/go && test -z "$$(gofmt -l .)" && go vet ./...

chaos-fleet: $(STAMP) $(SDK_TS)/node_modules/.installed  ## Build the workers of `make chaos ARGS="--fleet mixed"`
	npm --prefix $(SDK_TS) run --silent build
	npm --prefix $(FLEET)/typescript install --silent --no-package-lock
	npm --prefix $(FLEET)/typescript run --silent build
	cd $(FLEET)/go && test -z "$$(gofmt -l .)" && go vet ./... && go build -o build/worker .

test-fleet: chaos-fleet  ## Draw faults for a short while over workers in Python, Go and TypeScript
	$(BIN)/python -m tests.chaos --fleet mixed --seconds 30 --seed 3

# The theme would advertise its successor.
docs: $(STAMP)  ## Make the site of docs/ in build/site; a warning is an error. ARGS="serve" shows it and follows edits
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet $(or $(ARGS),build --strict)

model: $(STAMP)  ## Explore every state of small models of the protocol; ARGS=zombie chooses
	@$(BIN)/python -m tests.model $(ARGS)

mutants: $(STAMP)  ## Plant bugs in the rules for the models to catch, and in the shell for the tests; ARGS=sweeper chooses
	@$(BIN)/python -m tests.model.mutants $(ARGS)
	@$(BIN)/python -m tests.faults $(ARGS)

crash-points: $(STAMP)  ## Kill a worker before and after every named point on the way of a task
	@$(BIN)/python -m tests.crash $(ARGS)

chaos: $(STAMP)  ## Draw faults for a while, then check every outcome; ARGS="--seconds 60 --seed 1 --cluster 3"
	@$(BIN)/python -m tests.chaos $(ARGS)

conformance: $(STAMP)  ## Hold jetflow's own worker to the wire format; ARGS="--only 'W1*'" chooses
	@$(BIN)/python -m conformance $(ARGS) -- $(BIN)/python -m conformance.kit

conformance-faults: $(STAMP)  ## Plant faults in that worker, and expect a case to catch each
	@$(BIN)/python -m conformance.faults $(ARGS)

GO_KIT := build/kit-go
GO_TOOLS := NATS_SERVER=$(CURDIR)/$(BIN)/nats-server PYTHON=$(CURDIR)/$(BIN)/python PYTHONPATH=$(CURDIR)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0

# Cgo, and so a C compiler, is what the race detector needs.
test-sdk-go: $(STAMP)  ## Check and test the Go SDK: its own tests, the conformance suite, planted faults, mixed fleets
	cd sdk/go && test -z "$$(gofmt -l .)" && go vet ./... && go run $(STATICCHECK) ./...
	cd sdk/go && $(GO_TOOLS) CGO_ENABLED=1 go test -race ./...
	mkdir -p build && go build -C sdk/go -o $(CURDIR)/$(GO_KIT) ./conformance/kit
	$(BIN)/python -m conformance --level parent -- $(GO_KIT)
	PYTHONPATH=$(CURDIR) $(BIN)/python sdk/go/conformance/faults.py
	PYTHONPATH=$(CURDIR) $(BIN)/python sdk/go/conformance/fleet.py $(GO_KIT)
	$(BIN)/python sdk/go/conformance/path.py

VENDOR := jetflow/dashboard/static/vendor
FETCHED := build/vendor
PREACT := 11.2.0
HTM := 3.1.1

vendor:  ## Fetch the modules of the dashboard's pages again, and compare them with those that are kept; needs npm
	rm -rf $(FETCHED) && mkdir -p $(FETCHED)/preact $(FETCHED)/htm $(FETCHED)/kept
	cd $(FETCHED) && npm pack --silent preact@$(PREACT) htm@$(HTM) >/dev/null
	tar -xzf $(FETCHED)/preact-$(PREACT).tgz -C $(FETCHED)/preact && tar -xzf $(FETCHED)/htm-$(HTM).tgz -C $(FETCHED)/htm
	sed '/sourceMappingURL/d' $(FETCHED)/preact/package/dist/preact.mjs > $(FETCHED)/kept/preact.js
	sed -e 's#from"preact"#from"./preact.js"#' -e '/sourceMappingURL/d' \
		$(FETCHED)/preact/package/hooks/dist/hooks.mjs > $(FETCHED)/kept/hooks.js
	cp $(FETCHED)/htm/package/dist/htm.module.js $(FETCHED)/kept/htm.js
	for file in preact.js hooks.js htm.js; do \
		cmp $(FETCHED)/kept/$$file $(VENDOR)/$$file && \
		grep -q "$$file.*$$(sha256sum < $(FETCHED)/kept/$$file | cut -d' ' -f1)" $(VENDOR)/README.md || exit 1; \
	done
	@echo "the vendored modules are those of preact $(PREACT) and htm $(HTM)"

lint: $(STAMP)  ## Check style, types, the public types' completeness and the layers
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(PYRIGHT)
	$(PYRIGHT) --verifytypes jetflow --ignoreexternal
	$(BIN)/lint-imports

# The compiler is that of the SDK for TypeScript, so that there is one, and its lock.
lint-js: $(SDK_TS)/node_modules/.installed  ## Check the types of the dashboard's JavaScript; needs Node 20
	$(SDK_TS)/node_modules/.bin/tsc --project tests/dashboard/tsconfig.json

format: $(STAMP)  ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only $(LINTED)
	$(BIN)/ruff format $(LINTED)

# The project names itself in its dev extra; --unsafe-package keeps it, and so its path here, out of the lock.
lock:  ## Write requirements.lock again; ARGS="--upgrade" takes newer versions
	test -x $(LOCK_VENV)/bin/pip-compile || $(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install --quiet pip-tools==7.6.2
	$(LOCK_VENV)/bin/pip-compile --quiet --all-extras --strip-extras --unsafe-package jetflow-nats \
		--no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file requirements.lock $(ARGS) pyproject.toml

clean:  ## Remove the environment, caches and build products
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis $(SDK_TS)/dist $(SDK_TS)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
