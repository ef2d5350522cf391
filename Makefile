# Confine. `make help` lists what there is to do.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What git calls this commit; a release archive without git sets VERSION itself.
VERSION ?= $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null || echo devel)
BINARIES := confine confine-agent confine-controller
# libseccomp comes in by cgo; hack/build adds what a static binary needs.
TAGS := libseccomp
# Of tests that need a cluster of real nodes, or a kernel of another kind: no
# kernel has both.
TEST_TAGS := e2e,vm,reboot
LSM_TAGS := lsm_apparmor lsm_selinux

# What the container image is made for: make image IMAGE_ARCHES=amd64
IMAGE_ARCHES ?= amd64 arm64
IMAGE_BINARIES := confine confine-agent confine-controller

# Foreign programs, pinned in test/tools/<name>/go.mod.
TOOL := go run ./test/tools/cmd/tool
INTEROP_TOOLS := oras registry cosign3 cosign2
API_TOOLS := etcd kube/kube-apiserver kube/kubectl helm
CLUSTER_TOOLS := $(addprefix kube/,kube-controller-manager kube-scheduler kubelet) \
  $(addprefix node/,containerd containerd-shim-runc-v2 ctr runc bridge loopback host-local)

# Packages or flags for `make test`: make test PKGS=./pkg/node/... ARGS='-run Boot -v'
PKGS ?= ./...
ARGS ?=
# Packages of `make test-e2e`, whose tests have the build tag e2e.
E2E_PKGS ?= ./test/kube/cluster/... ./test/e2e/...
# The image that nodes of this machine run.
NODE_IMAGE = $(MAKE) image IMAGE_ARCHES=$$(go env GOHOSTARCH)
# Which checks of `make verify`; none named means all.
CHECKS ?=
FUZZTIME ?= 10s

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install the Debian packages that a build needs, where they are missing
	@hack/deps build

.PHONY: test-deps cluster-deps
test-deps:
	@hack/deps test

cluster-deps:
	@hack/deps cluster

.PHONY: build
build: deps ## Build the binaries in bin, static
	@mkdir -p bin
	@for binary in $(BINARIES); do \
	  VERSION=$(VERSION) hack/build "$$(go env GOOS)" "$$(go env GOARCH)" $$binary bin/$$binary; \
	done
	@ls -sh1 bin

.PHONY: tools
tools: ## Build the pinned programs that the tests run against
	@echo "tools: $(INTEROP_TOOLS) $(API_TOOLS) (built once; the first time takes minutes)"
	@$(TOOL) $(INTEROP_TOOLS) $(API_TOOLS) >/dev/null

.PHONY: tools-cluster
tools-cluster: cluster-deps ## Build the pinned programs that a cluster of real nodes is made of
	@echo "tools-cluster: $(CLUSTER_TOOLS) (built once; the first time takes minutes)"
	@$(TOOL) $(API_TOOLS) $(CLUSTER_TOOLS) >/dev/null

.PHONY: test
test: test-deps tools ## Vet and run all tests, those against real oras and cosign too
	go vet -tags $(TAGS) $(PKGS)
	go test -tags $(TAGS) -json $(ARGS) $(PKGS) | go run ./test/tools/cmd/testsum

.PHONY: test-interop
test-interop: test-deps tools ## Run only the tests against real oras, cosign and registry
	go test -tags $(TAGS) -json $(ARGS) ./test/interop/... | go run ./test/tools/cmd/testsum

.PHONY: test-e2e
test-e2e: test-deps tools-cluster ## Run the tests on clusters of real nodes, as root
	@$(NODE_IMAGE)
	@$(TOOL) registry >/dev/null
	go vet -tags $(TAGS),e2e $(E2E_PKGS)
	go test -tags $(TAGS),e2e -json -count 1 -p 1 -timeout 60m $(ARGS) $(E2E_PKGS) | go run ./test/tools/cmd/testsum -slow 2s

.PHONY: test-vm
test-vm: ## Run the tests on kernels that enforce AppArmor or SELinux, in virtual machines
	@hack/deps vm
	go run ./test/vm/cmd/vmrun test -json $(ARGS) | go run ./test/tools/cmd/testsum -none

.PHONY: race
race: test-deps tools ## Run all tests under the race detector
	go test -race -tags $(TAGS) -json $(ARGS) $(PKGS) | go run ./test/tools/cmd/testsum

.PHONY: fuzz
fuzz: deps ## Fuzz every target for FUZZTIME (10s) each
	@hack/fuzz $(TAGS) $(FUZZTIME)

.PHONY: lint
lint: deps ## Check style and import rules with golangci-lint, and the API types
	$$($(TOOL) lint) run --build-tags $(TAGS) ./...
	@for lsm in $(LSM_TAGS); do \
	  echo "lint with $(TEST_TAGS),$$lsm"; \
	  $$($(TOOL) lint) run --build-tags $(TAGS),$(TEST_TAGS),$$lsm ./test/... ./pkg/profile/...; \
	done
	@hack/lint-api

.PHONY: generate
generate: ## Write what is made from the API types and from the chart
	@hack/generate .
	@hack/render .

.PHONY: verify
verify: deps ## Check generated files, formatting, modules, documents and that dist is reproducible
	@hack/verify $(CHECKS)

.PHONY: bench
bench: build tools ## Compare pull+verify+install with its floor and with cosign + oras
	go run -tags $(TAGS) ./test/bench -bin $(CURDIR)/bin \
	  -cosign "$$($(TOOL) cosign3)" -oras "$$($(TOOL) oras)" $(ARGS)

.PHONY: bench-scale
bench-scale: build tools ## Measure 1,000 simulated nodes against a real API server
	go run -tags $(TAGS) ./test/scale -controller $(CURDIR)/bin/confine-controller $(ARGS)

.PHONY: demo
demo: build ## Show the main job: push, sign, pull, verify, install, enforce, refuse
	@go run -tags $(TAGS) ./test/demo $(CURDIR)/bin $(CURDIR)/examples

.PHONY: image
image: ## Build the container image bin/confine-image.tar, an OCI archive
	@hack/deps $(if $(filter-out $(shell go env GOHOSTARCH),$(IMAGE_ARCHES)),dist,build)
	@for arch in $(IMAGE_ARCHES); do \
	  mkdir -p bin/image/$$arch; \
	  for binary in $(IMAGE_BINARIES); do \
	    VERSION=$(VERSION) hack/build linux $$arch $$binary bin/image/$$arch/$$binary; \
	  done; \
	done
	@go run ./hack/image -version $(VERSION) -epoch "$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}" \
	  -out bin/confine-image.tar $(foreach arch,$(IMAGE_ARCHES),$(arch)=bin/image/$(arch))

.PHONY: cluster
cluster: tools-cluster ## Run three real nodes with Confine and examples/cluster, as root
	@$(NODE_IMAGE)
	@$(TOOL) registry >/dev/null
	@go run ./test/e2e/cmd/cluster

.PHONY: cluster-down
cluster-down: ## End that cluster and remove all that it left
	@go run ./test/kube/cmd/cluster down

.PHONY: dist
dist: ## Make release archives, checksums and SBOMs in dist/
	@hack/deps dist
	@VERSION=$(VERSION) hack/dist dist

.PHONY: clean
clean: ## Remove what was built in this folder
	rm -rf bin dist
