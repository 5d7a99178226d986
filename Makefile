# Targets, in the order in which a newcomer needs them:
#   make deps       install Debian's packages that are missing (root or sudo) and check Go
#   make build      bin/rbd-warden, and bin/rbd-mirror as another name for it
#   make demo       watch it mirror an image between two throwaway clusters
#   make test       everything: unit tests, then live tests on throwaway Ceph clusters (under 30 minutes)
#   make bench      it and rbd-mirror side by side: figures
#   make lint fmt   what continuous integration checks, and what mends the half of it

SHELL := /bin/bash
.DEFAULT_GOAL := build

GO ?= go
# go-ceph is compiled for the Ceph release whose headers are installed.
TAGS ?= $(shell scripts/ceph-release)
ifeq ($(strip $(TAGS)),)
TAGS := pacific
endif
comma := ,
space := $(subst ,, )
tags = -tags $(subst $(space),$(comma),$(strip $(TAGS) $(1)))

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOLANGCI_VERSION := v2.15.0
GOLANGCI := .build/golangci-lint-$(GOLANGCI_VERSION)

# Packages that compile without Ceph's headers: all that do not reach go-ceph. With the headers: all.
ifneq ($(wildcard /usr/include/rbd/librbd.h),)
UNIT_PACKAGES = ./...
else
UNIT_PACKAGES = $(shell $(GO) list $(call tags) -f '{{.ImportPath}} {{join .Deps ","}} {{join .TestImports ","}}' ./... | \
	grep -v ceph/go-ceph | cut -d' ' -f1)
endif

# Packages with tests that need real clusters.
LIVE_PACKAGES = $(shell grep -rl --include='*_test.go' '^//go:build live' --exclude-dir=.build . | xargs -r -n1 dirname | sort -u)
LONG_PACKAGES = $(shell grep -rlE --include='*_test.go' '^//go:build (.*[^!])?long' --exclude-dir=.build . | xargs -r -n1 dirname | sort -u)

.PHONY: deps
deps:
	scripts/deps

.PHONY: build
build:
	$(GO) build $(call tags) -ldflags '-X main.version=$(VERSION)' -o bin/rbd-warden ./cmd/rbd-warden
	ln -sf rbd-warden bin/rbd-mirror

.PHONY: demo
demo: deps build
	bin/rbd-warden demo

.PHONY: test
test: deps test-unit test-live

# Needs no Ceph daemon, and Ceph's headers only for the packages above librados.
.PHONY: test-unit
test-unit:
	$(GO) test $(call tags) -timeout 10m $(UNIT_PACKAGES)

.PHONY: test-live
test-live: build
	scripts/with-cluster $(GO) test $(call tags,live) -count 1 -p 2 -parallel 3 -timeout 60m $(if $(RUN),-run '$(RUN)') $(if $(V),-v) $(LIVE_PACKAGES)

ifneq ($(LONG_PACKAGES),)
# What takes longer than a developer's patience: not part of make test.
.PHONY: test-long
test-long: build
	scripts/with-cluster $(GO) test $(call tags,live long) -count 1 -p 1 -timeout 3h $(if $(RUN),-run '$(RUN)') -v $(LONG_PACKAGES)
endif

# Faults of every kind at random against daemons of two workers on both sites, for DURATION; SEED=N repeats a run's sequence
# of operations and faults. It says in the end what was done, how long images took to be replayed again, and how much memory
# the processes had. The log of a run that fails stays, and its name is printed.
DURATION ?= 1h
WORKERS ?= 2
.PHONY: soak
soak: build
	$(GO) test $(call tags,live) -count 1 -v -timeout 0 -run TestRandom ./test/random \
		-duration $(DURATION) -seed $(or $(SEED),0) -workers $(WORKERS)

# The simulation: SEED=N repeats one run and prints its trace; without it, runs of random seeds for DURATION (10m).
.PHONY: sim
sim:
ifneq ($(SEED),)
	$(GO) test -count 1 -v -run 'TestSimulation$$' ./test/sim -seed $(SEED)
else
	$(GO) test -count 1 -v -timeout 0 -run 'TestSimulation$$' ./test/sim -duration $(if $(filter command environment,$(origin DURATION)),$(DURATION),10m)
endif

# The same for the simulation of a site of several members.
.PHONY: sim-site
sim-site:
ifneq ($(SEED),)
	$(GO) test -count 1 -v -run 'TestSite$$' ./test/sim/site -seed $(SEED)
else
	$(GO) test -count 1 -v -timeout 0 -run 'TestSite$$' ./test/sim/site -duration $(if $(filter command environment,$(origin DURATION)),$(DURATION),10m)
endif

# Guards taken out of the product, one after the other: the simulations have to miss each.
.PHONY: sim-mutants
sim-mutants:
	$(GO) test -count 1 -v -timeout 0 -tags long -run TestMutants ./test/sim ./test/sim/site

# Our daemon and Debian's rbd-mirror side by side: BENCH=drain,lag picks cases or groups of them, ROUNDS their turns, and
# SCALE=small does less work, SIDES=rbd-warden lets only that one run. OUT keeps records, the table and the plots, of earlier runs' cases, too. See docs/benchmarks.md.
BENCH ?= all
ROUNDS ?= 3
SCALE ?= full
OUT ?= bin/bench
.PHONY: bench
bench: build
	$(GO) test $(call tags,live long) -count 1 -v -timeout 0 -run 'TestBench$$' ./test/bench \
		-cases '$(BENCH)' -rounds $(ROUNDS) -sides '$(SIDES)' -scale $(SCALE) -out '$(abspath $(OUT))' -ours '$(VERSION)'

.PHONY: test-race
test-race:
	$(GO) test $(call tags) -race -timeout 20m $(UNIT_PACKAGES)

# Each fuzz target in turn, for FUZZTIME.
FUZZTIME ?= 20s
.PHONY: fuzz
fuzz:
	@set -e; grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | while IFS=: read -r file func; do \
		target=$${func#func }; echo "== $$(dirname $$file) $$target"; \
		$(GO) test $(call tags) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$(dirname $$file) </dev/null; \
	done

$(GOLANGCI):
	GOBIN=$(CURDIR)/.build $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv .build/golangci-lint $@

.PHONY: lint
lint: $(GOLANGCI)
	$(GOLANGCI) run --build-tags $(subst $(space),$(comma),$(strip $(TAGS) live long))

.PHONY: fmt
fmt:
	gofmt -w $$(git ls-files '*.go')

# Regenerates Go from proto/; generated code is committed. Needs Debian's protobuf-compiler.
.PHONY: proto
proto:
	$(GO) generate ./proto/...

.PHONY: clean
clean:
	rm -rf bin .build
