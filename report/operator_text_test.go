package report

import (
	"io"
	"strings"
	"testing"
	"time"
)

func printed(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b strings.Builder
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Each fate has its words, with what stands in the way and what can be done.
func TestStoryText(t *testing.T) {
	now := time.Unix(1_700_000_000, 0).UTC()
	at := now.Add(-time.Minute)
	kind := func(fate string, change func(*SinkStory)) SinkStory {
		k := SinkStory{URL: "wss://s", Configured: true, Fate: fate, At: at}
		if change != nil {
			change(&k)
		}
		return k
	}
	s := Story{
		ID: "ab", Note: "note1x", Now: now, Dir: "/a", Archived: true, Indexed: true,
		Line:  &Line{File: "events_1.jsonl", Offset: 7, Ordinal: 3},
		Event: &EventHead{Kind: 1, Author: "npub1x", CreatedAt: at}, Origin: &Origin{Relay: "wss://a", How: "live", Received: at},
		Sources: []SourceStory{{URL: "wss://a", Asks: true, First: true}, {URL: "wss://b", Name: "bee"}},
		Sinks: []SinkStory{
			kind("delivered", nil),
			kind("rejected", func(k *SinkStory) { k.Text = "blocked: no" }),
			kind("parked", func(k *SinkStory) { k.Parked, k.Attempts, k.Due = "error", 2, now.Add(time.Hour) }),
			kind("parked", func(k *SinkStory) { k.Parked, k.Attempts, k.Due, k.Reason = "error", 1, now, "expired" }),
			kind("sent", nil),
			kind("pending", func(k *SinkStory) { k.Ahead, k.Stopped = 1204, "restricted: not a member" }),
			kind("skipped", func(k *SinkStory) { k.Reason, k.NIP, k.Why = "dm", "17", "private" }),
			kind("skipped", func(k *SinkStory) { k.Reason = "echo" }),
			kind("settled", func(k *SinkStory) { k.Reason, k.Configured = "expired", false }),
			kind("none", nil),
		},
	}
	text := printed(t, s.WriteText)
	for _, want := range []string{
		"note1x\nab\nkind 1 by npub1x, dated 2023-11-14 22:12:20 UTC\narchived: /a/events_1.jsonl, byte 7, number 3, in the index\n",
		"came first from wss://a (live), received 2023-11-14 22:12:20 UTC\n",
		"wss://a        asks for it; it came from here\n", "wss://b (bee)  does not ask for it\n",
		"delivered, or it had it: answered before 2023-11-14 22:12:20 UTC", "refused 2023-11-14 22:12:20 UTC: blocked: no\n",
		"retry --sink wss://s --id ab", "waits until 2023-11-14 23:13:20 UTC: error, put off 2 times\n", "due now: error, put off once\n",
		"it would not be sent: expired", "sent 2023-11-14 22:12:20 UTC, not answered yet\n", "pending, 1,204 events before it\n  restricted: not a member\n",
		"not sent: dm (NIP-17: private)\n", "not sent: it came from this relay\n", "settled before ", "now it would be kept back: expired",
		"  no sink of the config\n", "never at work on this archive\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the story does not say %q:\n%s", want, text)
		}
	}
	gone := Story{ID: "ab", Note: "note1x", Dir: "/a", Sources: []SourceStory{
		{URL: "wss://a", Invalid: 5, Unasked: 2, Samples: []Sample{{At: at, Reason: "signature", Size: 2048, Times: 3}}},
	}}
	text = printed(t, gone.WriteText)
	for _, want := range []string{"not archived in /a\n", "wss://a sent something with this id 3 times, last 2023-11-14 22:12:20 UTC (2.0 KiB): it was refused: signature\n", "2 events that nobody asked for"} {
		if !strings.Contains(text, want) {
			t.Errorf("the story of what is not archived does not say %q:\n%s", want, text)
		}
	}
}

func TestOperatorText(t *testing.T) {
	at := time.Unix(1_700_000_000, 0).UTC()
	one := 1
	for _, c := range []struct {
		write func(io.Writer) error
		want  string
	}{
		{Retried{Sink: "s", Offered: map[string]uint64{"blocked": 1100, "invalid": 4}, Kept: 3}.WriteText,
			"s: 1,104 refused events are offered again: 1,100 blocked, 4 invalid; 3 for another reason stay refused\n"},
		{Retried{Sink: "s", Offered: map[string]uint64{"pow": 1}, Note: "the next run sends them"}.WriteText, "s: 1 refused event is offered again: 1 pow; the next run sends them\n"},
		{Retried{Sink: "s"}.WriteText, "s: nothing is offered again: it has refused nothing\n"},
		{Retried{Sink: "s", Kept: 119, Note: "it is paused"}.WriteText,
			"s: nothing is offered again: it has refused 119 events, for other reasons (rebroadcastr status s --rejected); it is paused\n"},
		{Retried{Sink: "s", Due: 1}.WriteText, "s: 1 parked event due now\n"},
		{Held{Relay: "r", Paused: true}.WriteText, "r: paused: nothing is asked of it or sent to it; its queue is kept. To go on: rebroadcastr resume r\n"},
		{Held{Relay: "r", Paused: true, Was: "it is paused already", Since: at}.WriteText, "r: it is paused already, since 2023-11-14 22:13:20 UTC\n"},
		{Held{Relay: "r", Since: at}.WriteText, "r: resumed; it was paused since 2023-11-14 22:13:20 UTC\n"},
		{Held{Relay: "r", Was: "auth-required: x"}.WriteText, "r: tried again now; it waited: auth-required: x\n"},
		{Held{Relay: "r"}.WriteText, "r: it was neither paused nor waiting\n"},
		{Forgotten{Sink: "s", Delivered: 1234, Pending: 5}.WriteText, "s: ledger forgotten: 1,234 delivered, 0 refused, 0 parked, 5 pending. As a sink again it starts anew\n"},
		{Forgotten{Sink: "s", Unread: true}.WriteText, "s: ledger forgotten: it could not be read, so what was in it is not known. As a sink again it starts anew\n"},
		{Rejected{Sink: "s", Time: at, Note: "note1", Kind: &one, Reason: "blocked", Text: "Blocked: no"}.WriteText, "2023-11-14 22:13:20 UTC  s  note1  kind 1  Blocked: no\n"},
		{Rejected{Sink: "s", Time: at, Note: "note1", Reason: "too large", Text: "9000 bytes"}.WriteText, "2023-11-14 22:13:20 UTC  s  note1  too large: 9000 bytes\n"},
	} {
		if got := printed(t, c.write); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// What relays send is shown on one line each, without control characters.
func TestRelayText(t *testing.T) {
	now := time.Unix(1_700_000_000, 0).UTC()
	r := Relay{
		URL: "wss://r", Sessions: 2, LastEnd: "dropped", LastEndAt: now.Add(-time.Minute), BadFrames: map[string]int64{"not JSON": 3},
		Info:    &RelayInfo{Fetched: now.Add(-time.Hour), Name: "odd", NIPs: []int{1, 11}, Limits: map[string]int64{"max_limit": 77}, Wants: []string{"auth"}},
		Samples: []Sample{{At: now, Reason: "signature", Size: 1024, Raw: "{\x1b[31m\n" + strings.Repeat("x", 200)}},
		Parked:  []Parked{{Reason: "error", Events: 2, Next: now.Add(90 * time.Second)}, {Reason: "future", Events: 1, Next: now}},
		Notices: []Notice{{At: now, Text: "hello"}}, Window: 500, Sent: 9, Late: 1, LastOK: now,
		Compared: &Audit{At: now.Add(-time.Minute), Full: true, Lacked: 3, Came: 1, Missed: 2, Ours: 4},
	}
	text := printed(t, func(w io.Writer) error { return r.WriteText(w, now) })
	for _, want := range []string{
		"wss://r: 2 sessions since the start; the last end, 1m00s ago: dropped\n", "NIP-11, 1h00m ago: odd · NIPs 1 11 · max_limit 77 · wants auth\n",
		"sink: 9 events sent since the start, last OK 0s ago, window 500, 1 OK too late\n", "parked: 2 events for error, the first due in 1m30s\n",
		"parked: 1 event for future, the first due now\n",
		"compared with the archive 1m00s ago, in full: we lacked 3 events, 1 came; 4 it lacks; 2 it lists and does not give\n", "frames not understood: 3 not JSON\n", "signature, 1.0 KiB: {·[31m·xxx", "x…\n", "notice 2023-11-14 22:13:20 UTC: hello\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the relay's picture does not say %q:\n%s", want, text)
		}
	}
	if text := printed(t, func(w io.Writer) error { return Relay{URL: "r"}.WriteText(w, now) }); !strings.Contains(text, "no NIP-11 document") || !strings.Contains(text, "no notices") {
		t.Errorf("a relay that said nothing:\n%s", text)
	}
}

// TestLacksText: what a comparison found adds up, and one that could not be made does not look like one that found nothing.
func TestLacksText(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		lacks Lacks
		want  string
	}{
		{Lacks{Full: true, Listed: 530}, "sink compared with the archive 3s ago, in full: it lacked 0 of 530 events"},
		{Lacks{Full: true, Listed: 530, Lacked: 145, Again: 99, Offered: 99, Taken: 98, Refused: 1},
			"sink compared with the archive 3s ago, in full: it lacked 145 of 530 events; offered 99 again, 98 taken, 0 it had, 1 refused; 46 not for it now: kept back, refused or still to be sent"},
		{Lacks{Listed: 535, Lacked: 46, Offered: 99, Taken: 99},
			"sink compared with the archive 3s ago, of late: it lacked 46 of 535 events; of 99 offered before, 99 taken, 0 it had, 0 refused; 46 not for it now: kept back, refused or still to be sent"},
		{Lacks{Listed: 20, Lacked: 3, Resting: 3}, "sink compared with the archive 3s ago, of late: it lacked 3 of 20 events; 3 offered not long ago"},
		{Lacks{Full: true, Text: "the relay does not reconcile (NIP-77): no"}, "sink not compared with the archive, 3s ago: the relay does not reconcile (NIP-77): no"},
		{Lacks{Full: true, Listed: 9, Lacked: 1, Again: 1, Offered: 1, Text: "silent"}, "sink compared with the archive 3s ago, in full: it lacked 1 of 9 events; offered 1 again, 0 taken, 0 it had, 0 refused; incomplete: silent"},
	} {
		c.lacks.At = now.Add(-3 * time.Second)
		if got := c.lacks.text(now); got != c.want {
			t.Errorf("%+v:\n%s\nwant\n%s", c.lacks, got, c.want)
		}
	}
}
