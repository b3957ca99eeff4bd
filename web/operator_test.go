package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"rebroadcastr/report"
	"rebroadcastr/web"
)

func (d *daemon) Explain(_ context.Context, id string) (report.Story, error) {
	if id == "" {
		return report.Story{}, report.Refuse(report.Malformed, "explain: no id")
	}
	return report.Story{ID: id, Archived: true}, nil
}

func (d *daemon) Relay(name string) (report.Relay, error) {
	if name != "a" {
		return report.Relay{}, report.Refuse(report.Absent, "there is no relay %s here", name)
	}
	return report.Relay{URL: name}, nil
}

func (d *daemon) Coverage(name string) (report.Coverage, error) {
	if name == "b" {
		return report.Coverage{}, report.Refuse(report.Absent, "b is no source")
	}
	return report.Coverage{Dir: "/a"}, nil
}

// Rejected gives as many rows as it is asked for, and then fails if the sink is "broken".
func (d *daemon) Rejected(_ context.Context, sink string, limit int, fn func(report.Rejected) error) error {
	for range limit {
		if err := fn(report.Rejected{Sink: sink, Text: "blocked: <no>"}); err != nil {
			return err
		}
	}
	if sink == "broken" {
		return errors.New("the disk is gone")
	}
	return nil
}

func (d *daemon) Retry(_ context.Context, sink, reason, id string) (report.Retried, error) {
	return report.Retried{Sink: sink, Note: reason + id, Offered: map[string]uint64{"blocked": 2}}, nil
}

func (d *daemon) Pause(relay string) (report.Held, error) {
	return report.Held{Relay: relay, Paused: true}, nil
}

func (d *daemon) Resume(relay string) (report.Held, error) {
	return report.Held{}, report.Refuse(report.NotReady, "not ready yet: opening the archive")
}

func (d *daemon) Reconcile(relay string) (report.Compared, error) {
	return report.Compared{Asked: []report.Comparison{{Relay: relay}}}, nil
}

func (d *daemon) Forget(sink string) (report.Forgotten, error) {
	if sink == "x" {
		return report.Forgotten{}, errors.New("the disk is gone")
	}
	return report.Forgotten{}, report.Refuse(report.Conflict, "%s is a sink of the running config: remove it first (reload)", sink)
}

func (d *daemon) Reload(_ context.Context, dry bool) (report.Reloaded, error) {
	if !dry {
		return report.Reloaded{}, report.Refuse(report.Malformed, "rebroadcastr.yaml:2: sinks: unknown key")
	}
	return report.Reloaded{Changes: []string{"+ sink wss://x"}, DryRun: true}, nil
}

// What changes something stands on the control socket alone; every refusal has its status and says why as JSON.
func TestOperator(t *testing.T) {
	control := web.Control(running(), running(), running(), running())
	for _, c := range []struct {
		method, target string
		code           int
		says           string
	}{
		{"GET", "/api/explain?id=ab", 200, `"id": "ab"`},
		{"GET", "/api/explain", 400, "explain: no id"},
		{"GET", "/api/relay?url=a", 200, `"url": "a"`},
		{"GET", "/api/relay?url=b", 404, "there is no relay b here"},
		{"GET", "/api/gaps", 200, `"sources": []`},
		{"GET", "/api/gaps?url=b", 404, "b is no source"},
		{"GET", "/api/rejected?limit=x", 400, "limit: not a whole number"},
		{"POST", "/control/retry?sink=s&reason=r", 200, `"blocked": 2`},
		{"POST", "/control/pause?relay=a", 200, `"paused": true`},
		{"POST", "/control/resume?relay=a", 503, "not ready yet"},
		{"POST", "/control/reconcile?relay=a", 200, `"relay": "a"`},
		{"POST", "/control/forget?sink=a", 409, "remove it first (reload)"},
		{"POST", "/control/reload?dry-run", 200, `"+ sink wss://x"`},
		{"POST", "/control/reload", 400, "rebroadcastr.yaml:2: sinks"},
		{"POST", "/control/forget?sink=x", 500, "the disk is gone"},
	} {
		w := do(control, c.method, c.target, "")
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: %d %q, want %d with %q", c.method, c.target, w.Code, w.Body, c.code, c.says)
		}
		var p web.Problem
		if w.Code >= 400 && w.Code != 405 && (json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Error == "") {
			t.Errorf("%s %s: %q is no problem in JSON", c.method, c.target, w.Body)
		}
	}
	for _, path := range []string{"retry", "pause", "resume", "forget", "reload", "reconcile"} {
		if w := do(web.ReadOnly(running()), "POST", "/control/"+path, ""); w.Code != 405 && w.Code != 404 {
			t.Errorf("POST /control/%s without the control socket: %d, want a refusal", path, w.Code)
		}
	}
}

// Refused events are JSON lines; what goes wrong in the middle is the last of them.
func TestRejectedLines(t *testing.T) {
	for target, want := range map[string]string{
		"/api/rejected?limit=0":             "",
		"/api/rejected?limit=1":             `{"sink":"","time":"0001-01-01T00:00:00Z","id":"","note":"","reason":"","text":"blocked: <no>"}` + "\n",
		"/api/rejected?limit=1&sink=broken": `{"error":"the disk is gone"}` + "\n",
	} {
		w := do(web.ReadOnly(running()), "GET", target, "")
		if w.Code != 200 || !strings.HasSuffix(w.Body.String(), want) || w.Header().Get("Content-Type") != "application/jsonl" {
			t.Errorf("GET %s: %d %s %q, want JSON lines that end with %q", target, w.Code, w.Header().Get("Content-Type"), w.Body, want)
		}
	}
	if w := do(web.ReadOnly(running()), "GET", "/api/rejected?limit=0&sink=broken", ""); w.Code != 500 {
		t.Errorf("an error before the first line: %d, want 500", w.Code)
	}
}
