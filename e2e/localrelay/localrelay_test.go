package localrelay

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nbd-wtf/go-nostr"
)

// TestRelay: what the tests of the whole program lean on.
func TestRelay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := Start(Options{MaxLimit: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	key := nostr.GeneratePrivateKey()
	sign := func(createdAt nostr.Timestamp, kind int, tags ...nostr.Tag) *nostr.Event {
		e := &nostr.Event{CreatedAt: createdAt, Kind: kind, Tags: tags, Content: fmt.Sprint(createdAt)}
		if err := e.Sign(key); err != nil {
			t.Fatal(err)
		}
		return e
	}
	for i := range 200 {
		if err := r.Load(sign(nostr.Timestamp(1_000_000+i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	c := dial(ctx, t, r.URL())
	defer c.Close() //nolint:errcheck // the test is over

	// eventstore gives what is asked for up to MaxLimit, and a quarter of MaxLimit to who asks for more or for no number.
	for limit, want := range map[int]int{60: 60, 100: 100, 101: 25, 5000: 25, 0: 25} {
		f := nostr.Filter{Kinds: []int{1}, Limit: limit}
		c.say(t, &nostr.ReqEnvelope{SubscriptionID: "page", Filters: nostr.Filters{f}})
		got := 0
		for c.hear(t, "EVENT", "EOSE") == "EVENT" {
			got++
		}
		if got != want {
			t.Errorf("limit %d: %d events, want %d", limit, got, want)
		}
		page := nostr.CloseEnvelope("page")
		c.say(t, &page)
	}

	c.say(t, &nostr.ReqEnvelope{SubscriptionID: "live", Filters: nostr.Filters{{LimitZero: true}}})
	c.hear(t, "EOSE")
	if !r.Subscribed() {
		t.Error("Subscribed: false, want true")
	}
	arrives := func(e *nostr.Event) {
		t.Helper()
		c.hear(t, "EVENT")
		if got := c.last.(*nostr.EventEnvelope); got.ID != e.ID || *got.SubscriptionID != "live" {
			t.Errorf("live: event %s for %s, want %s", got.ID, *got.SubscriptionID, e.ID)
		}
	}
	publish := func(e *nostr.Event) {
		t.Helper()
		c.say(t, &nostr.EventEnvelope{Event: *e})
	}
	accepted := func() {
		t.Helper()
		c.hear(t, "OK")
		if ok := c.last.(*nostr.OKEnvelope); !ok.OK {
			t.Errorf("refused: %s", ok.Reason)
		}
	}
	live := sign(2_000_000, 20001)
	if err := r.Publish(live); err != nil {
		t.Fatal(err)
	}
	arrives(live)

	older, newer := sign(2_000_001, 30023, nostr.Tag{"d", "x"}), sign(2_000_002, 30023, nostr.Tag{"d", "x"})
	deletion := sign(2_000_003, 5, nostr.Tag{"a", "30023:" + newer.PubKey + ":x"})
	has := func(id string) bool {
		all, err := r.All()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if e.ID == id {
				return true
			}
		}
		return false
	}
	for _, e := range []*nostr.Event{newer, older} {
		publish(e)
		arrives(e)
		accepted()
	}
	if !has(newer.ID) || has(older.ID) {
		t.Errorf("holds the newer version: %t, the older: %t; want only the newer", has(newer.ID), has(older.ID))
	}
	publish(deletion)
	for c.hear(t, "EVENT", "OK") == "EVENT" {
	}
	if has(newer.ID) || !has(deletion.ID) {
		t.Errorf("after the deletion it holds the event: %t, the request: %t; want only the request", has(newer.ID), has(deletion.ID))
	}
	if got := r.Received(); len(got) != 3 || got[0].ID != newer.ID || got[1].ID != older.ID || got[2].ID != deletion.ID {
		t.Errorf("Received lists %v, want the newer, the older and the deletion request", got)
	}
	if all, err := r.All(); err != nil || len(all) != 201 {
		t.Errorf("All: %d events, %v; want 200 and the request", len(all), err)
	}
	r.Drop()
	if _, _, err := c.ReadMessage(); err == nil {
		t.Error("the connection stands after Drop")
	}
}

// client is as little of a client as the test needs: go-nostr's has races of its own.
type client struct {
	*websocket.Conn
	last nostr.Envelope
}

func dial(ctx context.Context, t *testing.T, url string) *client {
	t.Helper()
	c, _, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	deadline, _ := ctx.Deadline()
	if err := c.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	return &client{Conn: c}
}

func (c *client) say(t *testing.T, e nostr.Envelope) {
	t.Helper()
	b, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteMessage(websocket.TextMessage, b); err != nil {
		t.Fatal(err)
	}
}

// hear reads one message, which must have one of these labels, and tells which.
func (c *client) hear(t *testing.T, labels ...string) string {
	t.Helper()
	_, b, err := c.ReadMessage()
	if err != nil {
		t.Fatalf("wait for %v: %v", labels, err)
	}
	parser := nostr.NewMessageParser()
	if c.last, err = parser.ParseMessage(string(b)); err != nil || !slices.Contains(labels, c.last.Label()) {
		t.Fatalf("got %s, %v; want one of %v", b, err, labels)
	}
	return c.last.Label()
}
