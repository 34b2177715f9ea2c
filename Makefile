# SPDX-License-Identifier: Apache-2.0
# A thin front for meson, scripts/ and tests/. `make help` lists the targets.

BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
SECONDS ?= 600
BUDGET  ?= 60
N       ?= 50
CLONES  ?= $(if $(filter command line,$(origin N)),$(N),$(if $(filter clone-memory,$(MAKECMDGOALS)),100,64))
SEED    ?=
MINUTES ?= 10
FROM    ?=
JOBS    ?= $(shell nproc)
ARGS    ?=
T       ?=
COUNT   ?=
V       ?=

# A build tree runs as it is: scripts/env says where its parts are.
RUN = BUILD=$(BUILD) scripts/env

.PHONY: help all setup build image run test unit guests guests-sanitize integration escape kill-test load-test soak clone-test \
	generation-test clone-memory bench-host bench bench-boot bench-devices bench-clone picture install lint sanitize fuzz fuzz-nightly fuzz-budget fuzz-coverage cross clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

all: build

setup: ## install the missing Debian packages (all that `make test` needs)
	@scripts/setup test

$(BUILD)/build.ninja:
	@echo "meson setup $(BUILD)"
	@meson setup $(BUILD) --prefix=$(PREFIX) $(MESON_ARGS) >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@rm $(BUILD).log

build: ## compile, warnings are errors
	@scripts/setup run
	@$(MAKE) --no-print-directory -s $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j $(JOBS) --quiet

image: build ## build the base image unless it is there
	@$(RUN) ironclaw image build base

run: image ## run a program in a VM: make run ARGS="-- uname -a"
	@$(RUN) scripts/run $(ARGS)

test: ## everything CI runs; one test: make test T=name
	@scripts/setup test
	@$(MAKE) --no-print-directory -s $(BUILD)/build.ninja
	@$(RUN) tests/run.py $(if $(V),-v) $(if $(T),-k '$(T)') --build $(BUILD)

unit: build ## unit tests and fuzz corpora only
	@$(RUN) tests/run.py $(if $(T),-k '$(T)') --build $(BUILD) unit

guests: build ## bare-metal guests in our own monitor on /dev/kvm; T=name for one
	@$(RUN) tests/run.py $(if $(V),-v) $(if $(T),-k '$(T)') --build $(BUILD) guests

guests-sanitize: ## the same under ASan and UBSan, then under TSan
	@scripts/setup dev
	@for kind in asan:address,undefined tsan:thread; do build=$(BUILD)-$${kind%%:*}; \
		[ -e $$build/build.ninja ] || CC=clang meson setup $$build -Db_sanitize=$${kind#*:} -Db_lundef=false \
		>$$build.log 2>&1 || { cat $$build.log; exit 1; }; rm -f $$build.log; \
		tests/run.py $(if $(T),-k '$(T)') --build $$build guests || exit 1; done

integration escape: image ## only these tests; T=name for one
	@$(RUN) tests/run.py $(if $(V),-v) $(if $(T),-k '$(T)') --build $(BUILD) $@

kill-test: image ## kill -9 of a random process at a random moment of N=50 runs; SEED= to repeat one, FROM= its first round
	@IRONCLAW_TEST_KILLS=$(N) IRONCLAW_TEST_SEED=$(SEED) IRONCLAW_TEST_KILLS_FROM=$(FROM) $(RUN) tests/run.py -v --build $(BUILD) -k kill_at_random integration

load-test: image ## MINUTES=10 of eight VMs, five of which do their worst: what the others notice
	@IRONCLAW_TEST_MINUTES=$(MINUTES) $(RUN) tests/run.py --build $(BUILD) -k load/mixed load

clone-test: image ## N=64 clones of a template, on a real KVM and with QEMU: no two have a secret in common
	@IRONCLAW_TEST_CLONES=$(CLONES) $(RUN) tests/bench-host/run --build $(BUILD) --timeout 7200 -k integration/clones integration
	@IRONCLAW_TEST_CLONES=$(CLONES) $(RUN) tests/run.py --build $(BUILD) --backend qemu -k integration/clones integration

clone-memory: image ## N=100 clones alive at once: what one more of them takes; bare-metal guests here, Linux on a real KVM
	@IRONCLAW_TEST_CLONES=$(CLONES) $(RUN) tests/run.py --build $(BUILD) -k guests/clone_memory guests
	@IRONCLAW_TEST_CLONES=$(CLONES) $(RUN) tests/bench-host/run --build $(BUILD) --timeout 7200 --memory 6144 -k load/clone_memory load

generation-test: image ## a kernel with the driver of VM generation ids notices that it is a copy, on a real KVM
	@IRONCLAW_TEST_VMGENID_KERNEL=$$(scripts/debian-kernel $(BUILD)/debian-kernel) \
		$(RUN) tests/bench-host/run --build $(BUILD) -k generation. integration

soak: image ## N=50 rounds of the integration and escape tests, until one fails
	@for i in $$(seq $(N)); do echo "round $$i of $(N)"; \
		$(RUN) tests/run.py $(if $(T),-k '$(T)') --build $(BUILD) integration escape || exit 1; done

bench-host: image ## the tests on a real KVM, all of them or T=name; or a command: ARGS="-- ironclaw doctor"
	@scripts/setup test
	@$(RUN) tests/bench-host/run --build $(BUILD) $(if $(V),-v) $(if $(T),-k '$(T)') $(if $(T)$(ARGS),$(ARGS),--matrix)

bench-boot: image ## ironclaw-vmm beside QEMU (and its other peers, if you have them), on a real KVM
	@scripts/setup test
	@$(RUN) bench/boot.py --build $(BUILD) --prepare $(ARGS)
	@$(RUN) tests/bench-host/run --build $(BUILD) $(if $(COUNT),--count) -- bench/boot.py --build $(BUILD) $(ARGS)

bench-devices: image ## its vsock and block device beside QEMU's, on a real KVM
	@scripts/setup test
	@$(RUN) bench/devices.py --build $(BUILD) --prepare $(ARGS)
	@$(RUN) tests/bench-host/run --build $(BUILD) $(if $(COUNT),--count) -- bench/devices.py --build $(BUILD) $(ARGS)

bench-clone: image ## starts cold, from a template and from a pool: our monitor on a real KVM, then QEMU here
	@scripts/setup test
	@$(RUN) bench/clone.py --build $(BUILD) --prepare $(ARGS)
	@$(RUN) tests/bench-host/run --build $(BUILD) $(if $(COUNT),--count) --timeout 7200 -- bench/clone.py --build $(BUILD) \
		--backend ironclaw $(ARGS)
	@$(RUN) bench/clone.py --build $(BUILD) --backend qemu $(ARGS)

bench: image ## ratios, medians of one interleaved run
	@$(RUN) bench/bench.py --build $(BUILD) $(ARGS)

picture: image ## record docs/picture.svg anew
	@$(RUN) scripts/picture docs/picture.svg

install: build ## PREFIX=/usr/local, DESTDIR=
	@[ "$$(meson introspect $(BUILD) --buildoptions | python3 -c \
		'import json,sys; print(*(o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"))')" = "$(PREFIX)" ] \
		|| meson configure $(BUILD) -Dprefix=$(PREFIX)
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --quiet
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" != 0 ] || ldconfig # so that other programs find the library

lint: ## clang-format, clang-tidy, clang build, shellcheck
	@scripts/setup dev
	@BUILD=$(BUILD)-clang scripts/lint

sanitize: ## ASan and UBSan build, unit tests, fuzz corpora
	@scripts/setup dev
	@[ -e $(BUILD)-asan/build.ninja ] || CC=clang meson setup $(BUILD)-asan -Db_sanitize=address,undefined -Db_lundef=false
	@ninja -C $(BUILD)-asan -j $(JOBS) --quiet
	@UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 tests/run.py --build $(BUILD)-asan unit

fuzz: ## one target under libFuzzer: make fuzz T=wire SECONDS=600
	@scripts/setup dev
	@scripts/fuzz one '$(T)' $(SECONDS)

fuzz-nightly: ## every target for its share of BUDGET=60 minutes; T=name for one; keeps what reaches new code
	@scripts/setup dev
	@scripts/fuzz nightly $(BUDGET) $(T)

fuzz-budget: ## minutes without a finding of each target since what it is for last changed; status 1: less than 30
	@scripts/fuzz budget $(T)

fuzz-coverage: ## lines that the corpora reach; T=name for one
	@scripts/setup dev
	@scripts/fuzz coverage $(T)

cross: ## compile library and CLI for Windows
	@scripts/setup test
	@tests/run.py --build $(BUILD) cross

clean: ## remove the build trees, not the images
	@rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-clang build-fuzz build-coverage $(BUILD)-mingw
