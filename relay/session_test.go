package relay_test

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// recorder writes down all that a relay says.
func recorder(got *list) relay.Role {
	return asks(func(_ context.Context, s *relay.Session) *relay.Handler {
		return &relay.Handler{
			Event:  func(frame []byte) { got.add(string(frame)) },
			EOSE:   func(sub, hint string) { got.add("EOSE " + sub + "," + hint) },
			Closed: func(sub, reason string) { got.add("CLOSED " + sub + "," + reason) },
			OK:     func(id event.ID, ok bool, text string) { got.add(fmt.Sprint("OK ", id.String()[:4], ok, text)) },
			Notice: func(text string) { got.add("NOTICE " + text) },
			Auth:   func(challenge string) { got.add("AUTH " + challenge) },
			TooBig: func() { got.add("TOO BIG") },
			Neg:    func(sub, hex string) { got.add("NEG " + sub + "," + hex) },
			NegErr: func(sub, reason string, most int64) { got.add(fmt.Sprint("NEG-ERR ", sub, ",", reason, ",", most)) },
			Count:  func(sub string, n relay.Count) { got.add(fmt.Sprint("COUNT ", sub, ",", n.Events, ",", n.Approximate)) },
			Other:  func(label string, frame []byte) bool { got.add(label); return label == "GIFT" },
		}
	})
}

func TestEveryMessageInWireOrderAndUnknownFramesAreNeverFatal(t *testing.T) {
	id := strings.Repeat("ab", 32)
	frames := []string{
		`["EVENT","live-0",{"id":"1"}]`, `not JSON`, `{"an":"object"}`, `["EOSE","live-0"]`, `["EOSE","page-1","finish"]`, `[]`, `[7]`,
		`["CLOSED","page-2","error: \u001b[31mred"]`, `["CLOSED","page-3"]`, `["OK","` + id + `",true]`, `["OK","` + id + `",false,"blocked: x"]`,
		`["OK","short",true,""]`, `["NOTICE","hello"]`, `["AUTH","c"]`, `["NEG-MSG","neg-1","61"]`, `["NEG-ERR","neg-1","blocked: x",9]`, `["NEG-ERROR","neg-1","CLOSED"]`, `["COUNT","c",{"count":9,"approximate":true}]`, `["COUNT","c",{}]`, `["GIFT","x"]`, `["BOX","x"]`, "", "\x00\xff",
		`["EVENT","live-0",{"id":"2"}]`,
	}
	r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		c.SendBinary([]byte(`["EVENT","live-0",{"id":"binary"}]`))
		for _, f := range frames[:len(frames)-2] {
			c.Send(f)
		}
		c.Write([]byte{0x81, 2, 0x00, 0xff}) // a text frame that is not UTF-8
		c.Send(frames[len(frames)-1])
		return true
	}})
	got := newList()
	l := run(t, r.URL, quick(), recorder(got))
	want := []string{
		`["EVENT","live-0",{"id":"1"}]`, "EOSE live-0,", "EOSE page-1,finish", "CLOSED page-2,error: \ufffd[31mred", "CLOSED page-3,",
		"OK ababtrue", "OK ababfalseblocked: x", "NOTICE hello", "AUTH c", "NEG neg-1,61", "NEG-ERR neg-1,blocked: x,9", "NEG-ERR neg-1,CLOSED,0", "COUNT c,9,true", "GIFT", "BOX", `["EVENT","live-0",{"id":"2"}]`,
	}
	if got := got.first(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("handlers got %q\nwant %q", got, want)
	}
	s := l.Status()
	wantUnknown := map[string]int64{
		relay.UnknownBinary: 1, relay.UnknownNotJSON: 3, relay.UnknownNotArray: 1, relay.UnknownType: 3, relay.UnknownMalformed: 2,
	}
	if fmt.Sprint(s.Unknown) != fmt.Sprint(wantUnknown) {
		t.Errorf("frames not understood: %v, want %v", s.Unknown, wantUnknown)
	}
	if len(s.Notices) != 1 || s.Notices[0].Text != "hello" {
		t.Errorf("notices: %v", s.Notices)
	}
	if r.Accepted() != 1 {
		t.Errorf("%d websockets: garbage has ended a session", r.Accepted())
	}
}

func TestTheLast20NoticesAreKept(t *testing.T) {
	var frames []string
	for i := range 50 {
		frames = append(frames, fmt.Sprintf(`["NOTICE","%d %s"]`, i, strings.Repeat("x", 5000)))
	}
	r := relaytest.New(t, answers(append(frames, `["EOSE","live-0"]`)...))
	got := newList()
	l := run(t, r.URL, quick(), recorder(got))
	got.first(t, 51)
	n := l.Status().Notices
	if len(n) != 20 || !strings.HasPrefix(n[0].Text, "30 ") || !strings.HasPrefix(n[19].Text, "49 ") || len(n[0].Text) > 500 {
		t.Errorf("kept %d notices, from %.5q to %.5q", len(n), n[0].Text, n[len(n)-1].Text)
	}
}

func TestBigMessages(t *testing.T) {
	frame := func(size int) string {
		head, tail := `["EVENT","live-0",{"content":"`, `"}]`
		return head + strings.Repeat("x", size-len(head)-len(tail)) + tail
	}
	s := quick()
	s.MaxFrame = 300 << 10
	for _, size := range []int{64<<10 - 1, 64 << 10, 64<<10 + 1, 256 << 10, 300 << 10} {
		for _, compress := range []bool{false, true} {
			s.Compression = compress
			script := answers(frame(size), `["EOSE","live-0"]`)
			script.Compress = true
			r := relaytest.New(t, script)
			got := newList()
			run(t, r.URL, s, recorder(got))
			if all := got.first(t, 2); all[0] != frame(size) || all[1] != "EOSE live-0," {
				t.Errorf("a message of %d bytes came as %d bytes (compression %v)", size, len(all[0]), compress)
			}
			ext := r.Conns()[0].Header.Get("Sec-Websocket-Extensions")
			if strings.Contains(ext, "permessage-deflate") != compress {
				t.Errorf("with compression %v the upgrade offers %q", compress, ext)
			}
		}
	}
	// Above the limit nothing is kept, and the connection goes on.
	for _, size := range []int{300<<10 + 1, 5 << 20} {
		for _, compress := range []bool{false, true} { // compressed it is far below the limit on the wire
			s.Compression = compress
			script := answers(frame(size), `["EOSE","live-0"]`)
			script.Compress = true
			r := relaytest.New(t, script)
			got := newList()
			l := run(t, r.URL, s, recorder(got))
			if all := got.first(t, 2); all[0] != "TOO BIG" || all[1] != "EOSE live-0," {
				t.Errorf("a message of %d bytes (compression %v) came as %.40q, want it passed over", size, compress, all)
			}
			if status := l.Status(); status.Unknown[relay.UnknownTooBig] != 1 || status.Sessions != 1 {
				t.Errorf("after a message of %d bytes: counted %v, %d sessions; want 1 too big and one session", size, status.Unknown, status.Sessions)
			}
		}
	}
	// Also where the limit is below the reader's own buffer.
	s.MaxFrame, s.Compression = 1<<10, false
	got := newList()
	run(t, relaytest.New(t, answers(frame(2<<10), `["EOSE","live-0"]`)).URL, s, recorder(got))
	if all := got.first(t, 2); all[0] != "TOO BIG" {
		t.Errorf("2 KiB above a limit of 1 KiB came as %.40q", all)
	}
}

// A message that is small on the wire and huge when inflated costs neither memory nor much time.
func TestADecompressionBomb(t *testing.T) {
	var bomb bytes.Buffer
	w, err := flate.NewWriter(&bomb, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 80<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := relaytest.New(t, relaytest.Script{Compress: true, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if c.N == 1 {
			c.Write(append(binary.BigEndian.AppendUint64([]byte{0xc1, 127}, uint64(bomb.Len())), bomb.Bytes()...))
		}
		return true
	}})
	s := quick()
	s.Compression, s.MaxFrame = true, 1<<20
	end := make(chan error, 10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run(t, r.URL, s, roleFunc(func(ctx context.Context, s *relay.Session) error {
		_ = s.Send(ctx, []byte(`["REQ","live-0",{}]`))
		<-ctx.Done()
		offerEnd(end, s)
		return nil
	}))
	wantEnd(t, recv(t, "the end", end), relay.FrameTooBig)
	runtime.ReadMemStats(&after)
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 16 {
		t.Errorf("%d KiB that inflate to 80 MiB took %d MiB of memory, want what max_frame allows: below 16", bomb.Len()>>10, used)
	}
}

func TestABigMessageWaitsForASlotAndSmallOnesDoNot(t *testing.T) {
	small, big := `["EVENT","live-0",{}]`, `["EVENT","live-0",{"content":"`+strings.Repeat("x", 100<<10)+`"}]`
	r := relaytest.New(t, answers(small, big, small))
	slots := make(chan struct{}, 1)
	slots <- struct{}{} // taken by another link
	got := newList()
	l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: quick(), BigFrames: slots}, recorder(got))
	if all := got.first(t, 1); all[0] != small {
		t.Errorf("got %.40s", all[0])
	}
	if all := got.all(); len(all) != 1 {
		t.Errorf("without a slot %d messages came, want 1", len(all))
	}
	<-slots
	if all := got.first(t, 3); all[1] != big || all[2] != small {
		t.Errorf("with a slot came %.40s and %.40s", all[1], all[2])
	}
	l.stop()
	if err := l.wait(t); err != nil {
		t.Error(err)
	}
	if len(slots) != 0 {
		t.Error("the slot was not given back")
	}
}

// textHead is the head of a text frame of n bytes, from a server.
func textHead(n int) []byte {
	return binary.BigEndian.AppendUint64([]byte{0x81, 127}, uint64(n))
}

func TestMessagesThatNeverEnd(t *testing.T) {
	for _, size := range []int{1000, 100 << 10} {
		started := min(size, 65<<10) - 10
		r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
			c.Write(append(textHead(size), strings.Repeat("x", started)...))
			return true
		}})
		s := quick()
		s.FrameTime = 50 * time.Millisecond
		end := make(chan error, 10)
		run(t, r.URL, s, roleFunc(func(ctx context.Context, s *relay.Session) error {
			_ = s.Send(ctx, []byte(`["REQ","live-0",{}]`))
			<-ctx.Done()
			offerEnd(end, s)
			return nil
		}))
		wantEnd(t, recv(t, "the end", end), relay.FrameTooSlow)
	}
}

func TestARelayThatAnswersNothing(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Silent: true, IgnorePings: true})
	s := quick()
	s.PingEvery, s.PingTimeout = 20*time.Millisecond, 30*time.Millisecond
	end := make(chan error, 100)
	run(t, r.URL, s, ends(end))
	wantEnd(t, recv(t, "the end", end), relay.Idle)
	if r.Pings() == 0 {
		t.Error("it was not pinged")
	}
}

func TestARelayThatAnswersPingsOnlyStays(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Silent: true})
	s := quick()
	s.PingEvery, s.PingTimeout = 20*time.Millisecond, 5*time.Second
	l := run(t, r.URL, s, ends(make(chan error, 100)))
	r.Wait("the tenth ping", func() bool { return r.Pings() >= 10 })
	if n := l.Status().Sessions; n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestPingsOfTheRelayAreAnswered(t *testing.T) {
	pongs := make(chan string, 10)
	r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		c.OnPong(func(p string) { offer(pongs, p) })
		c.Ping("are you there?")
		return true
	}})
	run(t, r.URL, quick(), asks(func(context.Context, *relay.Session) *relay.Handler { return &relay.Handler{} }))
	if got := recv(t, "the pong", pongs); got != "are you there?" {
		t.Errorf("the pong says %q", got)
	}
}

func TestWhileAHandlerWaits(t *testing.T) {
	pongs := make(chan string, 100)
	r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "REQ" {
			c.OnPong(func(p string) { offer(pongs, p) })
			c.Send(`["EVENT","live-0",{"n":1}]`)
			c.Send(`["EVENT","live-0",{"n":2}]`)
		}
		return true
	}})
	s := quick()
	s.Pong = 10 * time.Millisecond
	s.PingEvery, s.PingTimeout = 15*time.Millisecond, 15*time.Millisecond // the read deadline must not run meanwhile
	in, out := make(chan struct{}, 2), make(chan struct{})
	sessions := make(chan *relay.Session, 1)
	handled := newList()
	l := run(t, r.URL, s, asks(func(ctx context.Context, s *relay.Session) *relay.Handler {
		offer(sessions, s)
		return &relay.Handler{Event: func(frame []byte) {
			in <- struct{}{}
			select {
			case <-out:
			case <-ctx.Done():
			}
			handled.add(string(frame))
		}}
	}))
	session := recv(t, "the session", sessions)
	recv(t, "the handler", in)
	before := session.Stalled()
	for range 5 {
		recv(t, "a pong that nobody asked for", pongs)
	}
	after := session.Stalled()
	if after-before < 30*time.Millisecond {
		t.Errorf("over five pongs at 10 ms, Stalled grew by %s", after-before)
	}
	if all := handled.all(); len(all) != 0 {
		t.Errorf("a second message was read while the first one's handler waits: %q", all)
	}
	if err := session.Send(context.Background(), []byte(`["CLOSE","live-0"]`)); err != nil {
		t.Errorf("nothing can be sent while a handler waits: %v", err)
	}
	r.Wait("the CLOSE", func() bool { return len(r.Got("CLOSE")) == 1 })
	close(out)
	if all := handled.first(t, 2); all[1] != `["EVENT","live-0",{"n":2}]` {
		t.Errorf("then came %q", all)
	}
	if n := l.Status().Sessions; n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestAStallPausesTheSourceAndTheSinkKeepsTheSocket(t *testing.T) {
	r := relaytest.New(t, answers(`["EVENT","live-0",{}]`))
	s := quick()
	s.Stall = 50 * time.Millisecond
	causes := make(chan error, 10)
	l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: s}, nil)
	_ = l.wait(t)
	l = &running{Link: relay.NewLink(relay.LinkOptions{URL: r.URL, Settings: s}), done: make(chan struct{})}
	l.Add("sink", roleFunc(func(ctx context.Context, s *relay.Session) error { <-ctx.Done(); return nil }))
	l.Add("source", roleFunc(func(ctx context.Context, s *relay.Session) error {
		s.Handle(&relay.Handler{Event: func([]byte) { <-ctx.Done() }})
		_ = s.Send(ctx, []byte(`["REQ","live-0",{}]`))
		<-ctx.Done()
		offer(causes, context.Cause(ctx))
		return s.Send(context.WithoutCancel(ctx), []byte(`["CLOSE","live-0"]`))
	}))
	l.start(t)
	wantEnd(t, recv(t, "the stall", causes), relay.ArchiveStalled)
	r.Wait("CLOSE", func() bool { return len(r.Got("CLOSE")) >= 1 })
	wantEnd(t, recv(t, "the stall of the second service", causes), relay.ArchiveStalled)
	if n := r.Accepted(); n != 1 {
		t.Errorf("%d websockets, want 1: the sink's stays", n)
	}
}

func TestAStallOfTheOnlyRoleClosesTheSession(t *testing.T) {
	r := relaytest.New(t, answers(`["EVENT","live-0",{}]`))
	s := quick()
	s.Stall = 50 * time.Millisecond
	sessions := make(chan *relay.Session, 10)
	l := run(t, r.URL, s, asks(func(ctx context.Context, s *relay.Session) *relay.Handler {
		offer(sessions, s)
		return &relay.Handler{Event: func([]byte) { <-ctx.Done() }}
	}))
	first := recv(t, "the session", sessions)
	recv(t, "its end", first.Done())
	wantEnd(t, first.Err(), relay.ArchiveStalled)
	l.until(t, "another session", func(s relay.LinkStatus) bool { return s.Sessions == 2 })
	if got := r.Closes()[0]; got.Code != 1000 {
		t.Errorf("left with %+v, want code 1000", got)
	}
}

func TestARelayThatStopsReading(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{StopReading: true})
	s := quick()
	s.Write = 50 * time.Millisecond
	end := make(chan error, 100)
	run(t, r.URL, s, roleFunc(func(ctx context.Context, s *relay.Session) error {
		msg := []byte(`["EVENT",{"content":"` + strings.Repeat("x", 256<<10) + `"}]`)
		for {
			if err := s.Send(ctx, msg); err != nil {
				<-ctx.Done()
				offerEnd(end, s)
				return nil
			}
		}
	}))
	wantEnd(t, recv(t, "the end", end), relay.WriteBlocked)
}

func TestHowTheRelayEndsIt(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(c *relaytest.Conn)
		want relay.Reason
		text string
	}{
		"reset":            {func(c *relaytest.Conn) { c.Drop() }, relay.Dropped, ""},
		"close frame":      {func(c *relaytest.Conn) { c.Close(1012, "restart") }, relay.ClosedByRelay, "closed by relay (1012): restart"},
		"empty close":      {func(c *relaytest.Conn) { c.Write([]byte{0x88, 0}) }, relay.ClosedByRelay, "closed by relay"},
		"reserved bits":    {func(c *relaytest.Conn) { c.Write([]byte{0xf1, 0}) }, relay.Protocol, ""},
		"masked":           {func(c *relaytest.Conn) { c.Write([]byte{0x81, 0x80, 1, 2, 3, 4}) }, relay.Protocol, ""},
		"bad close code":   {func(c *relaytest.Conn) { c.Write([]byte{0x88, 2, 0, 1}) }, relay.Protocol, ""},
		"negative length":  {func(c *relaytest.Conn) { c.Write([]byte{0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255}) }, relay.FrameTooBig, ""},
		"cut in a message": {func(c *relaytest.Conn) { c.Write([]byte{0x81, 100, 'x'}); c.Shut() }, relay.Dropped, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := relaytest.New(t, relaytest.Script{Handle: func(conn *relaytest.Conn, m relaytest.Message) bool {
				if conn.N == 1 {
					c.do(conn)
				}
				return true
			}})
			end := make(chan error, 10)
			l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
				_ = s.Send(ctx, []byte(`["REQ","live-0",{}]`))
				<-ctx.Done()
				offerEnd(end, s)
				if err := s.Send(context.Background(), nil); err == nil && s.Err() != nil {
					t.Error("Send on an ended session is not an error")
				}
				return nil
			}))
			err := recv(t, "the end", end)
			wantEnd(t, err, c.want)
			if c.text != "" && err.Error() != c.text {
				t.Errorf("the end says %q, want %q", err, c.text)
			}
			l.until(t, "that it came back", func(s relay.LinkStatus) bool { return s.Sessions == 2 && s.Reason == c.want })
		})
	}
}

func TestAHandlerIsNotCalledAfterRemove(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		c.Send(`["EVENT","live-0",{}]`)
		c.Send(`["EOSE","live-0"]`)
		return true
	}})
	var events atomic.Int32
	eose := make(chan struct{}, 10)
	run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		remove := s.Handle(&relay.Handler{Event: func([]byte) { events.Add(1) }})
		s.Handle(&relay.Handler{EOSE: func(string, string) { eose <- struct{}{} }})
		for range 2 {
			if err := s.Send(ctx, []byte(`["REQ","live-0",{}]`)); err != nil {
				return err
			}
			recv(t, "EOSE", eose)
			remove()
			remove()
		}
		return nil
	}))
	r.Wait("the end", func() bool { return len(r.Closes()) == 1 })
	if n := events.Load(); n != 1 {
		t.Errorf("the handler was called %d times, want once", n)
	}
}
