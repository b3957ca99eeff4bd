package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"rebroadcastr/report"
)

// Teller answers questions about single events and relays. It changes nothing.
type Teller interface {
	// Explain tells all that is known of the event with the id, in hex.
	Explain(ctx context.Context, id string) (report.Story, error)
	// Relay tells what is behind a relay's rows; name is its URL or the config's name for it.
	Relay(name string) (report.Relay, error)
	// Coverage tells what is proven and what is not of a source, or of all with "".
	Coverage(name string) (report.Coverage, error)
	// Rejected gives fn what the sink (all with "") refused: the last limit ones, newest last; with 0 all.
	Rejected(ctx context.Context, sink string, limit int, fn func(report.Rejected) error) error
}

// Operator does what an operator asks for.
type Operator interface {
	// Retry offers again what the sink refused for a reason ("" for all), or the one event whose id, in hex, is given.
	Retry(ctx context.Context, sink, reason, id string) (report.Retried, error)
	Pause(relay string) (report.Held, error)
	Resume(relay string) (report.Held, error)
	Forget(sink string) (report.Forgotten, error)
	// Reconcile compares a relay, or all with "", with the archive.
	Reconcile(relay string) (report.Compared, error)
}

// Reloader takes up the config again.
type Reloader interface {
	// Reload applies the config as it is now, or with dry only tells what that would change. A config with mistakes is
	// refused as Malformed, with all of them in the text, and changes nothing.
	Reload(ctx context.Context, dry bool) (report.Reloaded, error)
}

// Problem is the body of an answer that is not 200.
type Problem struct {
	Error string `json:"error"`
}

// tell adds the questions to a mux that only reads.
func tell(mux *http.ServeMux, t Teller) {
	mux.HandleFunc("GET /api/explain", func(w http.ResponseWriter, req *http.Request) {
		answer(w)(t.Explain(req.Context(), req.URL.Query().Get("id")))
	})
	mux.HandleFunc("GET /api/relay", func(w http.ResponseWriter, req *http.Request) {
		answer(w)(t.Relay(req.URL.Query().Get("url")))
	})
	mux.HandleFunc("GET /api/gaps", func(w http.ResponseWriter, req *http.Request) {
		answer(w)(t.Coverage(req.URL.Query().Get("url")))
	})
	mux.HandleFunc("GET /api/rejected", func(w http.ResponseWriter, req *http.Request) { listRejected(w, req, t) })
}

// operate adds what changes something.
func operate(mux *http.ServeMux, o Operator) {
	mux.HandleFunc("POST /control/retry", func(w http.ResponseWriter, req *http.Request) {
		q := req.URL.Query()
		answer(w)(o.Retry(req.Context(), q.Get("sink"), q.Get("reason"), q.Get("id")))
	})
	mux.HandleFunc("POST /control/pause", func(w http.ResponseWriter, req *http.Request) { answer(w)(o.Pause(req.URL.Query().Get("relay"))) })
	mux.HandleFunc("POST /control/resume", func(w http.ResponseWriter, req *http.Request) { answer(w)(o.Resume(req.URL.Query().Get("relay"))) })
	mux.HandleFunc("POST /control/reconcile", func(w http.ResponseWriter, req *http.Request) {
		answer(w)(o.Reconcile(req.URL.Query().Get("relay")))
	})
	mux.HandleFunc("POST /control/forget", func(w http.ResponseWriter, req *http.Request) { answer(w)(o.Forget(req.URL.Query().Get("sink"))) })
}

// answer writes a value, or an error with the status that is proper for it.
func answer(w http.ResponseWriter) func(v any, err error) {
	return func(v any, err error) {
		if err != nil {
			writeProblem(w, err)
			return
		}
		writeJSON(w, v)
	}
}

func writeProblem(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if r, ok := errors.AsType[*report.Refusal](err); ok {
		code = map[report.Why]int{
			report.Malformed: http.StatusBadRequest, report.Absent: http.StatusNotFound, report.Conflict: http.StatusConflict,
			report.NotReady: http.StatusServiceUnavailable,
		}[r.Why]
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A reader that has gone cannot be told.
	_ = json.NewEncoder(w).Encode(Problem{err.Error()})
}

// listRejected streams JSON lines. What goes wrong after the first is said in the last one, which is a Problem.
func listRejected(w http.ResponseWriter, req *http.Request, t Teller) {
	limit, err := strconv.Atoi(req.URL.Query().Get("limit"))
	if err != nil {
		writeProblem(w, report.Refuse(report.Malformed, "limit: not a whole number, 0 or more"))
		return
	}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	begun := false
	err = t.Rejected(req.Context(), req.URL.Query().Get("sink"), limit, func(r report.Rejected) error {
		if !begun {
			w.Header().Set("Content-Type", "application/jsonl")
			begun = true
		}
		return out.Encode(r)
	})
	switch {
	case err != nil && !begun:
		writeProblem(w, err)
	case err != nil:
		_ = out.Encode(Problem{err.Error()})
	case !begun:
		w.Header().Set("Content-Type", "application/jsonl")
	}
}
