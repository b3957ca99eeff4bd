package cli

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"rebroadcastr/event"
)

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "the version and which signature check it has",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON"}},
		Action: func(c *cli.Context) error {
			if c.Bool("json") {
				return writeJSON(p.stdout, map[string]string{
					"version": p.version, "verifier": event.VerifierName(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(p.stdout, "rebroadcastr %s\nverifier %s\n%s %s/%s\n", p.version, event.VerifierName(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
