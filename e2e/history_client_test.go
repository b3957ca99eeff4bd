package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nbd-wtf/go-nostr"
)

// pager is the leanest client that the program is measured against: one connection, one page after the other, each event parsed
// and verified before the next one is read. It keeps nothing but the ids.
type pager struct {
	ids   map[string]struct{}
	pages int
	wire  int
}

// page fetches all of a relay that sends newest first.
func (p *pager) page(t testing.TB, url string) {
	t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // all was read
	p.ids = make(map[string]struct{})
	f := nostr.Filter{Limit: pageCap}
	parser := nostr.NewMessageParser()
	for {
		p.pages++
		id := fmt.Sprint("page-", p.pages)
		if err := c.WriteJSON(nostr.ReqEnvelope{SubscriptionID: id, Filters: nostr.Filters{f}}); err != nil {
			t.Fatal(err)
		}
		oldest, fresh := nostr.Timestamp(0), 0
		for ended := false; !ended; {
			_, text, err := c.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			m, err := parser.ParseMessage(string(text))
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *nostr.EventEnvelope:
				p.wire++
				if oldest = m.CreatedAt; p.known(m.ID) {
					continue
				}
				if ok, err := m.CheckSignature(); err != nil || !ok || !m.CheckID() {
					t.Fatalf("event %s is not genuine", m.ID)
				}
				p.ids[m.ID] = struct{}{}
				fresh++
			case *nostr.EOSEEnvelope:
				ended = true
			default:
				t.Fatalf("the relay says %v", m)
			}
		}
		if fresh == 0 {
			return
		}
		if err := c.WriteJSON(nostr.CloseEnvelope(id)); err != nil {
			t.Fatal(err)
		}
		f.Until = &oldest
	}
}

func (p *pager) known(id string) bool {
	_, ok := p.ids[id]
	return ok
}

// pageWithLibrary fetches the same with the library that most clients in Go are written with, as its users write it: its relay, which
// verifies, asked for one page after the other by until, and each new event a line of a file.
func (p *pager) pageWithLibrary(t testing.TB, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute) // QuerySync gives up after 7 s otherwise
	defer cancel()
	rl, err := nostr.RelayConnect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer rl.Close() //nolint:errcheck // all was read
	f, err := os.Create(filepath.Join(tempDir(t), "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // flushed below
	w := bufio.NewWriter(f)
	p.ids = make(map[string]struct{})
	ask := nostr.Filter{Limit: pageCap}
	for {
		p.pages++
		page, err := rl.QuerySync(ctx, ask)
		if err != nil {
			t.Fatal(err)
		}
		fresh := 0
		for _, e := range page {
			p.wire++
			if ask.Until == nil || e.CreatedAt < *ask.Until {
				ask.Until = &e.CreatedAt
			}
			if p.known(e.ID) {
				continue
			}
			p.ids[e.ID] = struct{}{}
			fresh++
			line, err := e.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				t.Fatal(err)
			}
		}
		if fresh == 0 {
			break
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}
