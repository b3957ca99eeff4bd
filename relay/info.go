package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxInfo in bytes of a NIP-11 document; what is longer is cut, and then no JSON.
	maxInfo = 64 << 10
	// infoAge is how old a document may become, infoRetry how long after a fetch that failed the next one is tried.
	infoAge   = 24 * time.Hour
	infoRetry = time.Hour
	// maxNIPs is how many supported NIPs are kept.
	maxNIPs = 256
)

// Info is a relay's NIP-11 document, leniently read: a field of the wrong type is as if it were not there. All of it
// is the relay's claim.
type Info struct {
	Known       bool // false: none was fetched yet, or the relay has none
	Fetched     time.Time
	Name        string
	Description string
	Software    string
	Version     string
	Contact     string
	NIPs        []int // sorted
	Limits      Limits
}

// Limits are a relay's claims about what it takes; 0: not said.
type Limits struct {
	MaxMessageLength int // bytes
	MaxSubscriptions int
	MaxLimit         int // events of one answer
	DefaultLimit     int
	MaxSubIDLength   int
	MaxEventTags     int
	MaxContentLength int   // code points
	MinPoW           int   // leading zero bits of the id
	CreatedAtLower   int64 // seconds before now
	CreatedAtUpper   int64 // seconds after now
	AuthRequired     bool
	PaymentRequired  bool
	RestrictedWrites bool
}

// Supports says that the relay advertises a NIP. False says little.
func (i Info) Supports(nip int) bool {
	_, found := slices.BinarySearch(i.NIPs, nip)
	return found
}

// ParseInfo reads a NIP-11 document. The error says that it is no JSON object; all else is tolerated.
func ParseInfo(doc []byte) (Info, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(doc, &top); err != nil {
		return Info{}, fmt.Errorf("parse NIP-11 document: %w", err)
	}
	if top == nil {
		return Info{}, fmt.Errorf("parse NIP-11 document: it is null")
	}
	i := Info{
		Known:       true,
		Name:        textOf(top["name"]),
		Description: textOf(top["description"]),
		Software:    textOf(top["software"]),
		Version:     textOf(top["version"]),
		Contact:     textOf(top["contact"]),
	}
	var nips []json.RawMessage
	_ = json.Unmarshal(top["supported_nips"], &nips)
	for _, raw := range nips[:min(len(nips), maxNIPs)] {
		// Some relays hold strings here ("11", "NIP-11"); letters as in "EE" name no number.
		s := strings.Trim(string(raw), `"`)
		s = strings.TrimPrefix(strings.ToUpper(s), "NIP-")
		if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 10000 {
			i.NIPs = append(i.NIPs, n)
		}
	}
	slices.Sort(i.NIPs)
	i.NIPs = slices.Compact(i.NIPs)
	var limits map[string]json.RawMessage
	_ = json.Unmarshal(top["limitation"], &limits)
	number := func(key string) int { return int(min(numberOf(limits[key]), math.MaxInt32)) }
	i.Limits = Limits{
		MaxMessageLength: number("max_message_length"),
		MaxSubscriptions: number("max_subscriptions"),
		MaxLimit:         number("max_limit"),
		DefaultLimit:     number("default_limit"),
		MaxSubIDLength:   number("max_subid_length"),
		MaxEventTags:     number("max_event_tags"),
		MaxContentLength: number("max_content_length"),
		MinPoW:           number("min_pow_difficulty"),
		CreatedAtLower:   numberOf(limits["created_at_lower_limit"]),
		CreatedAtUpper:   numberOf(limits["created_at_upper_limit"]),
		AuthRequired:     boolOf(limits["auth_required"]),
		PaymentRequired:  boolOf(limits["payment_required"]),
		RestrictedWrites: boolOf(limits["restricted_writes"]),
	}
	return i, nil
}

func textOf(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return clean(s)
}

// numberOf reads a positive number, also one written as a string or with a fraction; 0 for all else.
func numberOf(raw json.RawMessage) int64 {
	f, err := strconv.ParseFloat(strings.Trim(string(raw), `"`), 64)
	if err != nil || !(f > 0) || f > 1<<53 {
		return 0
	}
	return int64(f)
}

func boolOf(raw json.RawMessage) bool {
	switch strings.ToLower(strings.Trim(string(raw), `"`)) {
	case "true", "1", "yes":
		return true
	}
	return false
}

// fetchInfo gets the relay's NIP-11 document: the same address over HTTP.
func (d *dialer) fetchInfo(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, d.settings.Connect)
	defer cancel()
	address := "http" + strings.TrimPrefix(d.url, "ws")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return Info{}, fmt.Errorf("get NIP-11 document: %w", err)
	}
	req.Header.Set("Accept", "application/nostr+json")
	req.Header.Set("User-Agent", d.userAgent)
	tlsConfig, err := d.tlsConfig()
	if err != nil {
		return Info{}, err
	}
	transport := &http.Transport{
		DialContext:            d.dial,
		TLSClientConfig:        tlsConfig,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxInfo,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return fmt.Errorf("more than 3 redirects")
		}
		return nil
	}}
	resp, err := client.Do(req)
	if err != nil {
		return Info{}, fmt.Errorf("get NIP-11 document: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Info{}, fmt.Errorf("get NIP-11 document: %s", resp.Status)
	}
	doc, err := io.ReadAll(io.LimitReader(resp.Body, maxInfo))
	if err != nil {
		return Info{}, fmt.Errorf("read NIP-11 document: %w", err)
	}
	return ParseInfo(doc)
}
