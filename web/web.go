// Package web shows how the daemon stands over HTTP: status as JSON, metrics for Prometheus and health. The same
// read-only mux serves the control socket always and a TCP address when one is set; the socket adds control.
package web

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rebroadcastr/report"
)

// Reporter tells how the daemon stands. It is asked for every request, also while the daemon is still starting.
type Reporter interface {
	Status() report.Status
	Teller
}

// Importer takes JSONL through the stages of the running daemon.
type Importer interface {
	// Import returns once everything that was accepted is durable. Each refused line is written to rejects as one
	// JSON object.
	Import(ctx context.Context, lines io.Reader, noDeliver bool, rejects io.Writer) (report.Source, error)
}

// ReadOnly is what TCP and the control socket share: /healthz, /metrics and what is below /api. Other methods than GET
// and HEAD are refused.
func ReadOnly(r Reporter) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{r})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { health(w, r.Status()) })
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, r.Status()) })
	tell(mux, r)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		// The reader has gone when this fails; there is nobody to tell.
		if err := r.Status().WriteStatus(w); err == nil {
			fmt.Fprintln(w, "\n/api/status  /metrics  /healthz")
		}
	})
	return mux
}

// WithProfiles adds net/http/pprof below /debug/pprof/.
func WithProfiles(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// WithToken asks for "Authorization: Bearer TOKEN" on everything but /healthz.
func WithToken(h http.Handler, token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if r.URL.Path != "/healthz" && subtle.ConstantTimeCompare([]byte(got), []byte(token)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a token is needed", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Control is the control socket's mux: ReadOnly and the requests that change something.
func Control(r Reporter, imp Importer, op Operator, re Reloader) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", ReadOnly(r))
	mux.HandleFunc("POST /control/import", func(w http.ResponseWriter, req *http.Request) {
		importLines(w, req, imp)
	})
	operate(mux, op)
	mux.HandleFunc("POST /control/reload", func(w http.ResponseWriter, req *http.Request) {
		answer(w)(re.Reload(req.Context(), req.URL.Query().Has("dry-run")))
	})
	return mux
}

// ImportLine is one line of the answer to an import: a refused line, or at the end the counts.
type ImportLine struct {
	Reject json.RawMessage `json:"reject,omitempty"`
	Done   *report.Source  `json:"done,omitempty"`
	Error  string          `json:"error,omitempty"`
}

func importLines(w http.ResponseWriter, req *http.Request, imp Importer) {
	rc := http.NewResponseController(w)
	// Rejects go out while lines still come in.
	if err := rc.EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	out := json.NewEncoder(w)
	done, err := imp.Import(req.Context(), req.Body, req.URL.Query().Has("no-deliver"), &rejectWriter{out: out, rc: rc})
	if derr := rc.SetWriteDeadline(time.Now().Add(rejectTime)); err == nil {
		err = derr
	}
	line := ImportLine{Done: &done}
	if err != nil {
		line.Error = err.Error()
	}
	// A client that has gone cannot be told; what it sent is archived all the same.
	_ = out.Encode(line)
}

// rejectWriter wraps each JSON object that is written to it into an ImportLine.
type rejectWriter struct {
	out *json.Encoder
	rc  *http.ResponseController

	mu   sync.Mutex
	last time.Time // no Write goes on beyond it; zero: not interrupted
}

// How long a client may leave a refused line unread before its import is given up, and when the daemon stops.
const (
	rejectTime = 10 * time.Second
	stopTime   = time.Second
)

func (r *rejectWriter) Write(p []byte) (int, error) {
	if err := r.allow(); err != nil {
		return 0, err
	}
	if err := r.out.Encode(ImportLine{Reject: json.RawMessage(p)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (r *rejectWriter) allow() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	until := time.Now().Add(rejectTime)
	if !r.last.IsZero() {
		until = r.last
	}
	return r.rc.SetWriteDeadline(until)
}

// Interrupt gives what is being written stopTime: a client that does not read holds up no stop.
func (r *rejectWriter) Interrupt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now().Add(stopTime)
	// A connection that has gone needs no deadline.
	_ = r.rc.SetWriteDeadline(r.last)
}

func health(w http.ResponseWriter, s report.Status) {
	why := s.Reason
	if s.Archive.Waiting != "" {
		why = s.Archive.Waiting
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.State != report.Running || s.Archive.Waiting != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "%s: %s\n", s.State, why)
		return
	}
	fmt.Fprintln(w, "ok")
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	// The header is out: a failure here is a reader that has gone.
	_ = enc.Encode(v)
}

// Serve answers on ln until ctx ends; requests then get grace to finish. It owns ln.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, grace time.Duration) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		err := srv.Shutdown(end)
		if err != nil {
			err = srv.Close()
		}
		stopped <- err
	})
	err := srv.Serve(ln)
	if stop() { // ctx has not ended: the listener failed by itself
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	if closing := <-stopped; closing != nil && !errors.Is(closing, net.ErrClosed) {
		return fmt.Errorf("close %s: %w", ln.Addr(), closing)
	}
	return nil
}
