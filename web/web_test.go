package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rebroadcastr/report"
	"rebroadcastr/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon is what web shows: a fixed status, and an import that refuses every line with "x" in it.
type daemon struct{ status report.Status }

func (d *daemon) Status() report.Status { return d.status }

func (d *daemon) Import(_ context.Context, lines io.Reader, noDeliver bool, rejects io.Writer) (done report.Source, err error) {
	b, err := io.ReadAll(lines)
	if err != nil {
		return done, err
	}
	for line := range strings.Lines(string(b)) {
		done.Received++
		if strings.Contains(line, "x") {
			done.Invalid++
			if _, err := io.WriteString(rejects, `{"reason":"json"}`+"\n"); err != nil {
				return done, err
			}
		}
	}
	if noDeliver {
		done.Note = "kept"
	}
	if strings.Contains(string(b), "break") {
		return done, errors.New("the archive is closed")
	}
	return done, nil
}

func running() *daemon {
	return &daemon{report.Status{
		State: report.Running, Version: "1", Archive: report.Archive{Dir: "/a", Lines: 7},
		Sources: []report.Source{{URL: "wss://a.example", State: report.Connected, Received: 9, New: 7, Copies: 2, BadFrames: map[string]int64{"not JSON": 3}}},
		Sinks:   []report.Sink{{URL: "wss://b.example", State: report.Waiting, Delivered: 5, Pending: 2, Issued: 7}},
	}}
}

func do(h http.Handler, method, target, token string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, target, nil)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestHealth(t *testing.T) {
	starting := running()
	starting.status.State, starting.status.Reason = report.Starting, "indexing the archive: 5 events so far"
	full := running()
	full.status.Archive.Waiting = "3 MiB free, archive.min_free is 128 MiB"
	for _, c := range []struct {
		name string
		d    *daemon
		code int
		text string
	}{
		{"running", running(), 200, "ok"},
		{"starting", starting, 503, "starting: indexing the archive"},
		{"no room", full, 503, "3 MiB free"},
	} {
		if w := do(web.ReadOnly(c.d), "GET", "/healthz", ""); w.Code != c.code || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s: %d %q, want %d with %q", c.name, w.Code, w.Body, c.code, c.text)
		}
	}
}

func TestReadOnly(t *testing.T) {
	h := web.ReadOnly(running())
	for _, path := range []string{"/", "/healthz", "/api/status", "/metrics", "/api/explain?id=1", "/api/relay?url=a", "/api/rejected?limit=2"} {
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405} {
			if w := do(h, method, path, ""); w.Code != want {
				t.Errorf("%s %s: %d, want %d", method, path, w.Code, want)
			}
		}
	}
	for _, path := range []string{"/control/import", "/control/retry", "/control/pause", "/control/resume", "/control/forget", "/debug/pprof/", "/nothing"} {
		if w := do(h, "GET", path, ""); w.Code != 404 {
			t.Errorf("GET %s: %d, want 404", path, w.Code)
		}
	}
	if w := do(web.WithProfiles(h), "GET", "/debug/pprof/", ""); w.Code != 200 {
		t.Errorf("profiles, when asked for: %d, want 200", w.Code)
	}
	var s report.Status
	if err := json.Unmarshal(do(h, "GET", "/api/status", "").Body.Bytes(), &s); err != nil || s.Sources[0].New != 7 || s.Sinks[0].Pending != 2 {
		t.Errorf("status: %+v, %v", s, err)
	}
}

func TestMetrics(t *testing.T) {
	text := do(web.ReadOnly(running()), "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		"rebroadcastr_running 1\n", "rebroadcastr_archive_lines_total 7\n",
		`rebroadcastr_source_connected{relay="wss://a.example"} 1`, `rebroadcastr_source_received_total{relay="wss://a.example"} 9`,
		`rebroadcastr_source_events_total{outcome="copy",relay="wss://a.example"} 2`,
		`rebroadcastr_source_bad_frames_total{reason="not JSON",relay="wss://a.example"} 3`,
		`rebroadcastr_sink_connected{relay="wss://b.example"} 0`, `rebroadcastr_sink_pending{relay="wss://b.example"} 2`,
		`rebroadcastr_sink_events_total{outcome="delivered",relay="wss://b.example"} 5`, "go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// TestMetricsOfTwoImports: both rows have the label "import", and Prometheus refuses a series that comes twice.
func TestMetricsOfTwoImports(t *testing.T) {
	d := running()
	for _, n := range []int64{3, 4} {
		d.status.Sources = append(d.status.Sources, report.Source{URL: "import", State: report.Connected, Received: n, New: n})
	}
	w := do(web.ReadOnly(d), "GET", "/metrics", "")
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics beside two imports: %d %s, want 200", w.Code, w.Body)
	}
	for _, want := range []string{
		`rebroadcastr_source_received_total{relay="import"} 7`,
		`rebroadcastr_source_events_total{outcome="new",relay="import"} 7`,
		`rebroadcastr_source_connected{relay="import"} 1`,
		`rebroadcastr_source_bad_frames_total{reason="not JSON",relay="wss://a.example"} 3`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("the metrics have no line %s", want)
		}
	}
}

func TestToken(t *testing.T) {
	h := web.WithToken(web.ReadOnly(running()), "secret-token")
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/api/status", "secret-token", 200}, {"/api/status", "", 401}, {"/api/status", "secret-toke", 401}, {"/metrics", "x", 401}, {"/healthz", "", 200},
	} {
		if w := do(h, "GET", c.path, c.token); w.Code != c.want {
			t.Errorf("GET %s with %q: %d, want %d", c.path, c.token, w.Code, c.want)
		}
	}
}

// The control socket takes an import and streams what is refused, over a real unix socket.
func TestImport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	d := running()
	go func() { served <- web.Serve(ctx, ln, web.Control(d, d, d, d), time.Second) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	send := func(query, body string) (lines []web.ImportLine) {
		t.Helper()
		resp, err := client.Post("http://x/control/import"+query, "application/jsonl", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		dec := json.NewDecoder(resp.Body)
		for {
			var l web.ImportLine
			if err := dec.Decode(&l); err == io.EOF {
				return lines
			} else if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l)
		}
	}
	if got := send("", "a\nx\nb\n"); len(got) != 2 || string(got[0].Reject) != `{"reason":"json"}` || got[1].Done == nil || got[1].Done.Received != 3 {
		t.Errorf("an import with one bad line: %+v", got)
	}
	if got := send("?no-deliver", "a\n"); len(got) != 1 || got[0].Done.Note != "kept" {
		t.Errorf("an import with no-deliver: %+v", got)
	}
	if got := send("", "break\n"); len(got) != 1 || got[0].Error != "the archive is closed" {
		t.Errorf("an import that fails: %+v", got)
	}
	if resp, err := client.Get("http://x/api/status"); err != nil || resp.StatusCode != 200 {
		t.Errorf("status on the control socket: %v", err)
	} else if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve, stopped: %v, want nil", err)
	}
}

// A listener that fails by itself ends Serve with an error.
// stopping imports refuse lines until a write fails; the stop comes when the client reads no more.
type stopping struct {
	daemon
	wrote chan int
}

func (d *stopping) Import(_ context.Context, _ io.Reader, _ bool, rejects io.Writer) (done report.Source, err error) {
	line := `{"reason":"` + strings.Repeat("x", 1<<16) + `"}` + "\n"
	n := 0
	for ; err == nil; n++ {
		if n == 2 { // as the pipeline does it, while a write waits or soon will
			rejects.(interface{ Interrupt() }).Interrupt()
		}
		_, err = io.WriteString(rejects, line)
	}
	d.wrote <- n
	return done, err
}

// TestImportIsInterrupted: a client that does not read what was refused cannot hold up a stop.
func TestImportIsInterrupted(t *testing.T) {
	d := &stopping{*running(), make(chan int, 1)}
	s := httptest.NewServer(web.Control(d, d, d, d))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /control/import HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{}\n"); err != nil {
		t.Fatal(err)
	}
	if n := <-d.wrote; n < 3 { // it ends at all: what is in the way is the kernel's buffers, some MB
		t.Errorf("%d lines were tried, want some", n)
	}
}

func TestServeFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if err := web.Serve(t.Context(), ln, http.NotFoundHandler(), time.Second); err == nil {
		t.Error("Serve on a closed listener: nil, want an error")
	}
}
