package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"
)

// person signs events for tests. The key is made from the name, so that a run can be repeated.
type person struct{ secret, pubkey string }

func someone(t testing.TB, name string) person {
	t.Helper()
	h := sha256.Sum256([]byte("rebroadcastr e2e " + name))
	p := person{secret: hex.EncodeToString(h[:])}
	var err error
	if p.pubkey, err = nostr.GetPublicKey(p.secret); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p person) npub(t testing.TB) string {
	t.Helper()
	s, err := nip19.EncodePublicKey(p.pubkey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sign makes an event.
func (p person) sign(t testing.TB, createdAt int64, kind int, content string, tags ...nostr.Tag) *nostr.Event {
	t.Helper()
	e := &nostr.Event{CreatedAt: nostr.Timestamp(createdAt), Kind: kind, Content: content, Tags: tags}
	if e.Tags == nil {
		e.Tags = nostr.Tags{}
	}
	if err := e.Sign(p.secret); err != nil {
		t.Fatalf("sign: %v", err)
	}
	return e
}

// notes makes n kind 1 events, a second apart.
func (p person) notes(t testing.TB, from int64, n int) []*nostr.Event {
	t.Helper()
	out := make([]*nostr.Event, n)
	for i := range out {
		out[i] = p.sign(t, from+int64(i), 1, fmt.Sprintf("note %d of %d", i+1, n))
	}
	return out
}
