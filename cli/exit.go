package cli

import (
	"errors"

	"rebroadcastr/archive"
	"rebroadcastr/config"
)

// Exit codes, as the README lists them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitIncomplete  = 3
	exitInUse       = 4
	exitInterrupted = 130
)

// exitError ends the program with a code. Without a message everything has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitCode classifies err where it leaves the program.
func exitCode(err error) int {
	var exit *exitError
	var inUse *archive.InUse
	var problems config.Problems
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &inUse):
		return exitInUse
	case errors.As(err, &problems):
		return exitUsage
	}
	return exitFailed
}
