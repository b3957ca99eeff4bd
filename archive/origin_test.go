package archive

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rebroadcastr/record"
)

func drawOrigins(t *rapid.T, offset *int64, ordinal *uint64) []originRecord {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) originRecord {
		r := originRecord{offset: *offset, ordinal: *ordinal}
		*offset += rapid.Int64Range(1, 1<<20).Draw(t, "length")
		*ordinal++
		r.origin.Relay = rapid.SampledFrom([]string{"", "wss://a.example", "wss://b.example/x", "ws://127.0.0.1:7777"}).Draw(t, "relay")
		r.origin.How = record.How(rapid.IntRange(0, 5).Draw(t, "how"))
		r.origin.NoDeliver = rapid.Bool().Draw(t, "no deliver")
		if ms := rapid.Int64Range(0, 1<<45).Draw(t, "received"); ms > 0 {
			r.origin.Received = time.UnixMilli(ms)
		}
		return r
	}), 1, 300).Draw(t, "records")
}

// What is written is read, whatever is damaged in between: sound blocks come back whole, others not at all.
func TestOriginsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file := appendOriginHeader(nil, 7, 100)
		enc := newOriginEncoder()
		offset, ordinal := int64(0), uint64(100)
		type span struct {
			from, to int
			recs     []originRecord
		}
		var blocks []span
		for range rapid.IntRange(0, 5).Draw(t, "blocks") {
			recs := drawOrigins(t, &offset, &ordinal)
			from := len(file)
			file = enc.appendBlock(file, len(recs), func(i int) originRecord { return recs[i] })
			blocks = append(blocks, span{from, len(file), recs})
		}
		damaged := -1
		if len(blocks) > 0 && rapid.Bool().Draw(t, "damage") {
			at := rapid.IntRange(originHeaderSize, len(file)-1).Draw(t, "at")
			file[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
			for i, b := range blocks {
				if at >= b.from && at < b.to {
					damaged = i
				}
			}
		}
		if first, err := readOriginHeader(bytes.NewReader(file), 7); err != nil || first != 100 {
			t.Fatalf("header: first ordinal %d, %v", first, err)
		}
		o := originReader{f: bytes.NewReader(file)}
		for i, b := range blocks {
			for _, want := range b.recs {
				got, ok, err := o.at(want.offset)
				if err != nil {
					t.Fatal(err)
				}
				if i == damaged {
					if ok {
						t.Fatalf("a record of a damaged block came back: %+v", got)
					}
					continue
				}
				if !ok || got.ordinal != want.ordinal || got.origin.How != want.origin.How || got.origin.NoDeliver != want.origin.NoDeliver ||
					!got.origin.Received.Equal(want.origin.Received) {
					t.Fatalf("record %+v came back as %+v, %v", want, got, ok)
				}
				// A string that only a damaged block has is unknown.
				if got.origin.Relay != want.origin.Relay && (damaged < 0 || got.origin.Relay != "") {
					t.Fatalf("relay %q came back as %q", want.origin.Relay, got.origin.Relay)
				}
			}
		}
	})
}

func TestOriginHeaderRefuses(t *testing.T) {
	good := appendOriginHeader(nil, 7, 100)
	if _, err := readOriginHeader(bytes.NewReader(good), 8); err == nil {
		t.Error("the header of another segment was taken")
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		if _, err := readOriginHeader(bytes.NewReader(bad), 7); err == nil {
			t.Errorf("a header with byte %d changed was taken", at)
		}
		if _, err := readOriginHeader(bytes.NewReader(good[:at]), 7); err == nil {
			t.Errorf("a header of %d bytes was taken", at)
		}
	}
}

func FuzzOriginReader(f *testing.F) {
	file := appendOriginHeader(nil, 1, 0)
	file = newOriginEncoder().appendBlock(file, 2, func(i int) originRecord {
		return originRecord{offset: int64(i) * 400, ordinal: uint64(i), origin: record.Origin{Relay: fmt.Sprint(i), How: record.Live}}
	})
	f.Add(file)
	f.Fuzz(func(t *testing.T, payload []byte) {
		// A payload behind a sound CRC, too: that is where decoding begins.
		b := append([]byte(nil), file...)
		at := len(b)
		b = append(b, blockMarker...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
		b = append(b, payload...)
		b = binary.LittleEndian.AppendUint32(b, crcOf(b[at:]))
		for _, in := range [][]byte{payload, b} {
			o := originReader{f: bytes.NewReader(in)}
			for off := range int64(20) {
				if _, _, err := o.at(off * 400); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
