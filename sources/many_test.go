package sources_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// Live requests that take longer than liveWait at the link's pace: the answers to the first are heard meanwhile, so the reader
// never waits for the pace, and nothing of the past is asked for before the last of them has been sent.
func TestManyLiveRequestsAtASlowPace(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Idle: time.Minute})
	g.untilLive()
	settings := relay.DefaultSettings()
	settings.Pace, settings.Stall = 20, 2*time.Second
	g.link.SetSettings(settings)
	const many = 240
	before := len(r.Got("REQ"))
	var filters []event.Filter
	for kind := range many {
		filters = append(filters, event.Filter{Kinds: []int{kind}})
	}
	g.source.Ask(sources.Wish{Filters: filters})
	page := func(m relaytest.Message) bool { return strings.HasPrefix(m.Raw, `["REQ","page-`) }
	r.Wait("most of the live requests", func() bool { return len(r.Got("REQ")) >= before+many/2 })
	in.until("history", func() bool { return slices.ContainsFunc(r.Got("REQ")[before:], page) })
	if at := slices.IndexFunc(r.Got("REQ")[before:], page); at < many {
		t.Errorf("history is asked for after %d live requests, want all %d before", at, many)
	}
	if s := g.link.Status(); s.Sessions != 1 || !s.Roles[0].Serving {
		t.Errorf("%d sessions, role %+v, %q: the reader waited for the pace", s.Sessions, s.Roles[0], s.LastEnd)
	}
}
