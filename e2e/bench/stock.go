package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/nbd-wtf/go-nostr"
	"golang.org/x/sys/unix"

	"rebroadcastr/event"
)

const (
	// firstAt dates the stock's first event; each is a second younger than the one before, so that dates are numbers.
	firstAt = 1_600_000_000
	// writers is how many authors there are. The program keeps what it made of the keys of those it met last.
	writers = 1000
	// signed at once, before they are written
	batch = 20_000
)

// stock is genuine events, one canonical line each, oldest first, in a file that all processes map.
type stock struct {
	file string
	data []byte
	at   []int64 // where each line begins, and the end of the last
}

// makeStock signs n events of about 1.1 kB with all cores.
func makeStock(dir string, n int, say func(string, ...any)) (*stock, error) {
	file := filepath.Join(dir, "stock.jsonl")
	f, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("make the stock of events: %w", err)
	}
	defer f.Close() //nolint:errcheck // flushed below
	w := bufio.NewWriterSize(f, 1<<20)
	keys := make([]string, writers)
	for i := range keys {
		keys[i] = fmt.Sprintf("%064x", i+1)
	}
	for from := 0; from < n; from += batch {
		to := min(from+batch, n)
		lines := make([]string, to-from)
		errs := make([]error, runtime.NumCPU())
		var signing sync.WaitGroup
		for c := range errs {
			signing.Go(func() {
				for i := from + c; i < to && errs[c] == nil; i += len(errs) {
					lines[i-from], errs[c] = sign(i, keys)
				}
			})
		}
		signing.Wait()
		for _, err := range errs {
			if err != nil {
				return nil, err
			}
		}
		for _, l := range lines {
			if _, err := w.WriteString(l); err != nil {
				return nil, fmt.Errorf("write the stock of events: %w", err)
			}
		}
		if to == n || to%(10*batch) == 0 {
			say("%s of %s events signed", count(to), count(n))
		}
	}
	if err := w.Flush(); err != nil {
		return nil, fmt.Errorf("write the stock of events: %w", err)
	}
	return openStock(file)
}

const words = "the relay said \"no\" and nobody knew why,\nso we asked again — gm ☀️ nostr:npub1 "

var text = strings.Repeat(words, 9)

// sign makes event i, always with the same content.
func sign(i int, keys []string) (string, error) {
	rnd := rand.New(rand.NewPCG(uint64(i), 7))
	from := rnd.IntN(len(words))
	e := nostr.Event{
		CreatedAt: nostr.Timestamp(firstAt + i), Kind: []int{1, 1, 1, 6, 7, 1111}[rnd.IntN(6)],
		Tags: nostr.Tags{
			{"e", fmt.Sprintf("%016x%016x%016x%016x", rnd.Uint64(), rnd.Uint64(), rnd.Uint64(), rnd.Uint64()), "wss://relay.example.com", "root"},
			{"p", fmt.Sprintf("%016x%016x%016x%016x", rnd.Uint64(), rnd.Uint64(), rnd.Uint64(), rnd.Uint64())},
			{"client", "somewhere"},
		},
		Content: strings.ToValidUTF8(text[from:from+455+rnd.IntN(160)], ""),
	}
	if err := e.Sign(keys[rnd.IntN(len(keys))]); err != nil {
		return "", fmt.Errorf("sign an event: %w", err)
	}
	var canonical event.Event
	if err := event.Parse([]byte(e.String()), &canonical); err != nil {
		return "", fmt.Errorf("write an event: %w", err)
	}
	return string(canonical.Line) + "\n", nil
}

// openStock maps a file of lines.
func openStock(file string) (*stock, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open the stock of events: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open the stock of events: %w", err)
	}
	s := &stock{file: file, at: []int64{0}}
	if info.Size() == 0 {
		return s, nil
	}
	// Shared, and never written to: the page cache is the only copy.
	if s.data, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map %s: %w", file, err)
	}
	for pos := 0; pos < len(s.data); {
		end := bytes.IndexByte(s.data[pos:], '\n')
		if end < 0 {
			return nil, fmt.Errorf("read %s: the last line has no end", file)
		}
		pos += end + 1
		s.at = append(s.at, int64(pos))
	}
	return s, nil
}

func (s *stock) len() int { return len(s.at) - 1 }

// line is event i without its newline.
func (s *stock) line(i int) []byte { return s.data[s.at[i] : s.at[i+1]-1] }

// bytes is how long events from to to are as lines, with their newlines.
func (s *stock) bytes(from, to int) int64 { return s.at[to] - s.at[from] }

// part writes events from to to into a file of their own.
func (s *stock) part(file string, from, to int) error {
	if err := os.WriteFile(file, s.data[s.at[from]:s.at[to]], 0o600); err != nil {
		return fmt.Errorf("write a part of the stock: %w", err)
	}
	return nil
}
