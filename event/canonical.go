package event

import "unicode/utf8"

// The text between a canonical line's values.
const (
	beforeID      = `{"id":"`
	beforePubKey  = `","pubkey":"`
	beforeCreated = `","created_at":`
	beforeKind    = `,"kind":`
	beforeTags    = `,"tags":`
	beforeContent = `,"content":`
	beforeSig     = `,"sig":"`
	afterSig      = `"}`
)

// canonical parses the event at b[i] if it is spelled as its Line will be, in one pass and with one copy: so it is in every line
// of an archive, and in what many relays send. If it is not, or is no event, ok is false and e holds nothing of use but Line's
// capacity. What it takes, parseObject takes with the same result.
func (e *Event) canonical(b []byte, i int) (end int, ok bool) {
	from := i
	b = b[from:]
	i, ok = 0, true
	text := func(want string) {
		if ok = ok && len(b)-i >= len(want) && string(b[i:i+len(want)]) == want; ok {
			i += len(want)
		}
	}
	hex := func(dst []byte) {
		if ok = ok && len(b)-i >= 2*len(dst) && decodeHex(dst, b[i:i+2*len(dst)]); ok {
			i += 2 * len(dst)
		}
	}
	whole := func(most int64) (v int64) {
		if ok {
			var err error
			v, i, err = number(b, i, most, "")
			ok = err == nil
		}
		return v
	}
	// Most other spellings differ here, where it has cost nothing yet.
	const created = len(beforeID) + 2*len(ID{}) + len(beforePubKey) + 2*len(PubKey{})
	if len(b) < created+len(beforeCreated) || string(b[created:created+len(beforeCreated)]) != beforeCreated {
		return 0, false
	}
	text(beforeID)
	hex(e.ID[:])
	text(beforePubKey)
	hex(e.PubKey[:])
	text(beforeCreated)
	e.CreatedAt = whole(MaxCreatedAt - 1)
	text(beforeKind)
	e.Kind = int(whole(MaxKind))
	text(beforeTags)
	if !ok {
		return 0, false
	}
	tags := i
	if i = canonicalTags(b, i); i < 0 {
		return 0, false
	}
	tagsEnd := i
	text(beforeContent)
	content := i
	if !ok {
		return 0, false
	}
	if i = canonicalString(b, i); i < 0 {
		return 0, false
	}
	contentEnd := i
	text(beforeSig)
	hex(e.Sig[:])
	text(afterSig)
	if !ok || !utf8.Valid(b[tags:contentEnd]) {
		return 0, false
	}
	e.Line = append(e.Line[:0], b[:i]...)
	e.tags = span{uint32(tags), uint32(tagsEnd)}
	e.content = span{uint32(content), uint32(contentEnd)}
	return from + i, true
}

// canonicalTags passes the tags array at b[i]; -1: it is not spelled as in a Line.
func canonicalTags(b []byte, i int) (end int) {
	if i >= len(b) || b[i] != '[' {
		return -1
	}
	if i++; i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '[' {
			return -1
		}
		if i++; i < len(b) && b[i] == ']' {
			i++
		} else {
			for more := true; more; i++ {
				if i = canonicalString(b, i); i < 0 || i >= len(b) || b[i] != ',' && b[i] != ']' {
					return -1
				}
				more = b[i] == ','
			}
		}
		if i >= len(b) || b[i] != ',' && b[i] != ']' {
			return -1
		}
		if i++; b[i-1] == ']' {
			return i
		}
	}
}

// canonicalString passes the string at b[i]; -1: it is not spelled as appendRune does it. Whether it is UTF-8 is not looked at.
func canonicalString(b []byte, i int) (end int) {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for i++; ; {
		i, _ = plain(b, i)
		if i+1 >= len(b) {
			if i < len(b) && b[i] == '"' {
				return i + 1
			}
			return -1
		}
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			switch b[i+1] {
			case '"', '\\', 'n', 'r', 't', 'b', 'f':
				i += 2
				continue
			case 'u':
				r, ok := unit(b, i)
				if !ok || r >= 0x20 || b[i+5] < 'a' && b[i+5] > '9' {
					return -1
				}
				switch r {
				case '\n', '\r', '\t', '\b', '\f':
					return -1 // these have a shorter one
				}
				i += 6
				continue
			}
		}
		return -1
	}
}
