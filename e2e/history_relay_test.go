package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/realrelay"
)

// relayVariable names a file of events, one a line. Where it is set, the test binary is a relay that holds them.
const relayVariable = "E2E_RELAY"

// hoardRelay is a relay in a process of its own.
type hoardRelay struct {
	*process
	url string
}

// startHoardRelay starts one on a file of events.
func startHoardRelay(t testing.TB, file string) *hoardRelay {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, child.Options{Binary: self, Env: []string{relayVariable + "=" + file}})
	r := &hoardRelay{process: p}
	eventually(t, "the relay has read its events", func() error {
		select {
		case <-p.Done():
			t.Fatalf("the relay has ended: %s", p.Stderr())
		default:
		}
		url, _, ok := strings.Cut(p.Stdout(), "\n")
		if !ok {
			return errors.New("it does not listen yet")
		}
		r.url = url
		return nil
	})
	return r
}

func (r *hoardRelay) served(t testing.TB) (s realrelay.Served) {
	t.Helper()
	resp, err := http.Get("http" + strings.TrimPrefix(r.url, "ws") + "/served")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// beTheRelay serves a file of events until the process is told to end.
func beTheRelay(file string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	r, err := realrelay.Start(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r.Handle("/served", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(r.Served()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	fmt.Println(r.URL)
	<-ctx.Done()
	if err := r.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
