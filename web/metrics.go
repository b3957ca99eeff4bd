package web

import (
	"github.com/prometheus/client_golang/prometheus"

	"rebroadcastr/report"
)

// collector turns one Status into metrics, so that they are the same numbers that status shows.
type collector struct{ r Reporter }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("rebroadcastr_"+name, help, labels, nil)
}

var (
	descBuild     = desc("build_info", "Always 1; the version as a label.", "version")
	descRunning   = desc("running", "1 while events are mirrored, 0 while starting, stopping or waiting for room.")
	descLines     = desc("archive_lines_total", "Events in the archive.")
	descBytes     = desc("archive_bytes", "Size of the archive's segments on disk.")
	descFree      = desc("archive_free_bytes", "Free space on the archive's filesystem.")
	descUnsynced  = desc("archive_unsynced_events", "Events written and not yet fsynced.")
	descProblems  = desc("problems", "Problems that status lists.")
	descSrcUp     = desc("source_connected", "1 while the source relay is connected.", "relay")
	descReceived  = desc("source_received_total", "Events received.", "relay")
	descSrcEvents = desc("source_events_total", "Events settled, by outcome: new, copy, invalid, unasked.", "relay", "outcome")
	descInFlight  = desc("source_in_flight", "Events received and not settled yet.", "relay")
	descBadFrames = desc("source_bad_frames_total", "Messages that were no known Nostr message, by reason.", "relay", "reason")
	descLastEvent = desc("source_last_event_timestamp_seconds", "Wall clock of the last event received.", "relay")
	descSinkUp    = desc("sink_connected", "1 while the sink relay is connected.", "relay")
	descSinkEvent = desc("sink_events_total", "Events settled, by outcome: delivered, superseded, rejected, skipped.", "relay", "outcome")
	descPending   = desc("sink_pending", "Events that the sink still has to get.", "relay")
	descParked    = desc("sink_parked", "Events that wait for a time of their own.", "relay")
)

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descBuild, descRunning, descLines, descBytes, descFree, descUnsynced, descProblems, descSrcUp, descReceived,
		descSrcEvents, descInFlight, descBadFrames, descLastEvent, descSinkUp, descSinkEvent, descPending, descParked} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.r.Status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descBuild, 1, s.Version)
	gauge(descRunning, truth(s.State == report.Running && s.Archive.Waiting == ""))
	count(descLines, int64(s.Archive.Lines))
	gauge(descBytes, float64(s.Archive.Bytes))
	gauge(descFree, float64(s.Archive.Free))
	gauge(descUnsynced, float64(s.Archive.Unsynced))
	gauge(descProblems, float64(len(s.Problems)))
	for _, src := range byRelay(s.Sources) {
		gauge(descSrcUp, truth(src.State == report.Connected), src.URL)
		count(descReceived, src.Received, src.URL)
		count(descSrcEvents, src.New, src.URL, "new")
		count(descSrcEvents, src.Copies, src.URL, "copy")
		count(descSrcEvents, src.Invalid, src.URL, "invalid")
		count(descSrcEvents, src.Unasked, src.URL, "unasked")
		gauge(descInFlight, float64(src.InFlight), src.URL)
		for reason, n := range src.BadFrames {
			count(descBadFrames, n, src.URL, reason)
		}
		if !src.LastEvent.IsZero() {
			gauge(descLastEvent, float64(src.LastEvent.Unix()), src.URL)
		}
	}
	for _, k := range s.Sinks {
		gauge(descSinkUp, truth(k.State == report.Connected), k.URL)
		count(descSinkEvent, k.Delivered, k.URL, "delivered")
		count(descSinkEvent, k.Superseded, k.URL, "superseded")
		count(descSinkEvent, k.Rejected, k.URL, "rejected")
		count(descSinkEvent, k.Skipped, k.URL, "skipped")
		gauge(descPending, float64(k.Pending), k.URL)
		gauge(descParked, float64(k.Parked), k.URL)
	}
}

// byRelay makes one row of those that share a relay label: imports side by side are all called "import", and a series
// that comes twice fails the whole scrape.
func byRelay(rows []report.Source) []report.Source {
	at := make(map[string]int, len(rows))
	var out []report.Source
	for _, r := range rows {
		i, known := at[r.URL]
		if !known {
			at[r.URL] = len(out)
			out = append(out, r)
			continue
		}
		state := out[i].State
		out[i] = report.Merge(r.URL, []report.Source{out[i], r})
		out[i].State = state
	}
	return out
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
