# rebroadcastr: `make` builds bin/rebroadcastr, `make test` passes all tests, `make demo` shows the main job without a network.

# libsecp256k1 behind the signature check where there is cgo, else pure Go: the tag without cgo does not compile.
TAGS    := $(shell go env CGO_ENABLED 2>/dev/null | sed "s/1/libsecp256k1/;s/0//")
RACE    := $(shell go env CGO_ENABLED 2>/dev/null | sed "s/1/-race/;s/0//")
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX  ?= /usr/local
DESTDIR ?=
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSCONFDIR ?= /etc
FUZZTIME ?= 30s

# libsecp256k1's own assembly and -O3 take 8 % off a check (-march=native makes it three times slower). The include path is for
# event/batch.c, which checks signatures in batches by libsecp256k1's inner functions; a build without it checks them one by one.
# What the user has set in CGO_CFLAGS comes behind. Asked for when it is needed: `make install` asks Go nothing.
GO_NOSTR    = $(shell go mod download github.com/nbd-wtf/go-nostr && go list -m -f '{{.Dir}}' github.com/nbd-wtf/go-nostr)
ASM         = $(if $(filter amd64,$(shell go env GOARCH)),-DUSE_ASM_X86_64=1)
USER_CFLAGS = $(shell go env CGO_CFLAGS | sed 's/^-O2 -g$$/-g/')
fast        = $(if $(findstring $(1),$(2)),$(2),-O3 $(ASM) '-I$(1)' $(2))
ALL_CFLAGS  = $(eval ALL_CFLAGS := $(if $(TAGS),$(call fast,$(GO_NOSTR),$(USER_CFLAGS)),$(USER_CFLAGS)))$(ALL_CFLAGS)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: all build test allocs allocs-update bench figures demo lint fuzz install clean cgo-cflags

all: build

build test allocs allocs-update bench figures demo lint fuzz: export CGO_CFLAGS = $(ALL_CFLAGS)

# For commands by hand, and for the tests that build the program: CGO_CFLAGS="$$(make -s cgo-cflags)" go test -tags libsecp256k1 ./event
cgo-cflags:
	@echo "$(ALL_CFLAGS)"

build:
	go build -tags '$(TAGS)' -ldflags '-X rebroadcastr/cli.Version=$(VERSION)' -o bin/rebroadcastr .

# The race detector makes a pure Go signature check cost 0.9 ms, so tests use the tag; one short run goes without it.
# e2e runs the program as a child that is built with the race detector. TestRandom and TestBench go without, because the detector finds
# khatru's listeners (v0.17.4), which TestRandom drives harder than the others do, and the end of a go-nostr relay (v0.52.3).
# Always anew (-count 1): the test cache does not see the sources of a child that the tests build themselves.
# -p 4: most packages wait for sockets and clocks.
test: allocs
	go test -p 4 $(RACE) -tags '$(TAGS)' ./...
	go test ./event
	cd e2e && go test -count 1 $(RACE) -tags '$(TAGS)' -timeout 20m -skip 'TestRandom$$|TestBench$$' ./...
	cd e2e && go test -count 1 -tags '$(TAGS)' -run 'TestRandom$$|TestBench$$' -v . ./bench

# The stage benchmarks, briefly, against the allocations that testdata/allocs.txt records; never with the race detector, which adds some.
# Times: go test -run '^$$' -bench '^BenchmarkStage' -benchmem ./...
allocs:
	cd e2e && go run -tags '$(TAGS)' ./allocs -tags '$(TAGS)'

allocs-update:
	cd e2e && go run -tags '$(TAGS)' ./allocs -tags '$(TAGS)' -update

# Writes BENCHMARKS.md and docs/*.svg: at most 15 minutes, about 5 GB in TMPDIR. BENCH="-scenario live -rounds 1" for less.
bench: build
	cd e2e && go run -tags '$(TAGS)' ./bench -binary ../bin/rebroadcastr $(BENCH)

demo: build
	cd e2e && go run -tags '$(TAGS)' ./demo -binary ../bin/rebroadcastr

lint:
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "not gofmt-ed:"; echo "$$bad"; exit 1; fi
	go vet -tags '$(TAGS)' ./...
	cd e2e && go vet -tags '$(TAGS)' ./...
	go run $(STATICCHECK) -tags '$(TAGS)' ./...
	cd e2e && go run $(STATICCHECK) -tags '$(TAGS)' ./...

# Each fuzz target of the module for FUZZTIME. Minimising is kept short: by default a find may cost the whole time.
fuzz:
	@set -e; for dir in $$(go list -f '{{.Dir}}' ./...); do \
		for target in $$(cat $$dir/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
			echo "$$target in $$dir for $(FUZZTIME)"; \
			go test -tags '$(TAGS)' -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$dir; \
		done; \
	done

# Builds nothing and asks Go nothing aloud, so that `sudo make install` needs no Go in root's path. A config that is there is kept.
install:
	@test -x bin/rebroadcastr || { echo "nothing to install: run make first"; exit 1; }
	install -D -m 0755 bin/rebroadcastr $(DESTDIR)$(PREFIX)/bin/rebroadcastr
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSCONFDIR)/rebroadcastr
	for unit in rebroadcastr.service rebroadcastr@.service; do \
		sed 's|/usr/local/bin/|$(PREFIX)/bin/|' systemd/$$unit > $(DESTDIR)$(UNITDIR)/$$unit && chmod 0644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	test -e $(DESTDIR)$(SYSCONFDIR)/rebroadcastr/rebroadcastr.yaml || \
		install -m 0644 config/example.yaml $(DESTDIR)$(SYSCONFDIR)/rebroadcastr/rebroadcastr.yaml

clean:
	rm -rf bin
