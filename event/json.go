package event

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds how deep an unknown field may be nested: the check recurses, and its depth is a stranger's choice.
const maxDepth = 64

// skip passes the value at b[i] by its brackets and quotes alone; -1 if it does not end. For JSON it ends where the
// value ends; it does not notice what is not JSON.
func skip(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i+1)
	case '[', '{':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				if i = skipString(b, i+1); i < 0 {
					return -1
				}
				continue
			case '[', '{':
				depth++
			case ']', '}':
				depth--
				if depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return -1
	}
	for ; i < len(b); i++ {
		switch b[i] {
		case ',', ']', '}', ' ', '\n', '\r', '\t':
			return i
		}
	}
	return -1
}

// skipString says where the string ends whose text begins at b[i]: after its closing quote; -1 if there is none.
func skipString(b []byte, i int) int {
	from := i
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		end := i + n
		k := end
		for k > from && b[k-1] == '\\' {
			k--
		}
		if (end-k)%2 == 0 {
			return end + 1
		}
		i = end + 1
	}
}

// readString reads the string at b[i] strictly and appends it to dst, quotes included, with NIP-01's escapes; a nil
// dst only checks. Invalid UTF-8 (also surrogates written as UTF-8), lone \u surrogates and raw control characters
// are refused: no id could be rebuilt over them.
func readString(dst, b []byte, i int) (out []byte, end int, err error) {
	if i >= len(b) || b[i] != '"' {
		return nil, 0, refuse(BadField, "a string was expected")
	}
	i++
	if dst != nil {
		dst = append(dst, '"')
	}
	for {
		stop, ascii := plain(b, i)
		if stop == len(b) {
			return nil, 0, refuse(BadJSON, "a string does not end")
		}
		run := b[i:stop]
		if !ascii && !utf8.Valid(run) {
			return nil, 0, refuse(BadEncoding, "invalid UTF-8")
		}
		if dst != nil {
			dst = append(dst, run...)
		}
		switch b[stop] {
		case '"':
			if dst != nil {
				dst = append(dst, '"')
			}
			return dst, stop + 1, nil
		case '\\':
			r, next, err := escape(b, stop)
			if err != nil {
				return nil, 0, err
			}
			if dst != nil {
				dst = appendRune(dst, r)
			}
			i = next
		default:
			return nil, 0, refuse(BadEncoding, "a raw control character in a string")
		}
	}
}

// plain says where the run of bytes ends, from i, that stand in a JSON string for themselves: at a quote, a
// backslash, a control character, or the end of b; and whether all of them are ASCII. Eight bytes at a time, by the usual "has a
// byte less than n".
func plain(b []byte, i int) (end int, ascii bool) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	seen := uint64(0)
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote, slash := x^(ones*'"'), x^(ones*'\\')
		hit := ((quote-ones)&^quote | (slash-ones)&^slash | (x-ones*0x20)&^x) & highs
		if hit != 0 {
			n := bits.TrailingZeros64(hit) &^ 7
			return i + n/8, (seen|x&(1<<n-1))&highs == 0
		}
		seen |= x
	}
	for ; i < len(b); i++ {
		c := b[i]
		if c == '"' || c == '\\' || c < 0x20 {
			break
		}
		seen |= uint64(c)
	}
	return i, seen&highs == 0
}

// escape decodes the escape sequence at b[i], a surrogate pair as one.
func escape(b []byte, i int) (r rune, next int, err error) {
	if i+1 >= len(b) {
		return 0, 0, refuse(BadJSON, "a string does not end")
	}
	switch b[i+1] {
	case '"', '\\', '/':
		return rune(b[i+1]), i + 2, nil
	case 'b':
		return '\b', i + 2, nil
	case 'f':
		return '\f', i + 2, nil
	case 'n':
		return '\n', i + 2, nil
	case 'r':
		return '\r', i + 2, nil
	case 't':
		return '\t', i + 2, nil
	case 'u':
		r, ok := unit(b, i)
		if !ok {
			return 0, 0, refuse(BadJSON, `\u without four hex digits`)
		}
		if !utf16.IsSurrogate(r) {
			return r, i + 6, nil
		}
		low, ok := unit(b, i+6)
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return 0, 0, refuse(BadEncoding, "a lone surrogate")
		}
		return r, i + 12, nil
	}
	return 0, 0, refuse(BadJSON, "an unknown escape")
}

// unit reads \uXXXX at b[i], digits of either case.
func unit(b []byte, i int) (r rune, ok bool) {
	if len(b)-i < 6 || b[i] != '\\' || b[i+1] != 'u' {
		return 0, false
	}
	for _, c := range b[i+2 : i+6] {
		if 'A' <= c && c <= 'F' {
			c += 'a' - 'A'
		}
		d := hexDigit[c]
		if d == 0xff {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

// appendRune appends r as it stands in a canonical string: NIP-01's seven short escapes, \u00xx in lower case for
// the other control characters (what JSON.stringify writes, and every client hashes), all else verbatim.
func appendRune(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	}
	if r < 0x20 {
		return append(dst, '\\', 'u', '0', '0', '0'+byte(r>>4), "0123456789abcdef"[r&15])
	}
	return utf8.AppendRune(dst, r)
}

// appendEscaped appends s without quotes as it stands in a canonical string. Invalid UTF-8 becomes U+FFFD: such a
// value can be in no event that Parse accepts, and must not go to a relay.
func appendEscaped(dst []byte, s string) []byte {
	for _, r := range s {
		dst = appendRune(dst, r)
	}
	return dst
}

// Unescape decodes the inside of a canonical JSON string.
func Unescape(raw []byte) string {
	i := bytes.IndexByte(raw, '\\')
	if i < 0 {
		return string(raw)
	}
	out := make([]byte, 0, len(raw))
	for i >= 0 {
		out = append(out, raw[:i]...)
		r, next, err := escape(raw, i)
		if err != nil { // not canonical: keep the rest as it stands
			return string(append(out, raw[i:]...))
		}
		out = utf8.AppendRune(out, r)
		raw = raw[next:]
		i = bytes.IndexByte(raw, '\\')
	}
	return string(append(out, raw...))
}

// check passes the value at b[i] if it is JSON, nested at most left deep, with strings as readString wants them.
func check(b []byte, i, left int) (end int, err error) {
	if i >= len(b) {
		return 0, refuse(BadJSON, "it ends in the middle")
	}
	switch b[i] {
	case '"':
		_, end, err = readString(nil, b, i)
		return end, err
	case '{', '[':
		return checkNested(b, i, left-1)
	case 't':
		return checkWord(b, i, "true")
	case 'f':
		return checkWord(b, i, "false")
	case 'n':
		return checkWord(b, i, "null")
	}
	return checkNumber(b, i)
}

// checkNested is check for an array or an object.
func checkNested(b []byte, i, left int) (end int, err error) {
	if left < 0 {
		return 0, refuse(BadJSON, "nested too deep")
	}
	object := b[i] == '{'
	closing := byte(']')
	if object {
		closing = '}'
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == closing {
		return i + 1, nil
	}
	for {
		if object {
			if i, err = checkKey(b, i); err != nil {
				return 0, err
			}
		}
		if i, err = check(b, i, left); err != nil {
			return 0, err
		}
		i = space(b, i)
		if i < len(b) && b[i] == closing {
			return i + 1, nil
		}
		if i = comma(b, i); i < 0 {
			return 0, refuse(BadJSON, "a comma or a closing bracket was expected")
		}
	}
}

// checkKey passes a key, its colon and the white space around it.
func checkKey(b []byte, i int) (end int, err error) {
	if i >= len(b) || b[i] != '"' {
		return 0, refuse(BadJSON, "a key was expected")
	}
	if _, i, err = readString(nil, b, i); err != nil {
		return 0, err
	}
	i = space(b, i)
	if i >= len(b) || b[i] != ':' {
		return 0, refuse(BadJSON, "a colon was expected")
	}
	return space(b, i+1), nil
}

func checkWord(b []byte, i int, word string) (end int, err error) {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return 0, refuse(BadJSON, "a value was expected")
	}
	return i + len(word), nil
}

func checkNumber(b []byte, i int) (end int, err error) {
	digits := func() bool {
		from := i
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return 0, refuse(BadJSON, "a value was expected")
	}
	if i < len(b) && b[i] == '.' {
		if i++; !digits() {
			return 0, refuse(BadJSON, "a number ends in a point")
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0, refuse(BadJSON, "a number ends in its exponent")
		}
	}
	return i, nil
}
