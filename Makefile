# What there is to do with this project. Each target installs what it needs on Debian, and says what it needs elsewhere.

# The lab's nodes need root; a person with sudo gives it to the programs that start them, and to nothing else.
runner := CARGO_TARGET_$(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')_RUNNER
ifneq ($(shell id -u),0)
as_root := sudo --preserve-env env PATH=$(PATH)
export $(runner) := $(as_root)
endif

# Enough for a Nix that nobody has set up: no build users, no network. Builds that wait for another one look every second.
# Whoever sets it knows better.
define plain_nix
build-users-group =
sandbox = false
substitute = false
experimental-features = nix-command flakes
build-poll-interval = 1
endef
export NIX_CONFIG ?= $(plain_nix)

# A test on lab nodes mostly waits: more of them at once than there are processors.
export RUST_TEST_THREADS ?= $(shell echo $$(( $$(nproc) * 2 )))

# What nodes with another systemd, OpenSSH and Nix (those of Debian 13) could change; the Nix side then also runs with that
# Nix. `make test-newer newer=switch::` plays the whole switch on them: what is left out here depends on our script alone.
newer := switch:: nix_copies:: managed:: shipping:: reconcile::a_commit_becomes_the_fleet \
  --skip switch::worst_case --skip switch::disturbed --skip switch::race --skip switch::scarcity

.PHONY: help build demo bench test test-newer fuzz faults simulate lint deps

help:
	@echo 'make demo         a fleet of three lab nodes, from the first commit to healed drift; KEEP=1 keeps it up'
	@echo 'make test         every test, those on lab nodes included'
	@echo 'make fuzz         feeds every parser to a fuzzer, SECONDS=60 each; needs a nightly Rust'
	@echo 'make faults       N=200 SEED=...: random merges and faults on five lab nodes, and what must hold all the same'
	@echo 'make simulate     N=1000000 FIRST=...: that many schedules of merges, faults and people, in made-up time; SEED=... replays one'
	@echo 'make bench        what it costs: evaluating up to 100 nodes, and the rest on 20 lab nodes, as tables'
	@echo 'make lint         formatting, clippy, shellcheck, promtool'
	@echo 'make build        the driftless binary, optimised'
	@echo 'make deps         installs what all of these need'

deps:
	@tests/deps.sh

build:
	@tests/deps.sh build
	cargo build --release --bin driftless

demo:
	@tests/deps.sh demo
	cargo build --bin driftless --example demo
	@KEEP=$(KEEP) cargo run --quiet --example demo

test:
	@tests/deps.sh test
	cargo test --workspace --no-fail-fast
	$(MAKE) --no-print-directory test-newer

test-newer:
	DRIFTLESS_LAB_BASE=debian13 cargo test -p driftless --test integration -- $(newer)
	DRIFTLESS_LAB_BASE=debian13 cargo test -p driftless-lab --test smoke
	$(runner)='$(strip $(as_root) $(CURDIR)/tests/with-debian13.sh)' cargo test -p driftless --test integration -- nix_library:: nix_formats::edges nix_formats::examples nix_programs:: shipping::a_ shipping::what

SECONDS ?= 60
fuzz:
	@tests/deps.sh fuzz
	@set -e; for target in $$(cargo fuzz list); do \
	  mkdir -p fuzz/target/found/$$target; \
	  cargo +nightly fuzz run $$target fuzz/target/found/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(SECONDS) -max_len=16384 -timeout=10 -rss_limit_mb=2048; \
	done

faults:
	@tests/deps.sh demo
	cargo build -p driftless --bin driftless
	@N=$(N) ROUND=$(ROUND) SEED=$(SEED) cargo run --quiet -p driftless-faults

# No lab and no root: nothing of it is real but what decides.
simulate:
	@$(if $(N),DRIFTLESS_SIMULATION_SCHEDULES=$(N)) $(if $(FIRST),DRIFTLESS_SIMULATION_FIRST=$(FIRST)) \
	  $(if $(SEED),DRIFTLESS_SIMULATION_SEED=$(SEED)) cargo test --quiet -p driftless-simulation -- --nocapture every_schedule

# Ends with code 0 also where a target is missed: a benchmark, not a test.
bench:
	@tests/deps.sh bench
	cargo bench --bench plan
	cargo bench --bench evaluation
	cargo bench --bench fleet

lint:
	@tests/deps.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --exclude driftless-simulation -- -D warnings
	cargo clippy -p driftless-simulation --test simulation -- -D warnings
	@tests/lint.sh
