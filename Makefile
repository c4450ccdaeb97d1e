# What people and machines run before a change is merged. `make` alone lists the targets.

.PHONY: help build test check deny fuzz valgrind bench-peers claim eval-small
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

FUZZ ?= 20000000
fuzz: ## mutate files and words against every parser; FUZZ=N executions each (default 20 million; of files and pictures a hundredth)
	CLEANDIFT_FUZZ=$(FUZZ) cargo test --release --package cleandift --test fuzz --locked -- --nocapture
	PROPTEST_CASES=$(FUZZ) cargo test --release --package cleandift-cli --bin cleandift --locked -- match_points

# Sanitizers need a nightly compiler as of Rust 1.95. Valgrind has no AVX-512 and says so to the
# program: the AVX2 and portable kernels run, and arrays of AVX-512's sizes. Comparing bits on
# several numbers of threads would take longer than all the rest.
VALGRIND = valgrind --quiet --error-exitcode=1 --num-callers=20
valgrind: ## look for memory errors in the kernels (some minutes; Linux on x86-64, valgrind)
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(VALGRIND)" PROPTEST_CASES=3 RAYON_NUM_THREADS=2 \
		cargo test --package cleandift-kernels --lib --locked -- --skip same_bits --test-threads=1

PEERS ?=
bench-peers: build ## compare with other engines and write docs/performance.md; PEERS="--sizes 512x512 --rounds 3" for less
	python3 -m venv target/peers
	target/peers/bin/pip install --quiet -r benches/peers/requirements.txt
	target/peers/bin/python benches/peers/compare.py --write docs/performance.md $(PEERS)

EVAL ?= --model random
eval-small: build ## run every evaluation on the small data sets in CLEANDIFT_TESTDATA; EVAL="--model DIR" for a model
	python3 benches/eval/small_sets.py target/release/cleandift "$(CLEANDIFT_TESTDATA)/data" target/eval $(EVAL)

BASE ?= tiny-base
CLEAN ?= tiny
CLAIM ?=
claim: build ## test the paper's claim and write docs/claim.md; BASE=DIR CLEAN="PATH PATH PATH" DATA=DIR, CLAIM="--dry-run" for the plan
	target/release/cleandift eval claim --base "$(BASE)" --clean $(CLEAN) --data "$(DATA)" -o target/claim $(CLAIM)
	test ! -f target/claim/claim.md || { mkdir -p docs/claim && cp target/claim/claim.md docs/ && cp target/claim/claim/*.svg docs/claim/; }
