package event

// Scan is what the structural scan found: enough to ask whether the event is known, nothing more.
type Scan struct {
	Sub   []byte // the subscription id, within the frame; nil for a bare event
	Event int    // offset of the event's '{'
	ID    ID     // as claimed
}

// ScanFrame finds the claimed id in an ["EVENT",sub,{…}] message without checking the message. It is false for all
// that is unusual (an escaped key before the id, an id of another form, an odd subscription id, no such message):
// ParseFrame and Parse decide then.
//
// It stops at the first "id" of the event itself. That is sound because Parse refuses an event that has a key twice
// after decoding: whatever Parse accepts has exactly this id.
func ScanFrame(frame []byte) (Scan, bool) {
	i := space(frame, 0)
	if i >= len(frame) || frame[i] != '[' {
		return Scan{}, false
	}
	i = space(frame, i+1)
	const label = `"EVENT"`
	if len(frame)-i < len(label) || string(frame[i:i+len(label)]) != label {
		return Scan{}, false
	}
	i = comma(frame, i+len(label))
	if i < 0 || frame[i] != '"' {
		return Scan{}, false
	}
	i++
	from := i
	for ; i < len(frame) && frame[i] != '"'; i++ {
		if c := frame[i]; c < 0x20 || c >= 0x7f || c == '\\' {
			return Scan{}, false
		}
	}
	if i >= len(frame) {
		return Scan{}, false
	}
	sub := frame[from:i:i]
	i = comma(frame, i+1)
	if i < 0 || frame[i] != '{' {
		return Scan{}, false
	}
	id, ok := scanID(frame, i)
	return Scan{Sub: sub, Event: i, ID: id}, ok
}

// ScanLine is ScanFrame for a bare event object, such as a line of JSONL.
func ScanLine(raw []byte) (Scan, bool) {
	i := space(raw, 0)
	if i >= len(raw) || raw[i] != '{' {
		return Scan{}, false
	}
	id, ok := scanID(raw, i)
	return Scan{Event: i, ID: id}, ok
}

// ScanCreatedAt finds created_at, in unix seconds, of a bare event object; false where it is not found plainly.
func ScanCreatedAt(raw []byte) (int64, bool) {
	i := space(raw, 0)
	if i >= len(raw) || raw[i] != '{' {
		return 0, false
	}
	i = findKey(raw, i, "created_at")
	if i < 0 {
		return 0, false
	}
	v, _, err := number(raw, i, MaxCreatedAt-1, "created_at")
	return v, err == nil
}

// ScanPubKey finds the claimed author of a bare event object; false where it is not found plainly.
func ScanPubKey(raw []byte) (key PubKey, ok bool) {
	i := space(raw, 0)
	if i >= len(raw) || raw[i] != '{' {
		return key, false
	}
	i = findKey(raw, i, "pubkey")
	if i < 0 || len(raw)-i < 66 || raw[i] != '"' || raw[i+65] != '"' {
		return key, false
	}
	return key, decodeHex(key[:], raw[i+1:i+65])
}

func scanID(b []byte, i int) (id ID, ok bool) {
	i = findKey(b, i, "id")
	if i < 0 || len(b)-i < 66 || b[i] != '"' || b[i+65] != '"' {
		return id, false
	}
	return id, decodeHex(id[:], b[i+1:i+65])
}

// findKey says where the value of the first plain key of the object at b[i] begins; -1 if it is not there, or if an
// escaped key comes before it.
func findKey(b []byte, i int, key string) int {
	i = space(b, i+1)
	for i < len(b) && b[i] == '"' {
		i++
		from := i
		for ; i < len(b) && b[i] != '"'; i++ {
			if b[i] == '\\' {
				return -1
			}
		}
		if i >= len(b) {
			return -1
		}
		name := b[from:i]
		i = space(b, i+1)
		if i >= len(b) || b[i] != ':' {
			return -1
		}
		i = space(b, i+1)
		if string(name) == key {
			return i
		}
		if i = skip(b, i); i < 0 {
			return -1
		}
		if i = comma(b, i); i < 0 {
			return -1
		}
	}
	return -1
}

// space passes white space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// comma passes a comma and the white space around it; -1 if there is none or nothing follows.
func comma(b []byte, i int) int {
	i = space(b, i)
	if i >= len(b) || b[i] != ',' {
		return -1
	}
	i = space(b, i+1)
	if i >= len(b) {
		return -1
	}
	return i
}

// hexDigit is the value of a lower-case hex digit, 0xff for any other byte.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()

// decodeHex fills dst from exactly twice as many lower-case digits.
func decodeHex[T string | []byte](dst []byte, hex T) bool {
	if len(hex) != 2*len(dst) {
		return false
	}
	var bad byte
	for i := range dst {
		hi, lo := hexDigit[hex[2*i]], hexDigit[hex[2*i+1]]
		bad |= hi | lo
		dst[i] = hi<<4 | lo&0x0f
	}
	return bad < 0x10
}
