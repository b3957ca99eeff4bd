package relay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"rebroadcastr/event"
)

// kind of a relay's message.
type kind uint8

const (
	kindUnknown kind = iota
	kindEvent
	kindEOSE
	kindClosed
	kindOK
	kindNotice
	kindAuth
	kindNeg
	kindNegErr
	kindCount
	kindTooBig // above Settings.MaxFrame; nothing of it was kept
	kindOther  // an array with a label that this package does not know
)

// Why a frame was not understood; keys of LinkStatus.Unknown.
const (
	UnknownBinary    = "binary frame"
	UnknownNotJSON   = "not JSON"
	UnknownNotArray  = "not an array"
	UnknownType      = "unknown type"
	UnknownMalformed = "malformed"
	UnknownTooBig    = "too big"
)

// unknownReasons in the order of core.unknown's counters.
var unknownReasons = [...]string{UnknownBinary, UnknownNotJSON, UnknownNotArray, UnknownType, UnknownMalformed, UnknownTooBig}

// message is a relay's message, taken apart as far as its kind needs.
type message struct {
	kind  kind
	label string   // kindOther: its first element
	sub   string   // EOSE, CLOSED, NEG-MSG, NEG-ERR, COUNT
	text  string   // CLOSED, OK, NOTICE, NEG-ERR: the relay's words; AUTH: the challenge; EOSE: the hint; NEG-MSG: its hex
	id    event.ID // OK
	ok    bool     // OK
	most  int64    // NEG-ERR: how many ids the relay reconciles at once; 0: it does not say
	count Count    // COUNT
}

// parse takes a text frame apart. An EVENT is only recognised: its event is the role's to parse. Elements beyond those
// that are known are tolerated in every message (NIPs add them: NIP-67, NIP-77). It returns why a frame is not understood, else "".
func parse(frame []byte, m *message) (unknown string) {
	*m = message{}
	if isEvent(frame) {
		m.kind = kindEvent
		return ""
	}
	if parseOK(frame, m) {
		return ""
	}
	if !json.Valid(frame) {
		return UnknownNotJSON
	}
	// Only the first elements are looked at, and none is copied: a frame of a million elements costs no memory.
	var e [5][]byte
	n, ok := elements(frame, e[:])
	if !ok {
		return UnknownNotArray
	}
	label, ok := stringOf(e[0])
	if n == 0 || !ok {
		return UnknownType
	}
	m.label = label
	var good bool
	switch label {
	case "EVENT":
		m.kind, good = kindEvent, n >= 3
	case "EOSE":
		m.kind = kindEOSE
		m.sub, good = stringOf(e[1])
		m.text = hintOf(e[2])
	case "CLOSED":
		m.kind = kindClosed
		m.sub, good = stringOf(e[1])
		m.text, _ = stringOf(e[2])
	case "OK":
		m.kind = kindOK
		var id string
		id, good = stringOf(e[1])
		good = good && decodeID(&m.id, []byte(id)) && (string(e[2]) == "true" || string(e[2]) == "false")
		m.ok = string(e[2]) == "true"
		m.text, _ = stringOf(e[3])
	case "NOTICE":
		m.kind = kindNotice
		m.text, good = stringOf(e[1])
	case "AUTH":
		m.kind = kindAuth
		m.text, good = stringOf(e[1])
	case "NEG-MSG":
		m.kind = kindNeg
		m.sub, good = stringOf(e[1])
		if good {
			m.text, good = stringOf(e[2])
		}
	case "NEG-ERR", "NEG-ERROR": // the latter is khatru's
		m.kind = kindNegErr
		m.sub, good = stringOf(e[1])
		m.text, _ = stringOf(e[2])
		m.most = positive(e[3])
	case "COUNT":
		m.kind = kindCount
		if m.sub, good = stringOf(e[1]); good {
			m.count, good = countOf(e[2])
		}
	default:
		m.kind, good = kindOther, true
	}
	if !good {
		m.kind = kindUnknown
		return UnknownMalformed
	}
	return ""
}

// isEvent finds ["EVENT", at the start of a frame, as every relay writes it. Other spellings of the label go the slow way.
func isEvent(frame []byte) bool {
	const head = `["EVENT",`
	if len(frame) >= len(head) && string(frame[:len(head)]) == head {
		return true
	}
	i := space(frame, 0)
	if i >= len(frame) || frame[i] != '[' {
		return false
	}
	i = space(frame, i+1)
	if !bytes.HasPrefix(frame[i:], []byte(`"EVENT"`)) {
		return false
	}
	i = space(frame, i+len(`"EVENT"`))
	return i < len(frame) && frame[i] == ','
}

// parseOK takes the usual spelling of an OK apart: one comes for each event that is sent.
func parseOK(frame []byte, m *message) bool {
	const head = `["OK","`
	if !bytes.HasPrefix(frame, []byte(head)) || len(frame) < len(head)+66 {
		return false
	}
	rest := frame[len(head):]
	if rest[64] != '"' || rest[65] != ',' || !decodeID(&m.id, rest[:64]) {
		return false
	}
	rest = rest[66:]
	ok := false
	switch {
	case bytes.HasPrefix(rest, []byte(`true,"`)):
		ok, rest = true, rest[len(`true,"`):]
	case bytes.HasPrefix(rest, []byte(`false,"`)):
		rest = rest[len(`false,"`):]
	default:
		return false
	}
	text, isWhole := bytes.CutSuffix(rest, []byte(`"]`))
	if !isWhole || !utf8.Valid(text) {
		return false
	}
	for _, c := range text {
		if c < ' ' || c == '"' || c == '\\' {
			return false
		}
	}
	m.kind, m.ok, m.text = kindOK, ok, string(text)
	return true
}

func decodeID(id *event.ID, text []byte) bool {
	if len(text) != 64 {
		return false
	}
	_, err := hex.Decode(id[:], text)
	return err == nil
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// elements cuts the first elements of a JSON array out of valid JSON, as many as out has room for. n is how many were
// found; the rest of out stays nil. False: it is no array.
func elements(valid []byte, out [][]byte) (n int, ok bool) {
	i := space(valid, 0)
	if valid[i] != '[' {
		return 0, false
	}
	i++
	start, depth := i, 0
	for ; n < len(out); i++ {
		switch c := valid[i]; c {
		case '"':
			for i++; valid[i] != '"'; i++ {
				if valid[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			depth++
		case ']', '}', ',':
			if depth == 0 {
				if e := bytes.TrimSpace(valid[start:i]); len(e) > 0 {
					out[n] = e
					n++
				}
				start = i + 1
				if c != ',' {
					return n, true
				}
			} else if c != ',' {
				depth--
			}
		}
	}
	return n, true
}

// hintOf reads an EOSE's third element: "finish", "more", or "" where it is neither. NIP-67 makes it an array of hints; its
// drafts had the hint alone. What says both says that there is more.
func hintOf(e []byte) (hint string) {
	one, ok := stringOf(e)
	list := []string{one}
	if !ok && (len(e) > 1<<10 || json.Unmarshal(e, &list) != nil) {
		return ""
	}
	for _, h := range list {
		if h == "more" || h == "finish" && hint == "" {
			hint = h
		}
	}
	return hint
}

// stringOf decodes a JSON string; false if e is none.
func stringOf(e []byte) (s string, ok bool) {
	if len(e) < 2 || e[0] != '"' {
		return "", false
	}
	return s, json.Unmarshal(e, &s) == nil
}

// positive is a number above 0, also where it comes as text; else 0.
func positive(e []byte) int64 {
	n, err := strconv.ParseInt(strings.Trim(string(e), `"`), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// maxText in bytes is what is kept of a relay's words: they go to logs, status and ledgers.
const maxText = 400

// clean makes a relay's words fit for a log line or a terminal: valid UTF-8, no control characters, bounded.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if len(s) > 0 && s[len(s)-1] >= utf8.RuneSelf {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			if unicode.IsSpace(r) {
				return ' '
			}
			return '\ufffd'
		}
		return r
	}, s)
}
