package cli

import (
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"rebroadcastr/config"
)

// logs is a log whose level and format change while it is in use: every logger made from it heeds them.
type logs struct {
	w        io.Writer
	terminal bool
	level    atomic.Int32
	people   atomic.Pointer[zerolog.ConsoleWriter] // nil: JSON
}

// newLogs writes to w: for people on a terminal, else JSON, unless the format is named.
func newLogs(w io.Writer, terminal bool, c config.Log) *logs {
	l := &logs{w: w, terminal: terminal}
	l.set(c)
	return l
}

func (l *logs) set(c config.Log) {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil || c.Level == "" { // config has checked it
		level = zerolog.InfoLevel
	}
	l.level.Store(int32(level))
	if c.Format == "console" || c.Format != "json" && l.terminal {
		l.people.Store(&zerolog.ConsoleWriter{Out: l.w, TimeFormat: time.DateTime, NoColor: !l.terminal || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb"})
	} else {
		l.people.Store(nil)
	}
}

func (l *logs) logger() zerolog.Logger {
	return zerolog.New(l).Level(zerolog.DebugLevel).Sample(l).With().Timestamp().Logger()
}

// Sample is asked before a line is put together.
func (l *logs) Sample(level zerolog.Level) bool { return int32(level) >= l.level.Load() }

// Write takes one line as JSON.
func (l *logs) Write(line []byte) (int, error) {
	if c := l.people.Load(); c != nil {
		return c.Write(line)
	}
	return l.w.Write(line)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
