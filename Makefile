# What people and machines run before a change is merged. `make` alone lists the targets.

.PHONY: help build test check deny
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
