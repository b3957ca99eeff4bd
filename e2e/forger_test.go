package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
)

// forger is a source that answers its first request for stored events with forged and damaged copies of known ids, and
// only then with the genuine events that it alone has. It does not look at filters. Between the bad copies it sends noise,
// genuine events that nobody asked for: a relay that sends mostly garbage would be paused before it has said all.
type forger struct {
	*relaytest.Relay
	asked, count atomic.Int64
}

func newForger(t testing.TB, copiesOf, genuine, noise []*nostr.Event) *forger {
	t.Helper()
	f := new(forger)
	f.Relay = relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		sub, filters := parseREQ(m)
		if len(filters) == 0 || live(filters[0]) {
			return false // nothing is stored: an EOSE
		}
		if f.asked.Add(1) > 1 {
			return false
		}
		for i, e := range copiesOf {
			for j, object := range forgeries(e, i) {
				c.Send(`["EVENT","` + sub + `",` + object + `]`)
				c.Send(`["EVENT","` + sub + `",` + noise[(2*i+j)%len(noise)].String() + `]`)
			}
		}
		for _, e := range genuine {
			c.Send(`["EVENT","` + sub + `",` + e.String() + `]`)
		}
		f.count.Store(int64(4*len(copiesOf) + len(genuine)))
		c.Send(`["EOSE","` + sub + `"]`)
		return true
	}})
	return f
}

// sentSoFar counts EVENT messages once all are sent; 0 before.
func (f *forger) sentSoFar() int { return int(f.count.Load()) }

// parseREQ takes a REQ apart; no filters: it is none.
func parseREQ(m relaytest.Message) (sub string, filters []nostr.Filter) {
	if m.Label != "REQ" {
		return "", nil
	}
	var parts []json.RawMessage
	if json.Unmarshal([]byte(m.Raw), &parts) != nil || len(parts) < 3 || json.Unmarshal(parts[1], &sub) != nil {
		return "", nil
	}
	for _, p := range parts[2:] {
		var f nostr.Filter
		if json.Unmarshal(p, &f) == nil {
			filters = append(filters, f)
		}
	}
	return sub, filters
}

// live says that a REQ is for what comes, not for what is stored.
func live(f nostr.Filter) bool { return f.LimitZero || f.Limit == 1 }

// forgeries makes two bad copies of an event, of kinds that change from event to event.
func forgeries(e *nostr.Event, n int) []string {
	lie := *e
	switch n % 5 {
	case 0:
		lie.Content += " (forged)"
	case 1:
		lie.Sig = flip(e.Sig)
	case 2:
		lie.CreatedAt++
	case 3:
		lie.Tags = append(nostr.Tags{{"t", "forged"}}, e.Tags...)
	case 4:
		lie.PubKey = flip(e.PubKey)
	}
	var damaged string
	switch n % 4 {
	case 0:
		damaged = strings.Replace(e.String(), `"kind":`, `"kind":"`, 1) // a string that never ends
	case 1:
		damaged = strings.Replace(e.String(), e.ID, strings.ToUpper(e.ID), 1)
	case 2:
		damaged = fmt.Sprintf(`{"id":%q,"pubkey":%q,"created_at":"%d","kind":%d,"tags":[],"content":"","sig":%q}`, e.ID, e.PubKey, e.CreatedAt, e.Kind, e.Sig)
	case 3:
		damaged = strings.Replace(e.String(), `{`, `{"id":"`+strings.Repeat("0", 64)+`",`, 1) // the id twice
	}
	return []string{lie.String(), damaged}
}

// flip changes the last hex digit.
func flip(hex string) string {
	last := "0"
	if strings.HasSuffix(hex, "0") {
		last = "1"
	}
	return hex[:len(hex)-1] + last
}

// deadURL is an address of this machine where nobody listens.
func deadURL(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "ws://" + ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return url
}
