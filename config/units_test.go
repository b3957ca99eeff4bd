package config

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTimes(t *testing.T) {
	unix := func(text string) int64 {
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v.Unix()
	}
	for _, c := range []struct {
		text string
		end  bool
		want int64
		err  string
	}{
		{"0", false, 0, ""},
		{"1700000000", false, 1700000000, ""},
		{"1700000000000", false, 0, "too big for unix seconds; are these milliseconds?"},
		{"99999999999999999999", false, 0, "too big for unix seconds; are these milliseconds?"},
		{"2024", true, 0, "a year? say 2024-01-01"},
		{"1969", false, 1969, ""},
		{"2024-01-31", false, unix("2024-01-31T00:00:00Z"), ""},
		{"2024-01-31", true, unix("2024-01-31T23:59:59Z"), ""},
		{"2024-02-29", true, unix("2024-02-29T23:59:59Z"), ""},
		{"2023-02-29", false, 0, errTime.Error()},
		{"2024-01-31T10:00:00+02:00", true, unix("2024-01-31T08:00:00Z"), ""},
		{"2024-01-31T10:00:00.5Z", false, unix("2024-01-31T10:00:00Z"), ""},
		{"2024-01-31T10:00:00", false, 0, "a time needs a zone: add Z for UTC"},
		{"30d", false, now.Add(-30 * day).Unix(), ""},
		{"-30d", false, now.Add(-30 * day).Unix(), ""},
		{"30d ago", false, now.Add(-30 * day).Unix(), ""},
		{"1w2d3h", false, now.Add(-9*day - 3*time.Hour).Unix(), ""},
		{"90m", true, now.Add(-90 * time.Minute).Unix(), ""},
		{"3M", false, 0, "m is minutes; say 30d"},
		{"-3M", false, 0, "m is minutes; say 30d"},
		{"1M ago", false, 0, "m is minutes; say 30d"},
		{"1969-12-31", false, 0, "before 1970"},
		{"5000w", false, 0, "before 1970"},
		{"", false, 0, errTime.Error()},
		{"-", false, 0, errTime.Error()},
		{"--30d", false, 0, errTime.Error()},
		{"-5", false, 0, errTime.Error()},
		{"tomorrow", false, 0, errTime.Error()},
		{"30 days", false, 0, errTime.Error()},
	} {
		got, _, err := parseTime(c.text, now, c.end)
		text := ""
		if err != nil {
			text, got = err.Error(), 0
		}
		if got != c.want || text != c.err {
			t.Errorf("%q (end: %v) is %d, %q; want %d, %q", c.text, c.end, got, text, c.want, c.err)
		}
	}
}

func TestDurationsAndSizes(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "500ms": 500 * time.Millisecond, "1h30m": 90 * time.Minute, "7d": 7 * day, "2w": 2 * week, "1w1d": 8 * day, "10us": 10 * time.Microsecond,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "-1s", "1.5h", "s", "1y", "1M", "1h 2m", "99999999999w", "9223372036854775807ns1ns", "１s"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
	for text, want := range map[string]int64{"0": 0, "1B": 1, "4KiB": 4096, "256MiB": 256 << 20, "2GiB": 2 << 30, "2 GiB": 2 << 30} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "-1MiB", "1MB", "1G", "1.5GiB", "MiB", "9999999999999GiB", "1mib"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

// TestWrittenIsRead: what show writes is read as the same value.
func TestWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Min(0).Draw(t, "d"))
		if got, err := ParseDuration(formatDuration(d)); err != nil || got != d {
			t.Errorf("%s is written %s and read as %s, %v", d, formatDuration(d), got, err)
		}
		n := rapid.Int64Min(0).Draw(t, "n") << rapid.IntRange(0, 40).Draw(t, "shift") & (1<<62 - 1)
		if got, err := ParseSize(formatSize(n)); err != nil || got != n {
			t.Errorf("%d is written %s and read as %d, %v", n, formatSize(n), got, err)
		}
	})
}

func TestSecretNames(t *testing.T) {
	for _, name := range []string{"nsec", "NSEC", "--nsec", "my_nsec", "nsecs", "ncryptsec", "secret", "client-secret", "privkey", "private_key", "Private Key", "seckey", "REBROADCASTR_SECRET_KEY"} {
		if !SecretName(name) {
			t.Errorf("%q is not taken for a secret's name", name)
		}
	}
	for _, name := range []string{"authors", "insecure_skip_verify", "token_file", "backoff", "sections", "--since"} {
		if SecretName(name) {
			t.Errorf("%q is taken for a secret's name", name)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, text := range []string{nsec, strings.ToUpper(nsec), "x nostr:" + nsec + ",", "wss://" + nsec + "@x", nsec[:20], "ncryptsec1" + nsec[5:], nsec[:30] + "b" + nsec[31:]} {
		if !HoldsPrivateKey(text) {
			t.Errorf("no key found in one of the forms (%d characters)", len(text))
		}
		if out := Redact(text); HoldsPrivateKey(out) || strings.Contains(strings.ToLower(out), nsec[6:16]) {
			t.Errorf("redacted text still holds a key")
		}
	}
	for _, text := range []string{npubJack, "nsec1", "nsec1…", "insecure"} {
		if HoldsPrivateKey(text) {
			t.Errorf("%q is taken for a private key", text)
		}
	}
}
