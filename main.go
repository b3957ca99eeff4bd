// Command rebroadcastr mirrors Nostr events from source relays to an archive on disk and to sink relays.
package main

import (
	"context"
	"os"

	"rebroadcastr/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.Process{
		Args: os.Args, LookupEnv: os.LookupEnv, Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}))
}
