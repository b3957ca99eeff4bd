package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

var units = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": day, "w": week,
}

var errMonths = errors.New("m is minutes; say 30d")

// ParseDuration reads "90s", "1h30m", "7d", "2w": whole numbers with units, added up. "0" needs no unit.
func ParseDuration(text string) (time.Duration, error) {
	if text == "0" {
		return 0, nil
	}
	var sum time.Duration
	rest := text
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		name := rest[digits:]
		if end := strings.IndexAny(name, "0123456789"); end >= 0 {
			name = name[:end]
		}
		rest = rest[digits+len(name):]
		if digits == 0 {
			return 0, errors.New("not a duration; say 90s, 10m, 12h, 30d or 2w")
		}
		number := text[len(text)-len(rest)-len(name)-digits : len(text)-len(rest)-len(name)]
		if name == "M" {
			return 0, errMonths
		}
		unit, ok := units[name]
		switch {
		case name == "":
			return 0, fmt.Errorf("a duration needs a unit: %ss, %sm, %sh, %sd?", brief(number), brief(number), brief(number), brief(number))
		case !ok:
			return 0, errors.New("not a duration; say 90s, 10m, 12h, 30d or 2w")
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > int64(math.MaxInt64-sum)/int64(unit) {
			return 0, errors.New("too long")
		}
		sum += time.Duration(n) * unit
	}
	if text == "" {
		return 0, errors.New("not a duration; say 90s, 10m, 12h, 30d or 2w")
	}
	return sum, nil
}

// formatDuration writes what ParseDuration reads, in the largest units that fit.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", time.Nanosecond}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	return b.String()
}

var sizes = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// ParseSize reads "256MiB": a whole number of bytes in B, KiB, MiB or GiB. "0" needs no unit.
func ParseSize(text string) (int64, error) {
	if text == "0" {
		return 0, nil
	}
	number := strings.TrimRight(text, "BGKMTPikbgmtp")
	name := text[len(number):]
	n, err := strconv.ParseUint(strings.TrimSuffix(number, " "), 10, 63)
	if err != nil {
		return 0, errors.New("not a size; say 512KiB, 256MiB or 2GiB")
	}
	for _, s := range sizes {
		if s.name != name {
			continue
		}
		if int64(n) > math.MaxInt64/s.bytes {
			return 0, errors.New("too big")
		}
		return int64(n) * s.bytes, nil
	}
	if name == "" {
		return 0, errors.New("a size needs a unit: KiB, MiB or GiB")
	}
	return 0, errors.New("sizes are in KiB, MiB or GiB")
}

// formatSize writes what ParseSize reads.
func formatSize(n int64) string {
	for _, s := range sizes {
		if n != 0 && n%s.bytes == 0 {
			return strconv.FormatInt(n/s.bytes, 10) + s.name
		}
	}
	return "0"
}

// tooFar is the first number taken for milliseconds: as seconds it is the year 5138.
const tooFar = 100_000_000_000

// errTime says what a time may look like.
var errTime = errors.New("not a time; say 2024-01-31, 2024-01-31T10:00:00Z, 30d or unix seconds")

// parseTime reads a time as users write it and returns unix seconds. A date is UTC's; as an end it includes its day.
// relative says that the answer depends on now.
func parseTime(text string, now time.Time, end bool) (unix int64, relative bool, err error) {
	if text != "" && strings.Trim(text, "0123456789") == "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n >= tooFar {
			return 0, false, errors.New("too big for unix seconds; are these milliseconds?")
		}
		// As seconds it is half an hour of 1970, so --since 2024 would take everything and --until 2024 nothing.
		if len(text) == 4 && n >= 1970 && n < 2100 {
			return 0, false, fmt.Errorf("a year? say %s-01-01", text)
		}
		return n, false, nil
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		if end {
			return t.Unix() + int64(day/time.Second) - 1, false, within(t)
		}
		return t.Unix(), false, within(t)
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.Unix(), false, within(t)
	}
	if _, err := time.Parse("2006-01-02T15:04:05", text); err == nil {
		return 0, false, errors.New("a time needs a zone: add Z for UTC")
	}
	ago := strings.TrimSuffix(strings.TrimPrefix(text, "-"), " ago")
	if ago == "" || ago[0] < '0' || ago[0] > '9' || strings.ContainsAny(ago, "-:/") {
		return 0, false, errTime
	}
	d, err := ParseDuration(ago)
	if errors.Is(err, errMonths) {
		return 0, false, err
	}
	if err != nil {
		return 0, false, errTime
	}
	t := now.Add(-d)
	return t.Unix(), true, within(t)
}

func within(t time.Time) error {
	if t.Unix() < 0 {
		return errors.New("before 1970")
	}
	return nil
}
