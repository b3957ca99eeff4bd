package event

import (
	"bytes"
	"math"
	"strconv"
)

// The seven fields of NIP-01, as bits: which were seen.
const (
	fieldID = 1 << iota
	fieldPubKey
	fieldCreatedAt
	fieldKind
	fieldTags
	fieldContent
	fieldSig
)

// fieldNames in the order of the bits.
var fieldNames = [...]string{"id", "pubkey", "created_at", "kind", "tags", "content", "sig"}

// lineOverhead is what a canonical line holds besides tags and content, at most: names and punctuation, the three
// hex strings, 16 digits of created_at, 5 of kind.
const lineOverhead = len(`{"id":"","pubkey":"","created_at":,"kind":,"tags":,"content":,"sig":""}`) + 64 + 64 + 128 + 16 + 5

// Parse reads one event, a JSON object with white space around it at most, and builds its canonical Line. It is
// strict where leniency would give an event two readings, because parsers of relays and clients differ there. It checks neither id nor signature.
//
// Fields that NIP-01 does not know are checked to be JSON and left out. The errors are *Error; after one, only the
// capacity of e.Line is of use. e keeps nothing of raw.
func Parse(raw []byte, e *Event) error {
	end, err := parseObject(raw, space(raw, 0), e)
	if err != nil {
		return err
	}
	if space(raw, end) != len(raw) {
		return refuse(BadJSON, "something follows the event")
	}
	return nil
}

// ParseScanned parses the event that ScanFrame or ScanLine found in raw, and checks what follows it there. It saves
// a simple frame the extra pass of ParseFrame.
func ParseScanned(raw []byte, s Scan, e *Event) error {
	end, err := parseObject(raw, s.Event, e)
	if err != nil {
		return err
	}
	if s.Sub != nil {
		if end, err = frameRest(raw, end); err != nil {
			return err
		}
	}
	if space(raw, end) != len(raw) {
		return refuse(BadJSON, "something follows the event")
	}
	return nil
}

// ParseFrame takes an ["EVENT",sub,{…},…] message apart, any JSON spelling of it, and gives the event's bytes
// (within frame) for Parse. Further elements are tolerated: a relay may add some.
func ParseFrame(frame []byte) (sub string, raw []byte, err error) {
	i := space(frame, 0)
	if i >= len(frame) || frame[i] != '[' {
		return "", nil, refuse(BadFrame, "not an array")
	}
	label, i, err := frameString(frame, space(frame, i+1))
	if err != nil {
		return "", nil, err
	}
	if label != "EVENT" {
		return "", nil, refuse(BadFrame, "not an EVENT message")
	}
	if i = comma(frame, i); i < 0 {
		return "", nil, refuse(BadFrame, "no subscription id")
	}
	sub, i, err = frameString(frame, i)
	if err != nil {
		return "", nil, err
	}
	if i = comma(frame, i); i < 0 || frame[i] != '{' {
		return "", nil, refuse(BadFrame, "no event")
	}
	end, err := check(frame, i, maxDepth+1)
	if err != nil {
		return "", nil, err
	}
	raw = frame[i:end:end]
	if end, err = frameRest(frame, end); err != nil {
		return "", nil, err
	}
	if space(frame, end) != len(frame) {
		return "", nil, refuse(BadFrame, "something follows the message")
	}
	return sub, raw, nil
}

// frameString reads a string of a message, decoded.
func frameString(b []byte, i int) (s string, end int, err error) {
	if i >= len(b) || b[i] != '"' {
		return "", 0, refuse(BadFrame, "a string was expected")
	}
	if _, end, err = readString(nil, b, i); err != nil {
		return "", 0, err
	}
	return Unescape(b[i+1 : end-1]), end, nil
}

// frameRest passes what follows the event in its message, the closing bracket included.
func frameRest(b []byte, i int) (end int, err error) {
	for {
		i = space(b, i)
		if i < len(b) && b[i] == ']' {
			return i + 1, nil
		}
		if i = comma(b, i); i < 0 {
			return 0, refuse(BadFrame, "the message does not end")
		}
		if i, err = check(b, i, maxDepth); err != nil {
			return 0, err
		}
	}
}

// object is where an event's fields stand in its text.
type object struct {
	seen                uint
	id, pubkey, sig     []byte              // hex digits
	unknown             map[string]struct{} // decoded keys that NIP-01 does not know; nil until the first
	tags, content       int                 // where their values begin
	tagsEnd, contentEnd int                 // and where skip says that they end
}

// parseObject parses the event at b[i] and says where it ends.
func parseObject(b []byte, i int, e *Event) (end int, err error) {
	if len(b) > math.MaxInt32 { // spans are 32 bits wide
		return 0, refuse(OutOfRange, "longer than 2 GiB")
	}
	if i >= len(b) || b[i] != '{' {
		return 0, refuse(BadJSON, "not an object")
	}
	if end, ok := e.canonical(b, i); ok {
		return end, nil
	}
	var o object
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return 0, refuse(BadField, "id is missing")
	}
	for {
		from := i + 1
		if i, err = checkKey(b, i); err != nil {
			return 0, err
		}
		if i, err = o.field(b, from, i, e); err != nil {
			return 0, err
		}
		i = space(b, i)
		if i < len(b) && b[i] == '}' {
			break
		}
		if i = comma(b, i); i < 0 {
			return 0, refuse(BadJSON, "a comma or a closing bracket was expected")
		}
	}
	for bit, name := range fieldNames {
		if o.seen&(1<<bit) == 0 {
			return 0, refuse(BadField, name+" is missing")
		}
	}
	return i + 1, e.build(b, &o)
}

// field reads the value at b[i], whose key begins at b[key], and says where the value ends.
func (o *object) field(b []byte, key, i int, e *Event) (end int, err error) {
	name := b[key : skipString(b, key)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name = []byte(Unescape(name))
	}
	bit := uint(0)
	switch string(name) { // as in fieldNames
	case "id":
		bit = fieldID
	case "pubkey":
		bit = fieldPubKey
	case "created_at":
		bit = fieldCreatedAt
	case "kind":
		bit = fieldKind
	case "tags":
		bit = fieldTags
	case "content":
		bit = fieldContent
	case "sig":
		bit = fieldSig
	default:
		if _, twice := o.unknown[string(name)]; twice {
			return 0, refuse(DuplicateKey, "an unknown field stands twice")
		}
		if o.unknown == nil {
			o.unknown = make(map[string]struct{})
		}
		o.unknown[string(name)] = struct{}{}
		return check(b, i, maxDepth)
	}
	if o.seen&bit != 0 {
		return 0, refuse(DuplicateKey, string(name)+" stands twice")
	}
	o.seen |= bit
	switch bit {
	case fieldID:
		o.id, end, err = hexField(b, i, e.ID[:], "id")
		return end, err
	case fieldPubKey:
		o.pubkey, end, err = hexField(b, i, e.PubKey[:], "pubkey")
		return end, err
	case fieldSig:
		o.sig, end, err = hexField(b, i, e.Sig[:], "sig")
		return end, err
	case fieldCreatedAt:
		e.CreatedAt, end, err = number(b, i, MaxCreatedAt-1, "created_at")
		return end, err
	case fieldKind:
		var kind int64
		kind, end, err = number(b, i, MaxKind, "kind")
		e.Kind = int(kind)
		return end, err
	case fieldTags:
		if i >= len(b) || b[i] != '[' {
			return 0, refuse(BadField, "tags is not an array")
		}
		o.tags, o.tagsEnd = i, skip(b, i)
		end = o.tagsEnd
	case fieldContent:
		if i >= len(b) || b[i] != '"' {
			return 0, refuse(BadField, "content is not a string")
		}
		o.content, o.contentEnd = i, skip(b, i)
		end = o.contentEnd
	}
	if end < 0 {
		return 0, refuse(BadJSON, "it ends in the middle")
	}
	return end, nil
}

// build writes the canonical line. Tags and content are read only here, in canonical order, whatever order they
// came in; until now they were passed by skip, which ends where reading ends if they are what they should be. No
// value grows by becoming canonical, so one allocation of the most that the line can take is enough. What white space and
// escapes took is given back where it is as much as the line: who keeps events counts their lines' bytes.
func (e *Event) build(b []byte, o *object) (err error) {
	most := lineOverhead + o.tagsEnd - o.tags + o.contentEnd - o.content
	line := e.Line[:0]
	made := cap(line) < most
	if made {
		line = make([]byte, 0, most)
	}
	e.Line = line // keeps the capacity for the next event, whatever becomes of this one
	line = append(line, `{"id":"`...)
	line = append(line, o.id...)
	line = append(line, `","pubkey":"`...)
	line = append(line, o.pubkey...)
	line = append(line, `","created_at":`...)
	line = strconv.AppendInt(line, e.CreatedAt, 10)
	line = append(line, `,"kind":`...)
	line = strconv.AppendInt(line, int64(e.Kind), 10)
	line = append(line, `,"tags":`...)
	tagsFrom := len(line)
	if line, _, err = readTags(line, b, o.tags); err != nil {
		return err
	}
	tagsTo := len(line)
	line = append(line, `,"content":`...)
	contentFrom := len(line)
	if line, _, err = readString(line, b, o.content); err != nil {
		return err
	}
	contentTo := len(line)
	line = append(line, `,"sig":"`...)
	line = append(line, o.sig...)
	line = append(line, `"}`...)
	if made && cap(line) > 2*len(line) {
		line = bytes.Clone(line)
	}
	e.Line = line
	e.tags = span{uint32(tagsFrom), uint32(tagsTo)}
	e.content = span{uint32(contentFrom), uint32(contentTo)}
	return nil
}

// readTags appends the canonical form of the tags array at b[i].
func readTags(dst, b []byte, i int) (out []byte, end int, err error) {
	return readList(dst, b, i, func(dst, b []byte, i int) ([]byte, int, error) {
		if i >= len(b) || b[i] != '[' {
			return nil, 0, refuse(BadField, "a tag is not an array")
		}
		return readList(dst, b, i, readString)
	})
}

// readList appends the canonical form of the array at b[i], each element by read.
func readList(dst, b []byte, i int, read func(dst, b []byte, i int) ([]byte, int, error)) (out []byte, end int, err error) {
	dst = append(dst, '[')
	i = space(b, i+1)
	if i < len(b) && b[i] == ']' {
		return append(dst, ']'), i + 1, nil
	}
	for {
		if dst, i, err = read(dst, b, i); err != nil {
			return nil, 0, err
		}
		i = space(b, i)
		if i < len(b) && b[i] == ']' {
			return append(dst, ']'), i + 1, nil
		}
		if i = comma(b, i); i < 0 {
			return nil, 0, refuse(BadJSON, "a comma or a closing bracket was expected")
		}
		dst = append(dst, ',')
	}
}

// hexField reads a string of exactly as many lower-case hex digits as dst holds.
func hexField(b []byte, i int, dst []byte, name string) (digits []byte, end int, err error) {
	if i >= len(b) || b[i] != '"' {
		return nil, 0, refuse(BadField, name+" is not a string")
	}
	if end = i + 2*len(dst) + 2; end <= len(b) && b[end-1] == '"' && decodeHex(dst, b[i+1:end-1]) {
		return b[i+1 : end-1], end, nil
	}
	if _, end, err = readString(nil, b, i); err != nil {
		return nil, 0, err
	}
	digits = b[i+1 : end-1]
	if bytes.IndexByte(digits, '\\') >= 0 {
		digits = []byte(Unescape(digits))
	}
	if !decodeHex(dst, digits) {
		return nil, 0, refuse(BadField, name+" is not "+strconv.Itoa(2*len(dst))+" digits of 0-9a-f")
	}
	return digits, end, nil
}

// number reads a whole number of 0 to most, in digits only and without a leading zero: what every parser reads
// alike, and what the id is made over.
func number(b []byte, i int, most int64, name string) (v int64, end int, err error) {
	if end, err = checkNumber(b, i); err != nil {
		return 0, 0, refuse(BadField, name+" is not a number")
	}
	text := b[i:end]
	if end < len(b) && b[end] >= '0' && b[end] <= '9' {
		return 0, 0, refuse(BadField, name+" has a leading zero")
	}
	for n, c := range text {
		if n == 0 && c == '-' {
			continue
		}
		if c < '0' || c > '9' {
			return 0, 0, refuse(BadField, name+" is not written as a whole number")
		}
	}
	if text[0] == '-' || len(text) > 18 {
		return 0, 0, refuse(OutOfRange, name+" is out of range")
	}
	for _, c := range text {
		v = v*10 + int64(c-'0')
	}
	if v > most {
		return 0, 0, refuse(OutOfRange, name+" is out of range")
	}
	return v, end, nil
}
