package cli

import (
	"bytes"
	"strings"
	"testing"

	"rebroadcastr/config"
)

// TestLogsChange: level and format change for loggers that were made before.
func TestLogsChange(t *testing.T) {
	var out bytes.Buffer
	l := newLogs(&out, false, config.Log{Level: "info", Format: "auto"})
	log := l.logger().With().Str("relay", "wss://x").Logger()
	log.Debug().Msg("one")
	log.Info().Msg("two")
	l.set(config.Log{Level: "debug", Format: "console"})
	log.Debug().Msg("three")
	l.set(config.Log{Level: "error", Format: "json"})
	log.Warn().Msg("four")
	log.Error().Msg("five")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], `"message":"two"`) || !strings.Contains(lines[1], "DBG three") || !strings.Contains(lines[2], `"message":"five"`) {
		t.Errorf("logged\n%s\nwant two as JSON, three for people, five as JSON", out.String())
	}
	if log.Debug().Enabled() {
		t.Error("a line that is not logged is put together")
	}
}
