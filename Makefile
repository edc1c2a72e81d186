# zoidfs. `make run` shows the system at work, `make test` proves it.

GO        ?= go
PREFIX    ?= /usr/local
SBINDIR   ?= /sbin
DESTDIR   ?=
RUNDIR    ?= zoidfs-run
FUZZTIME  ?= 10s
VERSION   := $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)
LDFLAGS   := -X main.version=$(VERSION)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Packages are tested three at a time, as they often wait, and so are whole systems.
# Tests that start those are never answered from go's cache, which does not know the
# binary that they build.
SYSTEM := ./cmd/zoidfs/... ./internal/systest/...

# Debian packages whose programs the tests run.
TEST_PACKAGES := attr fio fuse3 gcc git hdf5-tools libc6-dev libhdf5-mpich-dev libhdf5-openmpi-dev \
	libmpich-dev libopenmpi-dev libpnetcdf-dev mpich munge openmpi-bin pnetcdf-bin python3 rsync slurm-wlm sqlite3 \
	tar util-linux

# Whether the kernel offers it.
IO_URING := /sys/module/fuse/parameters/enable_uring

.PHONY: all build run test test-orangefs test-packages bench check fmt vet lint arch fuzz gen clean install

all: build

build:
	$(GO) build -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/zoidfs ./cmd/zoidfs

run: build
	bin/zoidfs demo --dir $(RUNDIR)

test: test-packages
	$(GO) test -race -timeout 10m -p 3 $$($(GO) list ./... | grep -v -e /cmd/zoidfs -e /internal/systest)
	$(GO) test -race -count=1 -timeout 20m -p 1 -parallel 3 $(SYSTEM)

# The client alone and a whole system, on a file system of others that is
# running: make test-orangefs PVFS2_TEST=tcp://HOST:PORT/FSNAME. Both work in a
# directory of their own, which they remove; see docs/pvfs2.md.
test-orangefs:
	@if [ -z "$(PVFS2_TEST)" ]; then \
		echo "which file system? make test-orangefs PVFS2_TEST=tcp://HOST:PORT/FSNAME" >&2; exit 1; \
	fi
	PVFS2_TEST=$(PVFS2_TEST) $(GO) test -count=1 -timeout 10m -run '^TestExternal$$' ./pvfs
	PVFS2_TEST=$(PVFS2_TEST) $(GO) test -count=1 -timeout 20m -run '^TestExternal$$' ./internal/systest

# As root, have the kernel offer FUSE over io_uring, if it can, and on Debian install
# what is missing; everybody else's tests say what they skip.
test-packages:
	@if [ -w $(IO_URING) ]; then echo Y > $(IO_URING) || true; fi
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		missing=; \
		for p in $(TEST_PACKAGES); do \
			dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
		done; \
		if [ -n "$$missing" ]; then \
			echo "installing$$missing"; \
			export DEBIAN_FRONTEND=noninteractive; \
			apt-get update -q && apt-get install -q -y --no-install-recommends $$missing; \
		fi; \
	fi

bench: build
	$(GO) run ./internal/bench

check: fmt vet lint build arch

fmt:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$bad" ]; then echo "gofmt would change:"; echo "$$bad"; exit 1; fi

vet:
	$(GO) vet ./...

lint:
	$(GO) run $(STATICCHECK) ./...

arch:
	$(GO) test ./internal/archtest/

# Every fuzz target in turn, for FUZZTIME each.
fuzz:
	@set -e; for file in $$(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
			echo "$$(dirname $$file) $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file); \
		done; \
	done

gen:
	$(GO) generate ./...

# Takes the system of `make run` down and removes it with its data.
clean:
	@if [ -x bin/zoidfs ]; then bin/zoidfs down --dir $(RUNDIR); fi
	rm -rf bin $(RUNDIR)

install: build
	install -D -m 755 bin/zoidfs $(DESTDIR)$(PREFIX)/bin/zoidfs
	install -d $(DESTDIR)$(SBINDIR)
	ln -sf $(PREFIX)/bin/zoidfs $(DESTDIR)$(SBINDIR)/mount.fuse.zoidfs
