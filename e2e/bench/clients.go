package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gorilla/websocket"
	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/realrelay"
)

// Paging says what a client fetches.
type Paging struct {
	URL string
	Dir string // for a file
}

// Paged is what a client got.
type Paged struct {
	Cost
	Events int // apart
	Wire   int // with copies
}

// pager is a client that fetches all of a relay that sends newest first, one page after the other.
type pager struct {
	ids  map[string]struct{}
	wire int
}

// PageLean fetches everything over one connection as lean as can be; each event is parsed and verified before the next one is read,
// and nothing is kept but the ids.
func (h *host) PageLean(p Paging, out *Paged) error { return out.by((*pager).lean, p) }

// PageUsual fetches the same with the library that most clients in Go are written with, as its users write it: its relay, which
// verifies, asked for one page after the other by until, and each new event a line of a file.
func (h *host) PageUsual(p Paging, out *Paged) error { return out.by((*pager).usual, p) }

func (out *Paged) by(fetch func(*pager, Paging) error, p Paging) (err error) {
	g := pager{ids: map[string]struct{}{}}
	out.Cost, err = measured(func() error { return fetch(&g, p) })
	out.Events, out.Wire = len(g.ids), g.wire
	return err
}

func (g *pager) known(id string) bool {
	_, ok := g.ids[id]
	return ok
}

func (g *pager) lean(p Paging) error {
	c, _, err := websocket.DefaultDialer.Dial(p.URL, nil)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // all was read
	f := nostr.Filter{Limit: realrelay.PageCap}
	parser := nostr.NewMessageParser()
	for page := 1; ; page++ {
		id := fmt.Sprint("page-", page)
		if err := c.WriteJSON(nostr.ReqEnvelope{SubscriptionID: id, Filters: nostr.Filters{f}}); err != nil {
			return err
		}
		oldest, fresh := nostr.Timestamp(0), 0
		for ended := false; !ended; {
			_, text, err := c.ReadMessage()
			if err != nil {
				return err
			}
			m, err := parser.ParseMessage(string(text))
			if err != nil {
				return err
			}
			switch m := m.(type) {
			case *nostr.EventEnvelope:
				g.wire++
				if oldest = m.CreatedAt; g.known(m.ID) {
					continue
				}
				if ok, err := m.CheckSignature(); err != nil || !ok || !m.CheckID() {
					return fmt.Errorf("event %s is not genuine, %w", m.ID, err)
				}
				g.ids[m.ID] = struct{}{}
				fresh++
			case *nostr.EOSEEnvelope:
				ended = true
			default:
				return fmt.Errorf("the relay says %v", m)
			}
		}
		if fresh == 0 {
			return nil
		}
		if err := c.WriteJSON(nostr.CloseEnvelope(id)); err != nil {
			return err
		}
		f.Until = &oldest
	}
}

func (g *pager) usual(p Paging) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience) // QuerySync gives up after 7 s otherwise
	defer cancel()                                                     // which ends the connection; the relay's own Close is a race (go-nostr v0.52.3)
	rl, err := nostr.RelayConnect(ctx, p.URL)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(p.Dir, "events.jsonl"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	w := bufio.NewWriter(f)
	ask := nostr.Filter{Limit: realrelay.PageCap}
	for {
		page, err := rl.QuerySync(ctx, ask)
		if err != nil {
			return err
		}
		fresh := 0
		for _, e := range page {
			g.wire++
			if ask.Until == nil || e.CreatedAt < *ask.Until {
				ask.Until = &e.CreatedAt
			}
			if g.known(e.ID) {
				continue
			}
			g.ids[e.ID] = struct{}{}
			fresh++
			line, err := e.MarshalJSON()
			if err != nil {
				return err
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		if fresh == 0 {
			return w.Flush()
		}
	}
}

// OpenReal starts a relay as people run them, that holds the events of a file.
func (h *host) OpenReal(file string, url *string) error {
	r, err := realrelay.Start(file)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.bare, h.real = append(h.bare, r), r
	h.mu.Unlock()
	*url = r.URL
	return nil
}

// Served is what the real relay has given.
func (h *host) Served(_ struct{}, out *realrelay.Served) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	*out = h.real.Served()
	return nil
}
