# The two that matter: `make run` shows the product, `make test` checks it.
# Only root can make network namespaces; anyone else goes through sudo.
SHELL := /bin/bash
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo -E env "PATH=$$PATH",)
CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

.DEFAULT_GOAL := help
.PHONY: help run test setup lint unit clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## from nothing to SSH in a virtual machine over its own IPv6; ONCE=1 ends by itself
	@tests/host/setup.sh --run
	@$(CARGO) build --package crn-agent --package tests --bins
	@$(SUDO) env CRN_TEST_AGENT=$(TARGET)/debug/crn-agent CRN_IMAGE=$${CRN_IMAGE:-auto} \
		$(TARGET)/debug/demo $(if $(ONCE),--once)

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
