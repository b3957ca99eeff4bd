package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/localrelay"
)

// TestSinkReconcile: what a real sink took and has lost comes back when it is asked for, once; what is kept from it never goes, and
// a sink without NIP-77 is left as it is.
func TestSinkReconcile(t *testing.T) {
	alice := someone(t, "alice")
	notes := alice.notes(t, 1_700_000_000, 700)
	kept := []*nostr.Event{ // by the table
		alice.sign(t, 1_700_000_500, 4, "a dm", nostr.Tag{"p", alice.pubkey}), alice.sign(t, 1_700_000_501, 1059, "a wrap", nostr.Tag{"p", alice.pubkey}),
		alice.sign(t, 1_700_000_502, 17375, "a wallet"), alice.sign(t, 1_700_000_503, 1, "mine alone", nostr.Tag{"-"}),
		alice.sign(t, 1_700_000_504, 1, "gone", nostr.Tag{"expiration", "1700000600"}), alice.sign(t, 1_700_000_505, 31234, "a draft", nostr.Tag{"d", "1"}),
	}
	deleted := alice.sign(t, 1_700_000_506, 1, "wrong")
	deletion := alice.sign(t, 1_700_000_507, 5, "", nostr.Tag{"e", deleted.ID})
	kept = append(kept, deleted)
	wanted := append(slices.Clone(notes), deletion)
	source := relay(t, localrelay.Options{KeepAll: true}, append(slices.Clone(wanted), kept...)...)
	sink := relay(t, localrelay.Options{KeepAll: true, Negentropy: true})
	plain := relay(t, localrelay.Options{KeepAll: true})
	dir := filepath.Join(tempDir(t), "archive")
	d := run(t, dir, "--author", alice.npub(t), "--source", source.URL(), "--sink", sink.URL(), "--sink", plain.URL())
	eventually(t, "both sinks have all", func() error {
		for _, r := range []*localrelay.Relay{sink, plain} {
			if n := len(stored(t, r)); n != len(wanted) {
				return fmt.Errorf("%s has %d events, want %d", r.URL(), n, len(wanted))
			}
		}
		s, err := d.ask()
		if err != nil {
			return err
		}
		return s.idle()
	})
	compared := func(r *localrelay.Relay, says string) {
		t.Helper()
		if p := wantExit(t, 0, "reconcile", "--archive", dir, r.URL()); !strings.Contains(p.Stdout(), "sink "+r.URL()) {
			t.Errorf("reconcile says %q, want the sink", p.Stdout())
		}
		eventually(t, "status tells of it", func() error {
			if p := wantExit(t, 0, "status", "--archive", dir, r.URL()); !strings.Contains(p.Stdout(), says) {
				return errors.New(p.Stdout())
			}
			return nil
		})
	}
	lose := func(lost []*nostr.Event, says string) {
		t.Helper()
		sent := len(sink.Received())
		if err := sink.Lose(lost...); err != nil {
			t.Fatal(err)
		}
		compared(sink, says)
		wantSet(t, "the sink", stored(t, sink), setOf(wanted))
		wantSet(t, "what it was sent again", setOf(sink.Received()[sent:]), setOf(lost))
		if again := len(sink.Received()) - sent; again != len(lost) {
			t.Errorf("%d events were sent, want the %d that were lost", again, len(lost))
		}
		if k := d.settled().sink(t, sink.URL()); k.Delivered != int64(len(wanted)) {
			t.Errorf("%d delivered, want %d", k.Delivered, len(wanted))
		}
	}
	lose(notes[100:140], "offered 40 again, 40 taken, 0 it had, 0 refused")
	lose(wanted, fmt.Sprintf("offered %[1]d again, %[1]d taken", len(wanted)))
	lose(nil, fmt.Sprintf("it lacked %d of", len(kept)))

	if err := plain.Lose(notes[:10]...); err != nil {
		t.Fatal(err)
	}
	before := len(plain.Received())
	compared(plain, "does not reconcile")
	if len(plain.Received()) != before || len(plain.Requests()) > 0 {
		t.Error("a sink without NIP-77 was asked, or sent something")
	}
	d.stop()
}
