# Two commands for everybody: `make demo` and `make test`. `make help` lists the others.
CARGO ?= cargo
TARGET_DIR := $(shell $(CARGO) metadata --format-version 1 --no-deps 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
PREFIX ?= /usr/local
RELEASE := $(TARGET_DIR)/release
DEBUG := $(TARGET_DIR)/debug
# Tests that start daemons mostly wait.
TEST_THREADS ?= $(shell expr $$(nproc) + 1)

.PHONY: help build demo test test-drawn model bench install clean fuzz test-faults test-bag-faults

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

build: ## the release binary and the C library
	$(CARGO) build --release --locked -p mutirao-cli -p mutirao-capi

demo: build ## a pool of four nodes on this machine draws a Mandelbrot picture in C
	./examples/demo.sh "$(RELEASE)" $(DEMO_ARGS)

test: ## every test, also those that start real daemons (some minutes)
	$(CARGO) build --workspace --locked
	MUTIRAO_BIN="$(DEBUG)/mutirao" RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --workspace --locked

test-drawn: ## the property tests, each with thousands of cases never drawn before (PROPTEST_RNG_SEED replays them)
	seed=$${PROPTEST_RNG_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; echo "PROPTEST_RNG_SEED=$$seed"; \
	  PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=$${PROPTEST_CASES:-1024} $(CARGO) test --workspace --lib --locked

model: ## the attach rule, every order of events within wider bounds (minutes, some GiB)
	$(CARGO) test --release --locked -p mutirao-tree --lib model -- --ignored

test-faults: ## some 200 faults in real pools: kills, cuts, stops; seeded (MUTIRAO_FAULTS_SEED replays one)
	$(CARGO) build --locked -p mutirao-cli -p mutirao-test-program
	MUTIRAO_BIN="$(DEBUG)/mutirao" $(CARGO) test --locked -p mutirao-cli --test faults -- --ignored --nocapture --test-threads 1

test-bag-faults: ## 100 bags over which whatever keeps them is killed; seeded (MUTIRAO_BAG_FAULTS_SEED replays one)
	$(CARGO) build --locked -p mutirao-cli
	MUTIRAO_BIN="$(DEBUG)/mutirao" $(CARGO) test --locked -p mutirao-cli --test bag_faults -- --ignored --nocapture --test-threads 1

bench: build ## figures of this machine, each beside its floor
	$(RELEASE)/mutirao bench call
	$(RELEASE)/mutirao bench channel
	$(RELEASE)/mutirao bench alloc

install: build ## binary, library, header, pkg-config file, man page, completions, below PREFIX
	./contrib/install.sh "$(RELEASE)" "$(DESTDIR)$(PREFIX)" "$(PREFIX)"

fuzz: ## each fuzz target for a minute (needs a nightly toolchain and cargo-fuzz)
	cd fuzz && for target in $$(cargo +nightly fuzz list); do \
	  cargo +nightly fuzz run $$target -- -max_total_time=60 || exit 1; done

clean: ## what was built
	$(CARGO) clean
