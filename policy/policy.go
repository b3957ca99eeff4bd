// Package policy is the table of what never goes to a sink unless its configuration lets it through: each row with
// its NIP and its reason. Archiving is separate: what the filters ask for is archived.
//
// A row is a name and a rule over one event. The names of the rows that may be let through are what `send:` takes;
// the others hold for every sink.
package policy

import (
	"fmt"
	"slices"
	"strings"

	"rebroadcastr/event"
)

// The names of the rows, as counters, `send:` and the README show them.
const (
	Protected   = "protected"
	Ephemeral   = "ephemeral"
	RelayScoped = "relay-scoped"
	Vanish      = "vanish"
	Expired     = "expired"
	DM          = "dm"
	Wallet      = "wallet"
	Drafts      = "drafts"
	MLS         = "mls"
	Groups      = "groups"
	ZapRequests = "zap_requests"
	Expiring    = "expiring"
	Deleted     = "deleted"
	Superseded  = "superseded"
)

// Row is one row of the table.
type Row struct {
	Name   string
	Rule   string // which events, for people
	NIP    string // "17, 59"
	Reason string
	Never  bool // no configuration lets it through

	holds func(e *event.Event, c Context) bool // nil: other events say so, not this one
}

// table in the order of asking: what can never be sent first, so that an event is counted under the row that an
// operator cannot change.
var table = []Row{
	{Protected, "a - tag, or a repost (6, 16) of an event with one", "70", "only its author may publish it", true, isProtected},
	{Ephemeral, "kinds 20000-29999", "01", "meant for those who listen now; not archived either", true,
		func(e *event.Event, _ Context) bool { return event.IsEphemeral(e.Kind) }},
	{RelayScoped, "kinds 8000, 8001, 13534, 33534", "43", "one relay's own membership", true, kinds(8000, 8001, 13534, 33534)},
	{Vanish, "kind 62 without this relay, or ALL_RELAYS, in a relay tag", "62", "it is for the relays that it names", true, isVanishElsewhere},
	{Expired, "past its expiration tag, at each send", "40", "its author wanted it gone by now", true, isExpired},
	{DM, "kinds 4, 13, 14, 15, 1059, 21059", "04, 17, 59", "private messages belong on the recipient's own relays only",
		false, kinds(4, 13, 14, 15, 1059, 21059)},
	{Wallet, "kinds 7374-7376, 17375", "60", "wallet data, money among it", false, kinds(7374, 7375, 7376, 17375)},
	{Drafts, "kinds 1234, 31234", "37", "not published yet", false, kinds(1234, 31234)},
	{MLS, "kinds 443-445", "EE", "encrypted group messages and their keys", false, kinds(443, 444, 445)},
	{Groups, "an h tag, kinds 9000-9030, 39000-39009", "29", "a group lives on its relay", false, isGroup},
	{ZapRequests, "kind 9734", "57", "goes to a wallet service, not to relays", false, kinds(9734)},
	{Expiring, "has an expiration tag and the sink does not advertise NIP-40", "40", "the sink would keep it for ever",
		false, isExpiring},
	{Deleted, "a deletion (kind 5) or a request to vanish (62) covers it, at each send; these two go out", "09, 62",
		"its author wanted it gone", false, nil},
	{Superseded, "an older version, when the sink gets the newer one, at each send", "01", "relays keep the newest only", false, nil},
}

// Table is every row, in the order of asking.
func Table() []Row { return slices.Clone(table) }

// Names are the rows that `send:` may name.
func Names() []string {
	var names []string
	for _, r := range table {
		if !r.Never {
			names = append(names, r.Name)
		}
	}
	return names
}

// Allow is what one sink's configuration lets through. The zero Allow is nothing.
type Allow struct{ rows uint64 } // by index in table

// NewAllow reads a `send:` list.
func NewAllow(names []string) (Allow, error) {
	var a Allow
	for _, name := range names {
		i := slices.IndexFunc(table, func(r Row) bool { return r.Name == name })
		if i < 0 {
			return Allow{}, fmt.Errorf("send: %q is not a row; there are %s", name, strings.Join(Names(), ", "))
		}
		if table[i].Never {
			return Allow{}, fmt.Errorf("send: %s is never sent (NIP-%s: %s)", name, table[i].NIP, table[i].Reason)
		}
		a.rows |= 1 << i
	}
	return a, nil
}

// Names are the rows that a lets through, in the table's order.
func (a Allow) Names() []string {
	var names []string
	for i, r := range table {
		if a.rows&(1<<i) != 0 {
			names = append(names, r.Name)
		}
	}
	return names
}

// Expiry is what a sink says of NIP-40 in its NIP-11 document.
type Expiry uint8

// ExpiryUnknown is before the document is known: an event held as Expiring waits then, it is not given up.
const (
	ExpiryUnknown Expiry = iota
	ExpiryIgnored
	ExpirySupported
)

// Context is what the answer depends on besides the event.
type Context struct {
	Now    int64 // unix seconds
	Expiry Expiry
	Relay  string // the sink's normalised URL
}

// Lets reports whether a lets events of the row through.
func (a Allow) Lets(name string) bool {
	i := slices.IndexFunc(table, func(r Row) bool { return r.Name == name })
	return i >= 0 && a.rows&(1<<i) != 0
}

// Check names the first row that holds e back from a sink that allows a; held is false if none does. Deleted and Superseded are
// not among them: for these the index is asked, about what no other row holds.
func Check(e *event.Event, a Allow, c Context) (row string, held bool) {
	for i := range table {
		if hold := table[i].holds; hold != nil && a.rows&(1<<i) == 0 && hold(e, c) {
			return table[i].Name, true
		}
	}
	return "", false
}

func kinds(list ...int) func(*event.Event, Context) bool {
	return func(e *event.Event, _ Context) bool { return slices.Contains(list, e.Kind) }
}

func isGroup(e *event.Event, _ Context) bool {
	return 9000 <= e.Kind && e.Kind <= 9030 || 39000 <= e.Kind && e.Kind <= 39009 || e.HasTag("h")
}

// isExpired counts the second named by the tag as past, as relays do.
func isExpired(e *event.Event, c Context) bool {
	at, ok := event.Expiration(e)
	return ok && at <= c.Now
}

func isExpiring(e *event.Event, c Context) bool {
	_, ok := event.Expiration(e)
	return ok && c.Expiry != ExpirySupported
}
