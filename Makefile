# `make test` checks everything.
# Only root can make network namespaces; anyone else goes through sudo.
SHELL := /bin/bash
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo -E env "PATH=$$PATH",)
CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help test setup lint unit clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## set-up, lint, and all tests, the end-to-end ones too
	@tests/host/phases.sh setup lint unit

setup: ## install what is missing
	@tests/host/setup.sh

lint: ## formatting and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features crn-agent/fault-points -- -D warnings

unit: ## all tests, without set-up and lint
	$(CARGO) test --workspace --features crn-agent/fault-points --no-fail-fast

clean: ## what was built here; the image cache stays
	$(CARGO) clean
