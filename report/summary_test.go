package report

import (
	"encoding/json"
	"testing"
	"time"
)

// summaryOf is the end of a command in which everything happened that can.
func summaryOf() Status {
	busy := date("2023-03-01").Unix() + 12*3600 + 7
	dense := "more than 500 events in one second"
	var gaps []Gap
	for i := range int64(8) {
		gaps = append(gaps, Gap{Filter: `{"kinds":[1]}`, Asked: "npub1sg6p…, kind 1", From: busy + i, To: busy + i, Found: morning.Unix(), Reason: dense})
	}
	began := date("2024-01-01").Unix()
	return Status{
		Since: morning, Now: morning.Add(161 * time.Second), Asked: "1 author and mentions, all time",
		Archive: Archive{Dir: "./jack", Lines: 9_926, Added: 9_926, Bytes: 11_744_051},
		Sources: []Source{
			{URL: "wss://relay.damus.io", Received: 18_204, New: 4_912, Copies: 13_292, Complete: Yes, Oldest: date("2020-12-14")},
			{URL: "wss://since.example.com", Received: 10, New: 10, Complete: Yes, ProvenBack: date("2024-01-01"), Oldest: date("2024-02-01")},
			{URL: "wss://again.example.com", Complete: Yes},
			{URL: "wss://relay.nostr.band", Received: 3_000, New: 12, Copies: 2_986, Invalid: 2, InvalidBy: map[string]int64{"signature": 2}, Complete: No, CompleteNote: dense, Gaps: gaps[:1]},
			{URL: "wss://dense.example.com", Received: 4_990, New: 4_990, Complete: No, CompleteNote: dense, Gaps: gaps, MoreGaps: 100},
			{URL: "wss://closing.example.com", Complete: No, CompleteNote: "CLOSED error:\x1b]0;x\a no", Gaps: []Gap{{Filter: "{}", From: began, To: 1<<63 - 1, Reason: "CLOSED error: no"}}},
			{URL: "wss://relay.snort.social", Complete: No, CompleteNote: "3 tries: lookup relay.snort.social: no such host"},
			{URL: "wss://first.example.com", Received: 2, New: 2, Complete: Unclear, CompleteNote: "stopped at --limit 2"},
		},
		Sinks: []Sink{
			{
				URL: "ws://127.0.0.1:7777", RejectedText: map[string]string{"invalid": "invalid: created_at too early", "blocked": "blocked: not on white-list", "error": "error"},
				Run: &Sink{
					Delivered: 9_880, Duplicate: 10, Superseded: 2, Rejected: 4, RejectedBy: map[string]int64{"invalid": 2, "blocked": 1, "error": 1},
					Skipped: 40, SkippedBy: map[string]int64{"dm": 37, "protected": 3},
				},
			},
			{URL: "ws://127.0.0.1:8888", Pending: 9_926, Note: "given up: nothing settled within 5m0s", Run: &Sink{Pending: 9_920, Parked: 6}},
		},
	}
}

const summary = `asked 8 relays for 1 author and mentions, all time
source                     received    new  copies  invalid  unasked  complete
wss://relay.damus.io         18,204  4,912  13,292        0        0  yes, to 2020-12-14
wss://since.example.com          10     10       0        0        0  yes, to 2024-01-01
wss://again.example.com           0      0       0        0        0  yes
wss://relay.nostr.band        3,000     12   2,986        2        0  GAP 2023-03-01T12:00:07Z: more than 500 events in one second
  invalid: 2 signature
wss://dense.example.com       4,990  4,990       0        0        0  108 GAPS, one of them 2023-03-01T12:00:07Z: more than 500 events in one second
  gap 2023-03-01T12:00:07Z  npub1sg6p…, kind 1: more than 500 events in one second
  gap 2023-03-01T12:00:08Z  npub1sg6p…, kind 1: more than 500 events in one second
  gap 2023-03-01T12:00:09Z  npub1sg6p…, kind 1: more than 500 events in one second
  and 105 more gaps: rebroadcastr status --gaps --archive ./jack wss://dense.example.com
wss://closing.example.com         0      0       0        0        0  NO: CLOSED error:·]0;x· no
  gap from 2024-01-01T00:00:00Z  {}: CLOSED error: no
wss://relay.snort.social          0      0       0        0        0  NO: 3 tries: lookup relay.snort.social: no such host
wss://first.example.com           2      2       0        0        0  unknown: stopped at --limit 2
sink                 delivered  had it  refused  kept back  pending  = archived for it
ws://127.0.0.1:7777      9,870      12        4         40        0              9,926
  refused: 2 invalid (created_at too early), 1 blocked (not on white-list), 1 error     kept back: 37 direct messages, 3 protected
ws://127.0.0.1:8888          0       0        0          0    9,926              9,926
  pending: 6 parked until later     given up: nothing settled within 5m0s
archive ./jack: 9,926 events (+9,926), 11 MiB, 2m41s
incomplete: 4 of 8 sources, 1 of 2 sinks. The same command asks only for what is missing.
`

// TestSummary: the end of a command, as people read it, and the same facts for programs.
func TestSummary(t *testing.T) {
	s := summaryOf()
	if got := printed(t, s.WriteSummary); got != summary {
		t.Errorf("got\n%s\nwant\n%s", got, summary)
	}
	for _, src := range s.Sources {
		if n := src.Imbalance(); n != 0 {
			t.Errorf("%s is off by %d", src.URL, n)
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var read Status
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if got := printed(t, read.WriteSummary); got != summary {
		t.Errorf("what --json says reads\n%s\nwant\n%s", got, summary)
	}
	if got := len(read.Sources[4].Gaps); got != 8 {
		t.Errorf("--json lists %d gaps of %s, want all", got, read.Sources[4].URL)
	}
	if sources, sinks := s.Incomplete(); len(sources) != 4 || len(sinks) != 1 {
		t.Errorf("incomplete: %v, %v", sources, sinks)
	}
	s.Interrupt = true
	const last = "interrupted; incomplete: 4 of 8 sources, 1 of 2 sinks. The same command asks only for what is missing.\n"
	if got := printed(t, s.WriteSummary); got[len(got)-len(last):] != last {
		t.Errorf("interrupted, it does not end with %q:\n%s", last, got)
	}
}

// A row of status says how far back a source is proven, and how often that has a hole.
func TestProvenText(t *testing.T) {
	for _, c := range []struct {
		s    Source
		want string
	}{
		{Source{}, "-"}, {Source{Complete: Yes}, "all"}, {Source{ProvenBack: date("2021-02-03")}, "2021-02-03"},
		{Source{ProvenBack: date("2021-02-03"), Gaps: make([]Gap, 1)}, "2021-02-03, 1 gap"},
		{Source{Complete: No, Gaps: make([]Gap, 100), MoreGaps: 1900}, "-, 2,000 gaps"},
	} {
		if got := c.s.provenText(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
