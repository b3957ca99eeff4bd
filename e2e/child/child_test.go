package child_test

import (
	"os/signal"
	"syscall"
	"testing"
	"time"

	"rebroadcastr/e2e/child"
)

// TestHearsSIGHUP: a child hears SIGHUP though its parent, as under nohup, ignores it.
func TestHearsSIGHUP(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	p, err := child.Start(child.Options{Binary: "/bin/sh", Args: []string{"-c", "kill -HUP $$; exit 7"}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(time.Minute); code != -1 || err != nil {
		t.Errorf("the signal is ignored: exit %d, %v; want -1, nil", code, err)
	}
}
