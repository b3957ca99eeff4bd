// Package config makes one validated Config from a YAML file, flags and environment variables.
//
// Precedence is per key: the flag, else REBROADCASTR_<FLAG>, else the file, else the default; nothing is joined.
// Selection flags replace the file's whole selection, --source and --sink its lists. Load finds all mistakes at once
// and returns them as Problems, each with its place. It dials nothing and writes nothing.
//
// No text that looks like a private key gets into a parser or out of this package: files are searched before they are
// parsed, values again after ${VAR} was expanded, and messages once more before they are returned.
package config

import (
	"io/fs"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// Config is what one command was asked to do, validated.
type Config struct {
	Want   []event.Filter // OR-ed; never empty for a command that takes a selection
	Except []event.Filter // taken out of Want again
	All    bool           // "everyone" was said
	Asked  string         // Want and History in words: "1 author and mentions, all time"

	History   History
	Reconcile Reconcile
	Sources   []Source
	Sinks     []Sink

	// Relays holds the settings of relays that have their own, by normalised URL. Relay answers for every URL.
	Relays  map[string]relay.Settings
	Default relay.Settings

	Archive Archive
	Dedup   Dedup
	Listen  Listen
	Control Control
	Log     Log
	Grace   time.Duration // for sinks to hear their OKs at a stop
	Watch   bool          // reload when the file changes

	File  string   // the config file, empty without one
	Notes []string // what is no mistake but worth a line: relay hints of an nprofile, settings of a relay nobody uses
}

// Relay returns the settings of one link, by normalised URL.
func (c *Config) Relay(url string) relay.Settings {
	if s, ok := c.Relays[url]; ok {
		return s
	}
	return c.Default
}

// Source is one relay that events are taken from.
type Source struct {
	URL       string // normalised
	Name      string // for people; may be empty
	Only      []event.Filter
	Except    []event.Filter
	History   History
	Reconcile Reconcile
	Enabled   bool
}

// Sink is one relay that events are sent to.
type Sink struct {
	URL       string // normalised
	Name      string // for people; may be empty
	Only      []event.Filter
	Except    []event.Filter
	Start     Start
	Send      []string // rows of policy's table that are let through
	Reconcile Reconcile
	Enabled   bool
}

// Reconcile says how often a relay is compared with the archive, a source for what came late or was missed, a sink for what it
// lacks: every so often as far back as Depth, and in full where that was Full ago. The zero value is off.
type Reconcile struct{ Every, Depth, Full time.Duration }

// History says how far back a new source is asked. Since is in unix seconds, 0 for everything; a relative time in the
// file was resolved against Inputs.Now.
type History struct {
	None  bool
	Since int64
}

// Start says where in the archive a new sink begins: now, or at what was created at Since or later (unix seconds,
// 0 for everything).
type Start struct {
	Now   bool
	Since int64
}

// Archive is where and how events are kept.
type Archive struct {
	Dir     string
	Sync    time.Duration // 0: before a sink is woken
	Segment int64         // bytes
	Mode    fs.FileMode   // of segments
	MinFree int64         // bytes; 0: by the size of the filesystem
}

// Dedup sizes the index of known ids.
type Dedup struct {
	LRU    int   // ids
	Memory int64 // bytes for Badger
}

// Listen is the read-only HTTP listener.
type Listen struct {
	Addr      string // host:port; empty: off
	Named     bool   // the user named it, so a port that is taken is an error
	TokenFile string
	PProf     bool
}

// Control is the unix socket. An empty Path means control.sock in the archive's directory.
type Control struct {
	Path string
	Mode fs.FileMode
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // auto, console, json
}
