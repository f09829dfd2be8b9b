# Everything here works on a fresh clone with only a Rust toolchain; the tests install nats-server.

.PHONY: run cluster bots test check bench sim fuzz failures rolling presence-load attacks golden docs mixed livekit-figures mesh-figures nat

## Run a realm on 127.0.0.1:5000.
run:
	cargo run --release -- serve

## Run a realm of seven processes over NATS, on ports from 5000 on.
cluster:
	scripts/needs
	cargo build --release
	scripts/cluster

## Run twenty bots in it.
bots:
	cargo run --release -- bots --count 20 --url http://127.0.0.1:5000

## Run every test.
test:
	scripts/needs
	cargo test --workspace

## The checks that a change must pass, besides the tests: format, lints, rustdoc, wording, purity of crates, dependencies.
check:
	scripts/needs cargo-deny
	scripts/prose
	scripts/pure
	target/tools/bin/cargo-deny check bans licenses sources
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

## Kill, freeze and restart the processes of a realm, RUNS times each; twenty minutes for ten.
RUNS ?= 10
FAILURE_TABLE = $(CURDIR)/target/failures.txt
failures:
	scripts/needs
	mkdir -p target && rm -f $(FAILURE_TABLE)
	ATOLL_FAILURE_RUNS=$(RUNS) ATOLL_FAILURE_TABLE=$(FAILURE_TABLE) \
		cargo test --workspace --test e2e -- failures; code=$$?; cat $(FAILURE_TABLE); exit $$code

## Stop and start every process of a realm, one after the other, under BOTS bots.
BOTS ?= 500
rolling:
	scripts/needs
	ATOLL_ROLLING_BOTS=$(BOTS) cargo test --release --workspace --test e2e -- rolling --nocapture

## Times and errors on real LiveKit servers, with SAMPLES peers each.
SAMPLES ?= 40
livekit-figures:
	scripts/needs
	ATOLL_LIVEKIT_FIGURES=$(SAMPLES) cargo test --release --workspace --test e2e -- \
		livekit_rooms::figures livekit_rooms::proxy livekit_with_a_slow_api --nocapture --test-threads 1

## Loss, latency and load of peer-to-peer meshes beside rooms; seven minutes.
mesh-figures:
	scripts/needs
	cargo test --release --workspace --test e2e -- --ignored --nocapture --test-threads 1 mesh::figures

## How messages travel between members behind NATs, for each pair of five kinds: the table of docs/p2p.md; two minutes.
nat:
	scripts/needs
	ATOLL_NAT_MATRIX=1 cargo test --workspace --test e2e -- nat::all_pairs_of_nats --nocapture

## Rewrite the golden files in tests/golden from this build. Then add an entry to CHANGELOG.md, and the
## lines that the last test prints to tests/golden/CHANGES.
GOLDEN_TESTS = --workspace --test e2e --test descriptors
golden:
	scripts/needs
	ATOLL_GOLDEN=write cargo test $(GOLDEN_TESTS) -- inventory:: descriptors_ --skip golden_files_have_
	cargo test $(GOLDEN_TESTS) -- inventory::changes

## Rewrite the tables of docs/configuration.md and docs/metrics.md from the code.
docs:
	ATOLL_GOLDEN=write cargo test --workspace --bin atoll -- reference_matches_the_

## The rolling restart with two builds: this one on half of the processes, and that of the git ref BEFORE on the
## others. Each process restarts into the other build, and back. BEFORE is the last commit if the work tree has
## changes, else the one before it. MIXED_PROFILE is the profile of Cargo for both builds.
BEFORE ?= $(shell git diff --quiet HEAD && echo HEAD~1 || echo HEAD)
MIXED_PROFILE ?= release
mixed:
	scripts/needs
	ATOLL_ROLLING_BOTS=$(BOTS) scripts/mixed "$(BEFORE)" "$(MIXED_PROFILE)"

## Run the benchmarks, each beside a baseline.
bench:
	cargo bench --workspace --benches

## Measure the latency in a room while 32 readers poll presence in a loop; three minutes.
presence-load:
	scripts/needs
	cargo test --release --workspace --test e2e -- --ignored --nocapture room_latency_under_presence_readers

## Measure the latency in a room while one client attacks the process, attack by attack; ten minutes.
attacks:
	scripts/needs
	cargo test --release --workspace --test e2e -- --ignored --nocapture room_latency_under_attack

## The property tests of the engine with ten times as many worlds, then a million random layouts, each
## of which must become stable; about twenty minutes on two cores.
sim:
	ATOLL_SIM_FACTOR=10 cargo test -p archipelago --tests
	cargo run --release -- sim --layouts 1000000

## Fuzz each parser of untrusted input, for FUZZ_SECONDS each; needs a C++ compiler.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= rpc topics chains fetch ethereum frames
FUZZ_HOST = $(shell rustc --version --verbose | sed -n 's/^host: //p')
# The compiler flags of cargo-fuzz, without the sanitizers, which need a nightly compiler.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1
fuzz:
	cd fuzz && CARGO_TARGET_DIR=target RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --release --target $(FUZZ_HOST)
	cd fuzz && for target in $(FUZZ_TARGETS); do \
		mkdir -p corpus/$$target artifacts/$$target && \
		target/$(FUZZ_HOST)/release/$$target corpus/$$target -artifact_prefix=artifacts/$$target/ \
			-max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; \
	done
