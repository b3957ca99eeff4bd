// Package url brings the address of a relay into the one form that is its identity: two spellings of one relay are
// one connection, one ledger, one line in the status.
//
// The form: scheme ws or wss, host in lower case (punycode, IPv6 shortened), no default port, path and query as they
// were, no lone slash, no fragment.
package url

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// What is wrong with an address, where a caller may want to add a hint. The texts do not hold the address.
var (
	ErrPerson   = errors.New("that is a person, not a relay")
	ErrKey      = errors.New("holds a private key (not shown)")
	ErrUserInfo = errors.New("a name or password in the address is not supported")
)

// maxLength in bytes of an address; longer ones are no relay's.
const maxLength = 2048

// Normalize returns the one form of a relay's address. A bare host gets wss, or ws for the loopback, private addresses
// and .onion; it needs a dot or must be localhost. Errors say what is wrong without repeating the address.
func Normalize(s string) (string, error) {
	s = strings.TrimSpace(s)
	if err := refuse(s); err != nil {
		return "", err
	}
	scheme, rest, named := strings.Cut(s, "://")
	if named {
		scheme = strings.ToLower(scheme)
		if scheme != "ws" && scheme != "wss" {
			return "", fmt.Errorf("scheme must be ws or wss, not %q", clip(scheme))
		}
	} else {
		scheme, rest = "wss", s // for the parser; chosen below by the host
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil {
		// url.Error repeats the address.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return "", fmt.Errorf("parse address: %w", err)
	}
	if u.User != nil {
		return "", ErrUserInfo
	}
	host, addr, err := normalHost(u.Hostname())
	if err != nil {
		return "", err
	}
	port := u.Port()
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", fmt.Errorf("port must be 1 to 65535, not %q", clip(port))
		}
		port = strconv.FormatUint(n, 10)
	} else if strings.HasSuffix(u.Host, ":") {
		return "", errors.New("the port is missing after the colon")
	}
	if !named {
		if !addr.IsValid() && host != "localhost" && !strings.Contains(host, ".") {
			return "", errors.New("a host needs a dot (or write ws:// or wss:// in front)")
		}
		if nearby(host, addr) {
			scheme = "ws"
		}
	}
	if scheme == "ws" && port == "80" || scheme == "wss" && port == "443" {
		port = ""
	}
	if addr.Is6() {
		host = "[" + host + "]"
	}
	out := scheme + "://" + host
	if port != "" {
		out += ":" + port
	}
	if p := u.EscapedPath(); p != "/" || u.RawQuery != "" {
		out += p
	}
	if u.RawQuery != "" {
		out += "?" + u.RawQuery
	}
	return out, nil
}

// refuse what is no address at all.
func refuse(s string) error {
	low := strings.ToLower(s)
	switch {
	case strings.Contains(low, "nsec1") || strings.Contains(low, "ncryptsec1"):
		return ErrKey
	case s == "":
		return errors.New("the address is empty")
	case len(s) > maxLength:
		return fmt.Errorf("the address is longer than %d bytes", maxLength)
	}
	low = strings.TrimPrefix(low, "nostr:")
	if strings.HasPrefix(low, "npub1") || strings.HasPrefix(low, "nprofile1") {
		if !strings.ContainsAny(low, "./") {
			return ErrPerson
		}
	}
	for _, c := range s {
		if c <= ' ' || c == 0x7f {
			return errors.New("the address has a space or a control character in it")
		}
	}
	return nil
}

// normalHost returns the host's one form, and its address if it is one.
func normalHost(host string) (string, netip.Addr, error) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "" {
		return "", netip.Addr{}, errors.New("the host is missing")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() == "" {
			addr = addr.Unmap()
		}
		return addr.String(), addr, nil
	}
	if strings.Contains(host, ":") {
		return "", netip.Addr{}, errors.New("not an IPv6 address")
	}
	for _, c := range host {
		if c > 0x7f {
			ascii, err := idna.Lookup.ToASCII(host)
			if err != nil {
				return "", netip.Addr{}, errors.New("not an international host name")
			}
			host = ascii
			break
		}
	}
	for _, label := range strings.Split(host, ".") {
		if label == "" || len(label) > 63 {
			return "", netip.Addr{}, errors.New("not a host name: a part between dots is empty or longer than 63")
		}
	}
	for _, c := range host {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", netip.Addr{}, fmt.Errorf("not a host name: it has a %q", c)
		}
	}
	return host, netip.Addr{}, nil
}

// nearby hosts are spoken to without TLS unless the user says wss.
func nearby(host string, addr netip.Addr) bool {
	if addr.IsValid() {
		return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || Onion(host)
}

// Onion says whether a host, without port, is a Tor onion service.
func Onion(host string) bool { return strings.HasSuffix(strings.ToLower(host), ".onion") }

func clip(s string) string {
	if len(s) > 20 {
		return s[:20] + "…"
	}
	return s
}
