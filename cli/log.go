package cli

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"rebroadcastr/config"
)

// newLog writes to stderr: for people on a terminal, else JSON, unless the format is named.
func newLog(stderr io.Writer, c config.Log) zerolog.Logger {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil || c.Level == "" { // config has checked it
		level = zerolog.InfoLevel
	}
	if c.Format == "console" || c.Format != "json" && isTerminal(stderr) {
		stderr = zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.DateTime, NoColor: !isTerminal(stderr) || os.Getenv("NO_COLOR") != ""}
	}
	return zerolog.New(stderr).Level(level).With().Timestamp().Logger()
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
