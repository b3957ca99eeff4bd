// Package corpus reads the real events that tests and the demo work on: what a public relay sent for one REQ, one message
// a line, with its EOSE.
package corpus

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/nbd-wtf/go-nostr"
)

// File is where the messages lie, seen from the folder e2e.
const File = "../testdata/relay-messages.jsonl"

// Load reads the events of a file of relay messages, in its order. An event whose id or signature is wrong is an error.
func Load(file string) ([]*nostr.Event, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the real events: %w", err)
	}
	var events []*nostr.Event
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var msg []json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &msg); err != nil || len(msg) < 3 || string(msg[0]) != `"EVENT"` {
			continue // the EOSE at the end
		}
		e := new(nostr.Event)
		if err := json.Unmarshal(msg[2], e); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		if ok, err := e.CheckSignature(); !e.CheckID() || !ok || err != nil {
			return nil, fmt.Errorf("%s:%d: event %s is not genuine", file, n, e.ID)
		}
		events = append(events, e)
	}
	return events, lines.Err()
}
