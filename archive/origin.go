package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"time"

	"rebroadcastr/record"
)

// An origin file says where a segment's events came from. Integers are little-endian, varints are those of
// encoding/binary, checksums are CRC-32C.
//
//	header  "RBORIGIN" | version u16 = 1 | zero u16 | segment u32 | first ordinal u64 | zero u32 | crc u32 of the 28 before
//	block   "RBob" | length u32 | payload | crc u32 of all before, in this block
//	payload uvarint: ordinal of the first record | offset of the first record
//	        uvarint: number of strings; each: its number | length | bytes       (relay URLs, numbered from 1)
//	        uvarint: number of records; each: offset less the one before | string number, 0 for none |
//	        varint: received, unix ms, less the one before (the first: less 0) | how u8 | flags u8
//
// Records ascend by offset, and their ordinals follow one another. A string stands in the block that first needs it.
// A block that fails its CRC is passed over up to the next that does not: its events' origins are unknown.
const (
	originMagic      = "RBORIGIN"
	originVersion    = 1
	originHeaderSize = 32
	blockMarker      = "RBob"
	blockOverhead    = 4 + 4 + 4
	maxBlock         = 4 << 20 // far above a group of 256
	minRecord        = 5
	flagNoDeliver    = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func appendOriginHeader(dst []byte, number uint32, first uint64) []byte {
	at := len(dst)
	dst = append(dst, originMagic...)
	dst = binary.LittleEndian.AppendUint16(dst, originVersion)
	dst = binary.LittleEndian.AppendUint16(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, number)
	dst = binary.LittleEndian.AppendUint64(dst, first)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	return binary.LittleEndian.AppendUint32(dst, crcOf(dst[at:]))
}

var errOriginHeader = errors.New("origin header is damaged")

// readOriginHeader returns the ordinal of the segment's first line.
func readOriginHeader(r io.ReaderAt, number uint32) (first uint64, err error) {
	var b [originHeaderSize]byte
	if n, err := r.ReadAt(b[:], 0); n < len(b) {
		if err == io.EOF {
			return 0, errOriginHeader
		}
		return 0, err
	}
	if string(b[:8]) != originMagic ||
		crcOf(b[:28]) != binary.LittleEndian.Uint32(b[28:]) ||
		binary.LittleEndian.Uint32(b[12:]) != number {
		return 0, errOriginHeader
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v != originVersion {
		return 0, fmt.Errorf("origin file has version %d, this program knows %d", v, originVersion)
	}
	return binary.LittleEndian.Uint64(b[16:]), nil
}

// originRecord is what an origin file knows of one line.
type originRecord struct {
	offset  int64
	ordinal uint64
	origin  record.Origin
}

// originEncoder makes the blocks of one file. It remembers which strings the file has.
type originEncoder struct {
	numbers map[string]uint64
	fresh   []string
	body    []byte
}

func newOriginEncoder() *originEncoder { return &originEncoder{numbers: map[string]uint64{}} }

// appendBlock encodes n records, which get(i) gives.
func (e *originEncoder) appendBlock(dst []byte, n int, get func(i int) originRecord) []byte {
	e.fresh, e.body = e.fresh[:0], e.body[:0]
	var first originRecord
	var offset, ms int64
	for i := range n {
		r := get(i)
		if i == 0 {
			first, offset = r, r.offset
		}
		number := uint64(0)
		if r.origin.Relay != "" {
			var ok bool
			if number, ok = e.numbers[r.origin.Relay]; !ok {
				number = uint64(len(e.numbers)) + 1
				e.numbers[r.origin.Relay] = number
				e.fresh = append(e.fresh, r.origin.Relay)
			}
		}
		received := int64(0)
		if !r.origin.Received.IsZero() {
			received = r.origin.Received.UnixMilli()
		}
		flags := byte(0)
		if r.origin.NoDeliver {
			flags |= flagNoDeliver
		}
		e.body = binary.AppendUvarint(e.body, uint64(r.offset-offset))
		e.body = binary.AppendUvarint(e.body, number)
		e.body = binary.AppendVarint(e.body, received-ms)
		e.body = append(e.body, byte(r.origin.How), flags)
		offset, ms = r.offset, received
	}
	at := len(dst)
	dst = append(dst, blockMarker...)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, first.ordinal)
	dst = binary.AppendUvarint(dst, uint64(first.offset))
	dst = binary.AppendUvarint(dst, uint64(len(e.fresh)))
	for _, s := range e.fresh {
		dst = binary.AppendUvarint(dst, e.numbers[s])
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = append(dst, e.body...)
	binary.LittleEndian.PutUint32(dst[at+4:], uint32(len(dst)-at-8))
	return binary.LittleEndian.AppendUint32(dst, crcOf(dst[at:]))
}

// originReader walks through an origin file beside its text. The zero value with f set reads from the start.
type originReader struct {
	f       io.ReaderAt // nil: there is none, every origin is unknown
	pos     int64       // of the next block; 0: the header has not been passed
	buf     []byte
	bufAt   int64
	strings map[uint64]string
	block   []originRecord
	next    int // in block
	last    originRecord
	hasLast bool // last is the record with the highest offset that was passed
	shared  bool // strings is: a guide has it, too
	guide   *guide
}

// at returns the record of the line at offset, which ascends from call to call. It stays before a block that is not
// there yet.
func (o *originReader) at(offset int64) (originRecord, bool, error) {
	for {
		for o.next < len(o.block) {
			r := o.block[o.next]
			if r.offset > offset {
				return originRecord{}, false, nil
			}
			o.next++
			o.last, o.hasLast = r, true
			if r.offset == offset {
				return r, true, nil
			}
		}
		o.guide.note(o)
		ok, err := o.readBlock()
		if !ok || err != nil {
			return originRecord{}, false, err
		}
	}
}

// readBlock reads the next sound block, or none if the file has no more.
func (o *originReader) readBlock() (bool, error) {
	if o.f == nil {
		return false, nil
	}
	if o.pos == 0 {
		o.pos = originHeaderSize
	}
	size, err := o.decodeAt(o.pos)
	if err != nil {
		return false, err
	}
	if size == 0 {
		at, err := o.seekBlock(o.pos + 1)
		if at < 0 || err != nil {
			o.buf = o.buf[:0] // what is there may yet change: the writer is at it
			return false, err
		}
		o.pos = at
		if size, err = o.decodeAt(at); size == 0 || err != nil {
			return false, err
		}
	}
	o.pos += size
	return true, nil
}

// seekBlock finds a sound block at or after pos: -1 if there is none.
func (o *originReader) seekBlock(pos int64) (int64, error) {
	for {
		b, err := o.bytes(pos, 8<<10)
		if err != nil || len(b) < blockOverhead {
			return -1, err
		}
		i := bytes.Index(b, []byte(blockMarker))
		if i < 0 {
			pos += int64(len(b) - len(blockMarker) + 1)
			continue
		}
		at := pos + int64(i)
		size, err := o.decodeAt(at)
		if err != nil {
			return -1, err
		}
		if size > 0 {
			return at, nil
		}
		pos = at + 1
	}
}

// decodeAt decodes the block at pos into o.block and returns its size; 0: there is no sound block.
func (o *originReader) decodeAt(pos int64) (int64, error) {
	b, err := o.bytes(pos, 8)
	if err != nil || len(b) < 8 || string(b[:4]) != blockMarker {
		return 0, err
	}
	length := binary.LittleEndian.Uint32(b[4:])
	if length > maxBlock {
		return 0, nil
	}
	size := int(length) + blockOverhead
	if b, err = o.bytes(pos, size); err != nil || len(b) < size {
		return 0, err
	}
	b = b[:size]
	if crcOf(b[:size-4]) != binary.LittleEndian.Uint32(b[size-4:]) || !o.decode(b[8:size-4]) {
		return 0, nil
	}
	return int64(size), nil
}

func (o *originReader) decode(b []byte) bool {
	d := varints{b: b}
	ordinal, offset := d.uvarint(), d.uvarint()
	for range d.uvarint() {
		number, length := d.uvarint(), d.uvarint()
		if d.bad || length > uint64(len(d.b)) {
			return false
		}
		switch {
		case o.strings == nil:
			o.strings = map[uint64]string{}
		case o.shared:
			o.strings = maps.Clone(o.strings)
		}
		o.shared = false
		o.strings[number] = string(d.b[:length])
		d.b = d.b[length:]
	}
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)/minRecord) {
		return false
	}
	o.block, o.next = slices.Grow(o.block[:0], int(n))[:n], 0
	var ms int64
	var number uint64
	relay := "" // number's
	for i := range o.block {
		offset += d.uvarint()
		if next := d.uvarint(); next != number {
			number, relay = next, o.strings[next]
		}
		zigzag := d.uvarint() // as binary.PutVarint writes it
		if d.bad || len(d.b) < 2 {
			o.block = o.block[:0]
			return false
		}
		ms += int64(zigzag>>1) ^ -int64(zigzag&1)
		r := &o.block[i]
		*r = originRecord{offset: int64(offset), ordinal: ordinal + uint64(i), origin: record.Origin{
			Relay: relay, How: record.How(d.b[0]), NoDeliver: d.b[1]&flagNoDeliver != 0,
		}}
		if ms != 0 {
			r.origin.Received = time.UnixMilli(ms)
		}
		d.b = d.b[2:]
	}
	return true
}

// varints are taken off the front of b.
type varints struct {
	b   []byte
	bad bool
}

func (d *varints) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 { // most are that short
		v := d.b[0]
		d.b = d.b[1:]
		return uint64(v)
	}
	return d.long()
}

func (d *varints) long() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes returns n bytes at pos, fewer at the file's end.
func (o *originReader) bytes(pos int64, n int) ([]byte, error) {
	if at := pos - o.bufAt; at >= 0 && at+int64(n) <= int64(len(o.buf)) {
		return o.buf[at:][:n], nil
	}
	want := max(n, 4<<10)
	if cap(o.buf) < want {
		o.buf = make([]byte, want)
	}
	got, err := o.f.ReadAt(o.buf[:want], pos)
	if err != nil && err != io.EOF {
		o.buf = o.buf[:0]
		return nil, err
	}
	o.buf, o.bufAt = o.buf[:got], pos
	return o.buf[:min(n, got)], nil
}
