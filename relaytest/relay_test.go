package relaytest

import (
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, r *Relay) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(r.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(5 * time.Second))
	return ws
}

func ask(t *testing.T, ws *websocket.Conn, msg string, answers int) (got []string) {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
		t.Fatal(err)
	}
	for range answers {
		_, b, err := ws.ReadMessage()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, string(b))
	}
	return got
}

func TestSignedEventsAreGenuineAndForgedOnesAreNot(t *testing.T) {
	ev := Sign(Key(3), 1, 1700000000, [][]string{{"t", "a\"b"}, {}}, "line\n\u2028 <&> \x01")
	check := func(ev string) bool {
		e := parse(ev)
		ok, _ := e.CheckSignature()
		return ok && e.CheckID()
	}
	if !check(ev) {
		t.Errorf("a signed event does not verify: %s", ev)
	}
	for name, forged := range map[string]string{"BadSig": BadSig(ev), "BadID": BadID(ev), "Forged": Forged(ev)} {
		if check(forged) {
			t.Errorf("%s verifies: %s", name, forged)
		}
	}
	if ID(Forged(ev)) != ID(ev) || ID(BadSig(ev)) != ID(ev) {
		t.Error("a forged copy has another id")
	}
}

func TestPagesAndLive(t *testing.T) {
	evs := []string{Sign(Key(1), 1, 10, nil, "a"), Sign(Key(1), 1, 20, nil, "b"), Sign(Key(1), 1, 30, nil, "c")}
	r := New(t, Script{Events: evs, Cap: 2, First: []string{Forged(evs[0])}})
	ws := dial(t, r)
	got := ask(t, ws, `["REQ","page-1",{"kinds":[1],"until":30}]`, 4)
	want := []string{Forged(evs[0]), evs[2], evs[1]}
	for i, w := range want {
		if got[i] != `["EVENT","page-1",`+w+`]` {
			t.Errorf("answer %d is %s, want event %s", i, got[i], w)
		}
	}
	if got[3] != `["EOSE","page-1"]` {
		t.Errorf("the page ends with %s", got[3])
	}
	pub := Sign(Key(2), 1, 40, nil, "d")
	if got := ask(t, ws, `["EVENT",`+pub+`]`, 1); got[0] != `["OK","`+ID(pub)+`",true,""]` {
		t.Errorf("answer to EVENT is %s", got[0])
	}
	if got := ask(t, ws, `["EVENT",`+pub+`]`, 1); !strings.Contains(got[0], `true,"duplicate:`) {
		t.Errorf("answer to the second EVENT is %s", got[0])
	}
	r.Publish(Sign(Key(2), 1, 25, nil, "live"))
	if _, b, err := ws.ReadMessage(); err != nil || !strings.Contains(string(b), `"live"`) {
		t.Errorf("published: got %s, %v", b, err)
	}
	if n := len(r.Got("EVENT")); n != 2 {
		t.Errorf("recorded %d EVENTs, want 2", n)
	}
}
