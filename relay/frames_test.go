package relay

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// taped is a connection with a relay that says what is on a tape, in pieces of a given size, and then ends. It keeps what it is told.
type taped struct {
	net.Conn
	tape  []byte // behind the handshake's answer
	piece int
	zip   bool // permessage-deflate is agreed
	said  []byte
	told  bytes.Buffer
	ready bool
}

func (c *taped) Write(p []byte) (int, error) {
	c.told.Write(p)
	if !c.ready && bytes.HasSuffix(c.told.Bytes(), []byte("\r\n\r\n")) {
		req, err := http.ReadRequest(bufio.NewReader(&c.told))
		if err != nil {
			return 0, err
		}
		sum := sha1.Sum([]byte(req.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
			base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
		if c.zip {
			answer += "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
		}
		c.said, c.ready = append([]byte(answer+"\r\n"), c.tape...), true
		c.told.Reset()
	}
	return len(p), nil
}

func (c *taped) Read(p []byte) (int, error) {
	if len(c.said) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.piece)], c.said)
	c.said = c.said[n:]
	return n, nil
}

func (c *taped) Close() error                     { return nil }
func (c *taped) SetDeadline(time.Time) error      { return nil }
func (c *taped) SetReadDeadline(time.Time) error  { return nil }
func (c *taped) SetWriteDeadline(time.Time) error { return nil }

// answers are the frames that the relay was sent, unmasked.
func (c *taped) answers(t *testing.T) (all []string) {
	for b := c.told.Bytes(); len(b) > 0; {
		head, n, ok := frameHead(b)
		if !ok || b[1]&0x80 == 0 {
			t.Fatalf("sent %x, want masked frames", b)
		}
		mask, text := b[head:head+4], bytes.Clone(b[head+4:head+4+int(n)])
		for i := range text {
			text[i] ^= mask[i%4]
		}
		all = append(all, fmt.Sprintf("%x %q", b[0], text))
		b = b[head+4+int(n):]
	}
	return all
}

// played is what a reader makes of a tape.
type played struct {
	messages, answers []string
	end               error
}

func (p played) String() string {
	return fmt.Sprintf("%.100q, answers %q, end: %v", p.messages, p.answers, p.end)
}

// play reads a tape to its end, by gorilla alone or with frames below it.
func play(t *testing.T, tape []byte, piece int, zip, alone bool) (p played) {
	t.Helper()
	c := &taped{tape: tape, piece: piece, zip: zip}
	f := newFrames(c, &wire{Conn: c, clock: &clock{start: time.Now()}})
	up := websocket.Dialer{EnableCompression: zip, ReadBufferSize: gorillaBuffer, NetDialContext: func(context.Context, string, string) (net.Conn, error) {
		if alone {
			return c, nil
		}
		return f, nil
	}}
	ws, _, err := up.DialContext(t.Context(), "ws://r.invalid", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.open = true
	for {
		if msg, ok := []byte(nil), false; !alone {
			f.wire.whole()
			if msg, ok = f.text(); ok {
				p.messages = append(p.messages, fmt.Sprintf("%d %s", websocket.TextMessage, msg))
				continue
			}
		}
		kind, r, err := ws.NextReader()
		if err == nil {
			var msg []byte
			if msg, err = io.ReadAll(r); err == nil {
				p.messages = append(p.messages, fmt.Sprintf("%d %s", kind, msg))
				continue
			}
		}
		p.end, p.answers = err, c.answers(t)
		return p
	}
}

// alike plays a tape twice and compares.
func alike(t *testing.T, tape []byte, piece int, zip bool) played {
	t.Helper()
	want, got := play(t, tape, piece, zip, true), play(t, tape, piece, zip, false)
	if fmt.Sprint(got.messages, got.answers, got.end) != fmt.Sprint(want.messages, want.answers, want.end) {
		t.Fatalf("tape %.200x in pieces of %d, deflate %v:\nwith frames:   %s\ngorilla alone: %s", tape, piece, zip, got, want)
	}
	return got
}

// frame of a server with the given first byte.
func frame(first byte, payload string) []byte {
	switch n := len(payload); {
	case n < 126:
		return append([]byte{first, byte(n)}, payload...)
	case n < 1<<16:
		return append(binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(n)), payload...)
	default:
		return append(binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(n)), payload...)
	}
}

// deflated is a message's payload under permessage-deflate.
func deflated(text string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 1)
	_, _ = w.Write([]byte(text))
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// What the reader takes by itself and what gorilla reads go together: for every tape both say the same as gorilla alone.
func TestFramesAreReadAsByGorilla(t *testing.T) {
	long := strings.Repeat("x", 70<<10)
	tapes := map[string][][]byte{
		"plain":                    {frame(0x81, "one"), frame(0x81, ""), frame(0x81, strings.Repeat("y", 1000)), frame(0x81, "two")},
		"fragments, ping between":  {frame(0x81, "a"), frame(1, "b"), frame(0x89, "ping"), frame(0, "c"), frame(0x80, "d"), frame(0x81, "e")},
		"empty fragments":          {frame(1, ""), frame(0, ""), frame(0x80, ""), frame(0x81, "e")},
		"text within a message":    {frame(1, "b"), frame(0x81, "c")},
		"continuation of nothing":  {frame(0x81, "a"), frame(0x80, "b")},
		"pings and pongs":          {frame(0x89, ""), frame(0x81, "a"), frame(0x8a, "x"), frame(0x89, "2"), frame(0x81, "b")},
		"binary":                   {frame(0x82, "a"), frame(0x81, "b"), frame(2, "c"), frame(0x80, "d")},
		"close":                    {frame(0x81, "a"), frame(0x88, "\x03\xe8bye"), frame(0x81, "never")},
		"close within a message":   {frame(1, "a"), frame(0x88, "\x03\xf4bye")},
		"close code":               {frame(0x88, "\x00\x01")},
		"close text":               {frame(0x88, "\x03\xe8\xff")},
		"long ping":                {frame(0x81, "a"), frame(0x89, strings.Repeat("p", 126))},
		"a ping's fragment":        {frame(0x09, "p"), frame(0x81, "a")},
		"reserved bits":            {frame(0x81, "a"), frame(0xb1, "b")},
		"reserved opcode":          {frame(0x81, "a"), frame(0x83, "b")},
		"masked":                   {frame(0x81, "a"), {0x81, 0x81, 1, 2, 3, 4, 'x'}},
		"negative length":          {frame(0x81, "a"), {0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255}, frame(0x81, "b")},
		"most that can be claimed": {{0x81, 127, 127, 255, 255, 255, 255, 255, 255, 255}, frame(0x81, "b")},
		"short length, long form":  {{0x81, 126, 0, 1, 'a'}, {0x81, 127, 0, 0, 0, 0, 0, 0, 0, 1, 'b'}},
		"longer than the buffer":   {frame(0x81, "a"), frame(0x81, long), frame(0x81, "b"), frame(1, long), frame(0x80, long), frame(0x81, "c")},
		"just the buffer":          {frame(0x81, long[:64<<10]), frame(0x81, long[:64<<10+1]), frame(0x81, long[:64<<10-1]), frame(0x81, "b")},
		"deflated":                 {frame(0x81, "a"), frame(0xc1, deflated("b"+long)), frame(0x81, "c"), frame(0x41, deflated("de")[:3]), frame(0x80, deflated("de")[3:]), frame(0x81, "f")},
		"a deflate stream's end":   {frame(0xc1, "\x01\x00\x00\xff\xffrest"), frame(0x81, "a"), frame(0x41, "\x01\x00\x00\xff\xff"), frame(0x00, "rest"), frame(0x81, "b")},
		"text for a stream's rest": {frame(0x41, "\x01\x00\x00\xff\xff"), frame(0x81, "b")},
		"not deflated":             {frame(0xc1, "\xff\xff\xff"), frame(0x81, "a")},
		"cut in a head":            {frame(0x81, "a"), {0x81, 126, 1}},
		"cut in a message":         {frame(0x81, "a"), {0x81, 10, 'x'}},
		"cut in a fragment":        {frame(0x81, "a"), {0x01, 10, 'x'}},
	}
	for name, tape := range tapes {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 3, 7, 1000, 1 << 20} {
				for _, zip := range []bool{false, true} {
					if got := alike(t, bytes.Join(tape, nil), piece, zip); got.end == nil {
						t.Error("it has no end")
					}
				}
			}
		})
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(bytes.Join([][]byte{frame(0x81, "one"), frame(0x89, "p"), frame(1, "b"), frame(0x80, "c"), frame(0x81, "d")}, nil), uint16(5), false)
	f.Add(bytes.Join([][]byte{frame(0xc1, deflated("one")), frame(0x81, "d"), frame(0x88, "\x03\xe8")}, nil), uint16(1000), true)
	f.Fuzz(func(t *testing.T, tape []byte, piece uint16, zip bool) {
		alike(t, tape, int(piece)+1, zip)
	})
}

// What cannot be read is told as before: an error of the socket stays one.
func TestFramesKeepTheSocketsError(t *testing.T) {
	reset := errors.New("connection reset by peer")
	f := newFrames(&broken{err: reset}, &wire{})
	f.open = true
	if msg, ok := f.text(); ok {
		t.Errorf("read %q", msg)
	}
	if _, err := f.Read(make([]byte, 10)); !errors.Is(err, reset) {
		t.Errorf("the error is %v, want %v", err, reset)
	}
}

// endless answers an upgrade with headers that have no end.
type endless struct {
	taped
	sent int
}

func (c *endless) Read(p []byte) (int, error) {
	text := "X-More: " + strings.Repeat("x", 1000) + "\r\n"
	if c.sent == 0 {
		text = "HTTP/1.1 101 Switching Protocols\r\n"
	}
	if c.sent > 100*maxAnswer {
		return 0, errors.New("so much was read")
	}
	n := copy(p, text) // a page of it always fits
	c.sent += n
	return n, nil
}

// A relay's answer to the upgrade is bounded: http.ReadResponse would keep all headers that come until the dial's time is over.
func TestAnswerToTheUpgradeIsBounded(t *testing.T) {
	c := &endless{}
	d := &dialer{url: "ws://r.invalid", settings: DefaultSettings(), direct: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	_, _, err := d.websocket(t.Context())
	var end *End
	if !errors.As(err, &end) || end.Reason != Protocol {
		t.Errorf("the dial ended with %v after %d bytes, want %s", err, c.sent, Protocol)
	}
	if c.sent > maxAnswer+readBuffer+maxHead {
		t.Errorf("%d bytes were read, want about %d", c.sent, maxAnswer)
	}
}

type broken struct {
	net.Conn
	err error
}

func (b *broken) Read([]byte) (int, error) { return 0, b.err }
