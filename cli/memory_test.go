package cli

import (
	"runtime/debug"
	"testing"

	"rebroadcastr/config"
	"rebroadcastr/pipeline"
)

// TestTheCollectorsLimitFollowsTheConfig, unless the user has said another one, or none.
func TestTheCollectorsLimitFollowsTheConfig(t *testing.T) {
	const before = 1 << 40
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	cfg := config.Defaults()
	for said, want := range map[string]int64{"": pipeline.MemoryLimit(cfg), "1GiB": before, "off": before} {
		debug.SetMemoryLimit(before)
		got := limitMemory(cfg, func(name string) (string, bool) { return said, name == "GOMEMLIMIT" && said != "" })
		if got != before {
			t.Errorf("GOMEMLIMIT=%q: the limit from before is %d, want %d", said, got, int64(before))
		}
		if now := debug.SetMemoryLimit(-1); now != want {
			t.Errorf("GOMEMLIMIT=%q: the limit is %d, want %d", said, now, want)
		}
	}
}
