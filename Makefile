# The two commands to know: `make demo` shows what davit does, `make test` runs the tests.
# Every step installs what it needs (scripts/setup) and works on a fresh Debian 12.
SHELL := /bin/bash
JOBS ?= $(shell nproc)
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: build test zot check demo bench interop fuzz asan tsan csi-sanity install clean

build:  ## Release binaries in build/release/bin/
	@scripts/setup build
	@scripts/quiet "configure release" cmake --preset release
	@scripts/quiet "build release" cmake --build build/release -j$(JOBS) --target davit davitd davit-csi davit-csi-client fake-registry $(BUILD_ALSO)

test:  ## All tests that need no cluster
	@scripts/setup build test zot
	@scripts/quiet "configure dev" cmake --preset dev
	@scripts/quiet "build dev" cmake --build build/dev -j$(JOBS)
	@if DAVIT_ZOT=$$(tests/support/zot/build); then export DAVIT_ZOT; else unset DAVIT_ZOT; fi; \
	  code=0; ctest --test-dir build/dev --output-on-failure -j$(JOBS) --timeout 300 || code=$$?; \
	  [ -n "$${DAVIT_ZOT:-}" ] || echo "=== zot was NOT tested: \`make zot\` says why; DAVIT_ZOT=/path/to/zot names one that is there"; \
	  exit $$code

zot:  ## The registry zot, which the tests talk to
	@scripts/setup zot
	@tests/support/zot/build

check:  ## Format, layers, headers, sizes, wrappers, docs; clang-tidy on what changed
	@scripts/setup build check
	@scripts/check

demo: build  ## From an ordinary image to a lazily mounted volume, without a cluster
	@scripts/setup demo
	@scripts/demo $(DEMO_ARGS)

bench: BUILD_ALSO = bench_floor
bench: build  ## Figures against the peers; see docs/benchmarks.md
	@scripts/setup bench
	@tests/bench/run

interop: build  ## Images of the real nydus tools here, images of ours there
	@scripts/setup bench test
	@tests/interop/run

fuzz:  ## SECONDS_EACH=60 for every fuzz target
	@scripts/setup build fuzz
	@scripts/fuzz $(or $(SECONDS_EACH),60)

asan:  ## Unit and integration tests under ASan, LSan and UBSan; MOUNTS=1: all tests
	@scripts/setup build test fuzz
	@MOUNTS="$(MOUNTS)" scripts/sanitize asan "$(TESTS)"

tsan: build  ## Cache, scheduler, FUSE and daemon under TSan
	@scripts/setup test fuzz
	@scripts/sanitize tsan "$(TESTS)"

csi-sanity: build  ## Kubernetes' own CSI tests against davit-csi
	@scripts/setup csi-sanity
	@tests/interop/csi_sanity/run

install: build  ## make install DESTDIR=/some/root
	@DESTDIR="$(DESTDIR)" cmake --install build/release --prefix /usr

clean:
	rm -rf build
