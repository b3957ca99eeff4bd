package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net"
)

// frames is the connection that gorilla works on: the wire, or TLS over it. It lets the reader take a text message that is one
// frame, uncompressed and whole in the buffer, as relays send all but everything: from where the socket put it, without a copy
// and without gorilla's reader for each message, which is an allocation.
//
// Anything else is gorilla's to read, check and answer, as if this were not here: control frames, fragments, compressed and
// binary messages, what is longer than the buffer, what is wrong. It gets the handshake's bytes line by line and then those
// of one frame at a time, so it never holds a byte of the frame behind it.
type frames struct {
	net.Conn
	wire *wire
	open bool // the handshake is over
	said int  // bytes of it that gorilla was given

	// The reader's own.
	buf      []byte
	from, to int   // buf[from:to] was read and not taken yet
	err      error // of the read behind that
	left     int64 // bytes of the frame that gorilla reads, head included, which it has not been given
	within   bool  // gorilla has begun a message whose last fragment it has not been given
}

func newFrames(conn net.Conn, w *wire) *frames {
	return &frames{Conn: conn, wire: w, buf: make([]byte, readBuffer+maxHead)}
}

// The head of a frame from a server (RFC 6455 5.2).
const (
	finalText = 0x81 // the only fragment of a text message; no extension's bit
	finalBit  = 0x80
	opcode    = 0x0f
	maxHead   = 2 + 8 // no mask: what has one is refused
)

// maxAnswer is what a relay may say before the first frame, in bytes; relays say some 200. net/http would keep all that comes.
const maxAnswer = 64 << 10

var errLongAnswer = fmt.Errorf("the answer to the upgrade is longer than %d KiB", maxAnswer>>10)

// frameHead reads a frame's head: its own length, and the payload's. ok is false while bytes of it are missing.
func frameHead(b []byte) (head int, payload int64, ok bool) {
	if len(b) < 2 {
		return 0, 0, false
	}
	switch n := b[1] &^ 0x80; {
	case n < 126:
		return 2, int64(n), true
	case n == 126:
		if len(b) < 4 {
			return 0, 0, false
		}
		return 4, int64(binary.BigEndian.Uint16(b[2:])), true
	}
	if len(b) < maxHead {
		return 0, 0, false
	}
	return maxHead, int64(binary.BigEndian.Uint64(b[2:])), true
}

// text reads the next message if it is a plain one: see frames. It is valid until the next read. False: it is gorilla's to read,
// errors too.
func (f *frames) text() (msg []byte, ok bool) {
	if f.left != 0 || f.within {
		return nil, false
	}
	for {
		have := f.buf[f.from:f.to]
		if len(have) >= 2 && (have[0] != finalText || have[1]&0x80 != 0) {
			return nil, false
		}
		if head, n, ok := frameHead(have); ok {
			if n < 0 || n > int64(len(f.buf)-head) {
				return nil, false
			}
			if end := head + int(n); end <= len(have) {
				f.from += end
				return have[head:end:end], true
			}
			f.wire.begun()
		}
		if f.err != nil {
			return nil, false
		}
		f.fill()
	}
}

// fill reads more behind what the buffer holds, less than a frame that fits.
func (f *frames) fill() {
	if f.from > 0 {
		f.to = copy(f.buf, f.buf[f.from:f.to])
		f.from = 0
	}
	n, err := f.Conn.Read(f.buf[f.to:])
	f.to += n
	f.err = err
}

// Read gives gorilla what it reads itself.
func (f *frames) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if f.open && f.left == 0 {
		f.next()
	}
	if f.from == f.to && f.err == nil {
		if f.open && f.left > 0 { // a long one: no need to go through the buffer
			n, err := f.Conn.Read(p[:min(int64(len(p)), f.left)])
			f.left -= int64(n)
			return n, err
		}
		f.fill()
	}
	have := f.buf[f.from:f.to]
	if len(have) == 0 {
		return 0, f.err
	}
	if !f.open {
		if end := bytes.IndexByte(have, '\n'); end >= 0 {
			have = have[:end+1]
		}
	} else if f.left > 0 {
		have = have[:min(int64(len(have)), f.left)]
	}
	n := copy(p, have)
	if !f.open {
		if f.said += n; f.said > maxAnswer {
			return 0, &End{Reason: Protocol, Err: errLongAnswer}
		}
	}
	f.from += n
	f.left = max(f.left-int64(n), 0)
	return n, nil
}

// next makes the next frame the one that gorilla reads. Where the head is cut short by an error, it gets what there is.
func (f *frames) next() {
	for {
		have := f.buf[f.from:f.to]
		head, n, ok := frameHead(have)
		if ok {
			f.left = int64(head) + min(max(n, 0), math.MaxInt64/2) // it refuses a negative length
			if kind := have[0] & opcode; kind < 8 {
				f.within = have[0]&finalBit == 0
			}
			return
		}
		if f.err != nil {
			return
		}
		f.fill()
	}
}
