package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"

	"rebroadcastr/event"
)

// maxIdentity is NIP-19's recommended limit in characters.
const maxIdentity = 5000

const bech32Alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

// prefixes are NIP-19's, public ones only, and what each names.
var prefixes = map[string]string{"npub": "person", "nprofile": "person", "note": "event", "nevent": "event", "naddr": "address", "nrelay": "relay"}

// nip19Prefix is the prefix of a text that means to be NIP-19, in lower case, or "".
func nip19Prefix(text string) string {
	prefix, _, found := strings.Cut(strings.ToLower(bare(text)), "1")
	if found && prefixes[prefix] != "" {
		return prefix
	}
	return ""
}

// bare is text without white space around it and without the scheme of NIP-21.
func bare(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > 6 && strings.EqualFold(text[:6], "nostr:") {
		text = text[6:]
	}
	return text
}

// decodeNIP19 decodes a public identity whose prefix nip19Prefix has found. Its errors say which part is wrong.
func decodeNIP19(text, prefix string) (value any, err error) {
	text = bare(text)
	if len(text) > maxIdentity {
		return nil, errors.New("too long")
	}
	data := text[len(prefix)+1:]
	if strings.ContainsAny(data, ", \t\n;") {
		return nil, errors.New("one value at a time: repeat it, or make it a list")
	}
	for _, r := range strings.ToLower(data) {
		if !strings.ContainsRune(bech32Alphabet, r) {
			return nil, fmt.Errorf("%q cannot stand in it, a character is mistyped", r)
		}
	}
	if text != strings.ToLower(text) && text != strings.ToUpper(text) {
		return nil, errors.New("capitals and small letters mixed, a character is mistyped")
	}
	// 32 bytes in groups of 5 bits, and six characters of checksum.
	if want := len(prefix) + 1 + 52 + 6; (prefix == "npub" || prefix == "note") && len(text) != want {
		return nil, fmt.Errorf("has %d characters, %s have %d", len(text), prefix+"s", want)
	}
	got, value, err := nip19.Decode(text)
	switch {
	case got == "":
		return nil, errors.New("checksum wrong, a character is mistyped")
	case err != nil:
		return nil, fmt.Errorf("not a whole %s: what it holds is cut short", prefix)
	}
	return value, nil
}

// errOther is returned for an identity of another sort; its text names the sort.
type errOther string

func (e errOther) Error() string { return string(e) }

// ParseAuthor reads an npub, an nprofile or 64 hex digits, with or without nostr:. relays are an nprofile's hints.
func ParseAuthor(text string) (key event.PubKey, relays []string, err error) {
	digits := strings.ToLower(bare(text))
	switch prefix := nip19Prefix(text); prefixes[prefix] {
	case "person":
		value, err := decodeNIP19(text, prefix)
		if err != nil {
			return key, nil, err
		}
		digits, _ = value.(string)
		if profile, ok := value.(nostr.ProfilePointer); ok {
			digits, relays = profile.PublicKey, profile.Relays
		}
	case "":
		if err := checkHex(digits, "an npub, an nprofile or 64 hex digits"); err != nil {
			return key, nil, err
		}
	default:
		return key, nil, errOther(prefixes[prefix])
	}
	key, err = event.ParsePubKey(digits)
	return key, relays, err
}

// ParseID reads a note, an nevent or 64 hex digits, with or without nostr:.
func ParseID(text string) (id event.ID, err error) {
	digits := strings.ToLower(bare(text))
	switch prefix := nip19Prefix(text); prefixes[prefix] {
	case "event":
		value, err := decodeNIP19(text, prefix)
		if err != nil {
			return id, err
		}
		digits, _ = value.(string)
		if pointer, ok := value.(nostr.EventPointer); ok {
			digits = pointer.ID
		}
	case "":
		if err := checkHex(digits, "a note, an nevent or 64 hex digits"); err != nil {
			return id, err
		}
	default:
		return id, errOther(prefixes[prefix])
	}
	return event.ParseID(digits)
}

// EventID is ParseID for who names an event by itself: its errors say what was said and what is wrong with it, a private key apart.
func EventID(text string) (event.ID, error) {
	id, err := ParseID(text)
	var other errOther
	switch {
	case errors.As(err, &other):
		err = fmt.Errorf("%s: that is %s, not an event", Redact(brief(bare(text))), article(string(other)))
	case err != nil:
		err = fmt.Errorf("%s: %w", Redact(brief(bare(text))), err)
	}
	return id, err
}

func checkHex(digits, what string) error {
	if strings.Contains(digits, "@") {
		return errors.New("a NIP-05 name can change hands; say the npub")
	}
	if digits == "" || strings.Trim(digits, "0123456789abcdef") != "" {
		return fmt.Errorf("not %s", what)
	}
	if len(digits) != 64 {
		return fmt.Errorf("has %d hex digits, not 64", len(digits))
	}
	return nil
}

// identity adds the problem of a key or an id at a.
func (t *tree) identity(a at, value string, err error) {
	var other errOther
	text := err.Error()
	if errors.As(err, &other) {
		key := map[string]string{"person": "authors", "event": "ids", "address": "filters", "relay": "sources"}[string(other)]
		if a.flag {
			key = map[string]string{"person": "--author", "event": "--id", "address": "--author, --kind and --tag d=…", "relay": "--source"}[string(other)]
		}
		text = fmt.Sprintf("that is %s. Did you mean %s?", article(string(other)), key)
	}
	t.wrong(a, "", "%s", text)
	p := &t.problems[len(t.problems)-1]
	p.Value, p.identity = brief(bare(value)), true
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

// author reads an author at a.
func (t *tree) author(text string, a at, notes *[]string) (event.PubKey, bool) {
	key, relays, err := ParseAuthor(text)
	if err != nil {
		t.identity(a, text, err)
		return key, false
	}
	if len(relays) > 0 {
		*notes = append(*notes, Redact(fmt.Sprintf("%s %s names %d relays of its own: %s. They are not asked unless they are among the sources",
			a.path, brief(bare(text)), len(relays), show(strings.Join(relays[:min(3, len(relays))], " ")))))
	}
	return key, true
}

// id reads an event's id at a.
func (t *tree) id(text string, a at) (event.ID, bool) {
	id, err := ParseID(text)
	if err != nil {
		t.identity(a, text, err)
		return id, false
	}
	return id, true
}
