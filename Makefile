# `make` alone lists what a person may do here.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.9.0
# Another database of vulnerabilities than the public one: an address or file:///FOLDER.
GOVULNDB ?=
# Tools are kept outside the tree, one folder for each version.
TOOLS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/noted/bin/$(GOLANGCI_LINT_VERSION)
FUZZTIME ?= 20s
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null)

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run everything on this machine: noted, its PostgreSQL, an OpenID provider with ten people
	go run ./cmd/noted dev

.PHONY: build
build: ## Build bin/noted
	go build -trimpath $(if $(VERSION),-ldflags "-X main.version=$(VERSION)") -o bin/noted ./cmd/noted

# Most tests wait, for locks, timers, PostgreSQL and browsers: more of them at once than there are cores leaves no core
# idle. golangci-lint has run all of vet. By itself the race detector sleeps for a second at the end of each program.
AT_ONCE ?= -p 4 -parallel 6

.PHONY: test
test: lint ## Lint, then test the policy and all packages with the race detector; says how long each takes
	go run ./cmd/noted policy test --coverage
	go test -count=1 -vet=off ./authz
	GORACE=atexit_sleep_ms=50 go run ./internal/localpg/withpg go test -race -count=1 -vet=off -timeout=20m $(AT_ONCE) ./... | $(slowest-last)

# Passes on what go test prints, and then lists the packages again, the slowest last.
define slowest-last
awk '{ print; fflush() } ($$1 == "ok" || $$1 == "FAIL") && $$3 ~ /^[0-9.]+s/ { took[$$2] = $$3 + 0 } \
	END { print "\nseconds by package, several at once:"; for (p in took) printf "%8.1f %s\n", took[p], p | "sort -n" }'
endef

.PHONY: lint
lint: ## Check formatting, golangci-lint (with all of go vet), go.mod, and known vulnerabilities
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt these files:"; echo "$$unformatted"; exit 1; fi
	@$(find-golangci-lint); echo "$$lint run ./..."; "$$lint" run ./...
	@$(check-go-mod)
	@$(MAKE) --no-print-directory vuln

.PHONY: vuln
vuln: ## Look for known vulnerabilities that noted reaches, where their database can be
	@$(check-vulnerabilities)

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

# go mod tidy has to ask for modules that nothing here builds: without a network it cannot tell.
define check-go-mod
if ! out=$$(go mod tidy -diff 2>&1); then \
	case "$$out" in \
	*"diff current/"*) echo "$$out"; echo "go.mod or go.sum is not tidy; run go mod tidy"; exit 1 ;; \
	*) echo "go.mod is not checked: $${out##*$$'\n'}" ;; \
	esac; \
fi
endef

# The first, quick scan finds out whether the database can be reached. govulncheck exits with 3
# for what it found, with 1 for an error.
define check-vulnerabilities
vuln="$(abspath $(TOOLS))/govulncheck"; db="$(addprefix -db=,$(GOVULNDB))"; \
bound=$$(command -v timeout || command -v gtimeout || true); \
if ! go version -m "$$vuln" 2>/dev/null | grep -qE 'golang.org/x/vuln[[:space:]]+$(GOVULNCHECK_VERSION)\b' && \
	! GOBIN="$(abspath $(TOOLS))" $${bound:+"$$bound" 120} go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION); then \
	echo "vulnerabilities are not checked: govulncheck $(GOVULNCHECK_VERSION) is not on this machine and cannot be fetched"; exit 0; \
fi; \
code=0; out=$$($${bound:+"$$bound" 30} "$$vuln" $$db -scan=module 2>&1) || code=$$?; \
case "$$code $$out" in \
"0 "*|"3 "*) ;; \
"124 "*) echo "vulnerabilities are not checked: their database does not answer within 30 seconds"; exit 0 ;; \
*"fetching vulnerabilities: "*) echo "vulnerabilities are not checked, their database cannot be reached: $${out##*fetching vulnerabilities: }"; exit 0 ;; \
*) echo "$$out"; exit 1 ;; \
esac; \
echo "govulncheck ./..."; "$$vuln" $$db ./...
endef

.PHONY: model
model: ## Compare 100,000 random operations with the model of the authorization; SEED=n for a certain run
	go run ./internal/localpg/withpg go test -count=1 -timeout=60m -v -run=TheServerDecidesAsTheModel ./server -model.operations=100000 -model.seed=$(or $(SEED),0)

.PHONY: mutants
mutants: ## Put each fault into what decides, locks and confirms, and see that a test fails; ONLY=text for some
	go run ./internal/localpg/withpg go run ./bench/mutants -only=$(if $(ONLY),"$(ONLY)")

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
