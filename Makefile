# What people and machines run before a change is merged. `make` alone lists the targets.

.PHONY: help build test check deny bench-peers
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the program: target/release/cleandift
	cargo build --release --locked

test: ## run all tests; CLEANDIFT_TESTDATA=FOLDER adds those with larger data
	cargo test --workspace --locked

check: ## what must pass: format, lints, tests, documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

deny: ## licences and sources of the dependencies (cargo install cargo-deny --locked)
	cargo deny --locked check --hide-inclusion-graph bans licenses sources

PEERS ?=
bench-peers: build ## compare with other engines and write docs/performance.md; PEERS="--sizes 512x512 --rounds 3" for less
	python3 -m venv target/peers
	target/peers/bin/pip install --quiet -r benches/peers/requirements.txt
	target/peers/bin/python benches/peers/compare.py --write docs/performance.md $(PEERS)
