# Everything here works on a fresh clone with nothing but a Rust toolchain.

.PHONY: run bots test check bench sim

## Run a realm on 127.0.0.1:5000.
run:
	cargo run --release -- serve

## Send twenty people into it.
bots:
	cargo run --release -- bots --count 20 --url http://127.0.0.1:5000

## Run every test.
test:
	cargo test --workspace

## What has to hold before a change lands, besides the tests.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

## Measure, beside yardsticks.
bench:
	cargo bench --workspace --benches

## A million random layouts, each of which must fall silent; about a quarter of an hour on two cores.
sim:
	cargo run --release -- sim --layouts 1000000
