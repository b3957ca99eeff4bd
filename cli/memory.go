package cli

import (
	"runtime/debug"

	"rebroadcastr/config"
	"rebroadcastr/pipeline"
)

// limitMemory gives Go's collector the limit that follows from the config, unless the user has set GOMEMLIMIT, also to off. It
// returns the limit from before.
func limitMemory(cfg *config.Config, lookup func(string) (string, bool)) (before int64) {
	if lookup != nil {
		if set, _ := lookup("GOMEMLIMIT"); set != "" {
			return debug.SetMemoryLimit(-1)
		}
	}
	return debug.SetMemoryLimit(pipeline.MemoryLimit(cfg))
}
