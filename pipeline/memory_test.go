package pipeline

import (
	"fmt"
	"testing"

	"rebroadcastr/config"
)

// TestMemoryFollowsTheConfig: the sum that the design names, and what each setting and relay adds to it.
func TestMemoryFollowsTheConfig(t *testing.T) {
	const mib = 1 << 20
	cfg := config.Defaults()
	base := Memory(cfg)
	if base < 149*mib || base > 151*mib {
		t.Errorf("by the defaults %d MiB, want 150", base/mib)
	}
	for i := range 200 {
		cfg.Sources = append(cfg.Sources, config.Source{URL: fmt.Sprintf("wss://source%d.example", i), Enabled: true})
	}
	for i := range 50 {
		cfg.Sinks = append(cfg.Sinks, config.Sink{URL: fmt.Sprintf("wss://sink%d.example", i), Enabled: true})
	}
	// A relay that is both has one connection, one that is switched off has none.
	cfg.Sinks = append(cfg.Sinks, config.Sink{URL: "wss://source0.example", Enabled: true}, config.Sink{URL: "wss://off.example"})
	if got, want := Memory(cfg)-base, int64(250*connectionBytes+51*sinkBytes); got != want {
		t.Errorf("200 sources and 51 sinks, one of them a source too, add %d bytes, want %d", got, want)
	}
	if limit := MemoryLimit(cfg); limit > 240*mib {
		t.Errorf("the limit with 200 sources and 51 sinks is %d MiB, want at most 240", limit/mib)
	}
	cfg = config.Defaults()
	cfg.Dedup.LRU, cfg.Dedup.Memory = 10*cfg.Dedup.LRU, 2*cfg.Dedup.Memory
	if got, want := Memory(cfg)-base, int64(900_000*lruEntryBytes+64*mib); got != want {
		t.Errorf("a larger index adds %d bytes, want %d", got, want)
	}
}
