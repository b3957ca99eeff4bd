package sources_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// strfry answers a subscription beyond maxSubsPerConnection from what it stores, EOSE included, says so in a NOTICE that does not name
// it, and sends nothing that comes later. What is asked for live must fit into what it allows.
func TestFewSubscriptions(t *testing.T) {
	for name, refusesSeveral := range map[string]bool{"several filters in one": false, "one filter in each, whatever becomes of them": true} {
		t.Run(name, func(t *testing.T) {
			const most = 2
			var mu sync.Mutex
			open := map[string]bool{}
			r := relaytest.New(t, relaytest.Script{Info: fmt.Sprintf(`{"limitation":{"max_subscriptions":%d}}`, most),
				Closed: func(_ string, fs []nostr.Filter) string {
					if refusesSeveral && len(fs) > 1 {
						return "invalid: one filter only"
					}
					return ""
				},
				Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
					var parts []json.RawMessage
					if json.Unmarshal([]byte(m.Raw), &parts) != nil || len(parts) < 2 {
						return false
					}
					mu.Lock()
					defer mu.Unlock()
					switch sub := string(parts[1]); {
					case m.Label == "CLOSE":
						delete(open, sub)
					case m.Label == "REQ" && !refusesSeveral && !open[sub]:
						if len(open) >= most {
							c.Send(`["EOSE",` + sub + `]`)
							c.Send(`["NOTICE","ERROR: too many concurrent REQs"]`)
							return true
						}
						open[sub] = true
					}
					return false
				}})
			in := newIntake(t)
			var want []event.Filter
			for i := 1; i <= 6; i++ { // each of other kinds, so that they are six requests
				want = append(want, event.Filter{Authors: []event.PubKey{author(i)}, Kinds: []int{1, 100 + i}})
			}
			g := start(t, r, in, openState(t), sources.Options{Filters: want})
			in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
			for i := 1; i <= 6; i++ {
				ev := note(i, i, now)
				r.Publish(ev)
				in.until(fmt.Sprint("a live event of author ", i), func() bool { return in.has(ev) })
			}
			live := 0
			for _, m := range r.Got("REQ") {
				if strings.HasPrefix(m.Raw, `["REQ","live-`) {
					live++
				}
			}
			if want := map[bool]int{false: 1, true: 2 + 6}[refusesSeveral]; live != want { // limit 0 may be what it dislikes
				t.Errorf("%d live requests, want %d", live, want)
			}
		})
	}
}
