package sinks

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"rebroadcastr/event"
	"rebroadcastr/place"
)

// recordVersion is the format of the ledger's record. A record of another version is not read: the caller starts the
// ledger anew, which sends again and skips nothing.
const recordVersion = 2

// Counters say what became of every ordinal below the frontier that is not open.
type Counters struct {
	Before       uint64            `json:"before"`     // ordinals before the sink's start
	Delivered    uint64            `json:"delivered"`  // accepted as new
	Duplicate    uint64            `json:"duplicate"`  // the relay had it
	Superseded   uint64            `json:"superseded"` // the relay has a newer version (replaced:)
	Rejected     map[string]uint64 `json:"rejected"`   // by the prefix of the relay's text
	Skipped      map[string]uint64 `json:"skipped"`    // by Skip… reason or the policy table's row
	Parked       uint64            `json:"parked"`
	ParkedErrors uint64            `json:"parked_errors"` // those parked for error:
	ParkedLacked uint64            `json:"parked_lacked"` // those parked because the relay lacks them, and not sent since
}

func (c Counters) clone() Counters {
	c.Rejected, c.Skipped = maps.Clone(c.Rejected), maps.Clone(c.Skipped)
	return c
}

// RejectedTotal counts the rejected over all prefixes.
func (c Counters) RejectedTotal() uint64 { return total(c.Rejected) }

// SkippedTotal counts the skipped over all reasons.
func (c Counters) SkippedTotal() uint64 { return total(c.Skipped) }

func total(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

// maxKeys bounds the reasons counted apart: a relay chooses the prefixes of its texts.
const maxKeys = 48

// keyFor is the key that reason is counted under in m.
func keyFor(m map[string]uint64, reason string) string {
	if _, known := m[reason]; known || len(m) < maxKeys {
		return reason
	}
	return "other"
}

// Balance is the equation every sink keeps: what was issued since its start is settled, open or parked.
type Balance struct {
	Delivered, Superseded, Rejected, Skipped, Pending, Parked uint64
	Issued                                                    uint64 // the archive's next ordinal
	Before                                                    uint64 // ordinals before the sink's start
}

// Check returns nil if delivered + superseded + rejected + skipped + pending + parked = issued − before.
func (b Balance) Check() error {
	sum := b.Delivered + b.Superseded + b.Rejected + b.Skipped + b.Pending + b.Parked
	if want := b.Issued - b.Before; sum != want {
		return fmt.Errorf("balance of a sink: %d delivered + %d superseded + %d rejected + %d skipped + %d pending + %d parked = %d, want %d issued - %d before its start = %d",
			b.Delivered, b.Superseded, b.Rejected, b.Skipped, b.Pending, b.Parked, sum, b.Issued, b.Before, want)
	}
	return nil
}

// mark is a place in the archive with its ordinal.
type mark struct {
	Ordinal uint64
	Place   place.Place
}

func (m mark) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d@%x", m.Ordinal, m.Place.Append(nil)), nil
}

func (m *mark) UnmarshalText(b []byte) error {
	var encoded []byte
	if _, err := fmt.Sscanf(string(b), "%d@%x", &m.Ordinal, &encoded); err != nil {
		return fmt.Errorf("read a mark %q: %w", b, err)
	}
	p, err := place.Decode(encoded)
	m.Place = p
	return err
}

// storedRecord is a ledger as it is committed.
type storedRecord struct {
	Version  int      `json:"version"`
	Since    int64    `json:"since"` // events dated before are skipped; unix seconds, 0: none
	Rules    string   `json:"rules"` // key of the rules the sink was last run with
	Pass     pass     `json:"pass,omitzero"`
	Cursor   mark     `json:"cursor"` // derived, for who reads the file: the oldest open, or the frontier
	Frontier mark     `json:"frontier"`
	Open     []byte   `json:"open"`              // markSize bytes each, ascending
	Control  *mark    `json:"control,omitempty"` // an event that the sink took
	Counters Counters `json:"counters"`
	Offers   []offer  `json:"offers,omitempty"`

	Again  again     `json:"again,omitzero"`
	Lacked []uint64  `json:"lacked,omitempty"` // of the open ones: opened again because the relay lacks them
	Lack   LackCount `json:"lack,omitzero"`
}

// offer is a walk over the refused rows: those whose text begins with Text are offered again. Next is the first ordinal that it has
// not looked at.
type offer struct {
	Text string `json:"text"`
	Next uint64 `json:"next"`
}

const markSize = 8 + place.Size

func appendMark(dst []byte, m mark) []byte {
	return m.Place.Append(binary.BigEndian.AppendUint64(dst, m.Ordinal))
}

func decodeMarks(b []byte) ([]mark, error) {
	if len(b)%markSize != 0 {
		return nil, fmt.Errorf("read open ordinals: %d bytes are no multiple of %d", len(b), markSize)
	}
	ms := make([]mark, 0, len(b)/markSize)
	for c := range slices.Chunk(b, markSize) {
		p, err := place.Decode(c[8:])
		if err != nil {
			return nil, err
		}
		ms = append(ms, mark{binary.BigEndian.Uint64(c), p})
	}
	return ms, nil
}

func decodeRecord(b []byte) (storedRecord, []mark, error) {
	var r storedRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return r, nil, fmt.Errorf("read a ledger: %w", err)
	}
	if r.Version != recordVersion {
		return r, nil, fmt.Errorf("read a ledger: version %d, want %d", r.Version, recordVersion)
	}
	open, err := decodeMarks(r.Open)
	return r, open, err
}

// parkedRow is the value of a parked event; its due time and ordinal are the key.
type parkedRow struct {
	Place    mark   `json:"at"`
	Attempts int    `json:"attempts"`
	Reason   string `json:"reason"`
}

// parkedKey sorts by due time (milliseconds), then ordinal.
type parkedKey [16]byte

func makeParkedKey(due time.Time, ordinal uint64) (k parkedKey) {
	binary.BigEndian.PutUint64(k[:], uint64(max(due.UnixMilli(), 0)))
	binary.BigEndian.PutUint64(k[8:], ordinal)
	return k
}

func (k parkedKey) due() time.Time {
	return time.UnixMilli(int64(min(binary.BigEndian.Uint64(k[:]), math.MaxInt64)))
}

func (k parkedKey) ordinal() uint64 { return binary.BigEndian.Uint64(k[8:]) }

// Rejected is one event that a sink refused for good.
type Rejected struct {
	Ordinal uint64      `json:"-"` // the key
	At      place.Place `json:"-"`
	ID      event.ID    `json:"-"`
	Prefix  string      `json:"prefix"` // what it is counted under
	Text    string      `json:"text"`   // the relay's own words, cut at maxText
	Time    time.Time   `json:"time"`
}

// maxText bounds a relay's text in a row, in bytes.
const maxText = 256

// rejectedJSON is the stored form of a Rejected.
type rejectedJSON struct {
	ID     string    `json:"id"`
	At     mark      `json:"at"`
	Prefix string    `json:"prefix"`
	Text   string    `json:"text"`
	Time   time.Time `json:"time"`
}

func (r Rejected) encode() []byte {
	b, err := json.Marshal(rejectedJSON{r.ID.String(), mark{r.Ordinal, r.At}, r.Prefix, r.Text, r.Time})
	if err != nil {
		panic("sinks: encode a rejected row: " + err.Error()) // strings and numbers only: cannot fail
	}
	return b
}

func decodeRejected(b []byte) (Rejected, error) {
	var j rejectedJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Rejected{}, fmt.Errorf("read a rejected row: %w", err)
	}
	id, err := event.ParseID(j.ID)
	if err != nil {
		return Rejected{}, fmt.Errorf("read a rejected row: %w", err)
	}
	return Rejected{j.At.Ordinal, j.At.Place, id, j.Prefix, j.Text, j.Time}, nil
}

// putOrDelete writes one row; nil deletes it.
func putOrDelete(b *bbolt.Bucket, key, value []byte) error {
	if value == nil {
		return b.Delete(key)
	}
	return b.Put(key, value)
}
