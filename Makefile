# The two that matter: `make run` shows the product, `make test` checks it.
# Only root can make network namespaces; anyone else goes through sudo.
SHELL := /bin/bash
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo -E env "PATH=$$PATH",)
CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# One set of features for lint and tests: nothing is compiled twice. The fault points of the agent
# sleep until a test names one.
FEATURES := --features tests/fault-points
# Each fuzz target runs so long.
SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help run test check setup lint deny images unit web release bench fuzz clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## from nothing to SSH in a virtual machine over its own IPv6; ONCE=1 ends by itself
	@tests/host/setup.sh --run
	@$(CARGO) build --package crn-agent --package tests --bins
	@$(SUDO) env CRN_TEST_AGENT=$(TARGET)/debug/crn-agent CRN_IMAGE=$${CRN_IMAGE:-auto} \
		$(TARGET)/debug/demo $(if $(ONCE),--once)

test: ## set-up, lint, and all tests, the end-to-end ones too
	@tests/host/phases.sh setup lint deny images unit web

check: lint ## lint and all tests that need no root, no QEMU and no network
	@tests/host/unit.sh check --workspace $(FEATURES)

setup: ## install what is missing
	@tests/host/setup.sh

lint: ## formatting and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace $(FEATURES) --all-targets -- -D warnings

deny: ## licences, duplicates and advisories of the dependencies
	@CARGO="$(CARGO)" tests/host/deny.sh

images: ## the guest image of the end-to-end tests
	@tests/images/build-debian.sh

unit: ## all tests, without set-up and lint
	@$(SUDO) env CARGO="$(CARGO)" CRN_TEST_AGENT=$(TARGET)/debug/crn-agent \
		tests/host/unit.sh default --workspace $(FEATURES)

# With the features of the tests, so that what `unit` has compiled serves.
web: ## the verifier's page, built and driven in a browser
	@$(SUDO) env CARGO="$(CARGO)" sev-attest/web/test.sh --workspace $(FEATURES)

release: ## the programs as they are shipped, their debug information beside them
	$(CARGO) build --release --package crn-agent --package sev-attest --bins
	@tests/host/strip.sh $(TARGET)/release crn-agent sev-attest

bench: ## all benchmarks, written to docs/benchmarks.md
	@tests/host/setup.sh --bench
	$(CARGO) build --release --package sev-attest
	@$(SUDO) tests/host/bench.sh

fuzz: ## each fuzz target for SECONDS=60; needs cargo-fuzz and a nightly toolchain
	cd tests && for target in $$($(CARGO) fuzz list); do \
		$(CARGO) +nightly fuzz run "$$target" -- -max_total_time=$(SECONDS) || exit; done

clean: ## what was built here; the image cache stays
	$(CARGO) clean
