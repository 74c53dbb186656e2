# `make` alone lists what a person may do here.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

GOLANGCI_LINT_VERSION := v2.15.0
# Tools are kept outside the tree, one folder for each version.
TOOLS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/noted/bin/$(GOLANGCI_LINT_VERSION)
FUZZTIME ?= 20s
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null)

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run everything on this machine: noted, its PostgreSQL, an OpenID provider with four people
	go run ./cmd/noted dev

.PHONY: build
build: ## Build bin/noted
	go build -trimpath $(if $(VERSION),-ldflags "-X main.version=$(VERSION)") -o bin/noted ./cmd/noted

.PHONY: test
test: lint ## Lint, then test the policy and all packages with the race detector
	go run ./cmd/noted policy test --coverage
	go run ./internal/localpg/withpg go test -race -count=1 -timeout=20m ./...

.PHONY: lint
lint: ## Check formatting, go vet and golangci-lint
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt these files:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	@$(find-golangci-lint); echo "$$lint run ./..."; "$$lint" run ./...

# golangci-lint of the right version: the one kept in TOOLS, the one of the machine, else it is
# fetched and built. Sets $lint.
define find-golangci-lint
lint=; for l in "$(TOOLS)/golangci-lint" "$$(command -v golangci-lint || true)" "$$(go env GOPATH)/bin/golangci-lint"; do \
	if [ -x "$$l" ] && "$$l" version 2>/dev/null | grep -qF "version $(GOLANGCI_LINT_VERSION:v%=%) "; then lint=$$l; break; fi; \
done; \
if [ -z "$$lint" ]; then \
	echo "fetching golangci-lint $(GOLANGCI_LINT_VERSION) into $(TOOLS)"; \
	GOBIN="$(abspath $(TOOLS))" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION) || \
		{ echo "golangci-lint $(GOLANGCI_LINT_VERSION) is not on this machine and cannot be fetched; is there a network?" >&2; exit 1; }; \
	lint="$(TOOLS)/golangci-lint"; \
fi
endef

.PHONY: model
model: ## Compare 100,000 random operations with the model of the authorization; SEED=n for a certain run
	go run ./internal/localpg/withpg go test -count=1 -timeout=60m -v -run=TheServerDecidesAsTheModel ./internal/server -model.operations=100000 -model.seed=$(or $(SEED),0)

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (20s)
	@grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | xargs -r -n1 dirname | sort -u | while read -r package; do \
		grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$package"/*_test.go | sed 's/^func //' | sort | while read -r target; do \
			echo "$$package $$target"; \
			go run ./internal/localpg/withpg go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$package" </dev/null; \
		done; \
	done

.PHONY: cover
cover: ## Test and write coverage.html
	go run ./internal/localpg/withpg go test -count=1 -coverpkg=./... -coverprofile=cover.out ./...
	go tool cover -html=cover.out -o coverage.html
	@go tool cover -func=cover.out | tail -1

.PHONY: timing
timing: ## Measure whether the time tells why authentication failed (three minutes)
	go run ./bench/timing

.PHONY: clean
clean: ## Remove what these targets made
	rm -rf bin cover.out coverage.html
