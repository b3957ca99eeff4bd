package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"rebroadcastr/archive"
	"rebroadcastr/pipeline"
	"rebroadcastr/relay/url"
	"rebroadcastr/report"
	"rebroadcastr/state"
)

// gaps lists what is proven and what is not, also without a daemon: then it reads the state, takes no lock and writes nothing.
func (p *program) gaps(c *cli.Context) error {
	dir, err := p.archiveDir(c)
	if err != nil {
		return err
	}
	if err := mustHold("status", dir); err != nil {
		return err
	}
	coverage, err := p.coverage(c, dir)
	if err != nil {
		return usageOf(err)
	}
	err = p.print(c, coverage, func() error { return coverage.WriteText(p.stdout) })
	if err == nil && coverage.Incomplete() {
		return &exitError{code: exitIncomplete}
	}
	return err
}

func (p *program) coverage(c *cli.Context, dir string) (report.Coverage, error) {
	relay := c.Args().First()
	d, err := findDaemon(dir)
	if err == nil {
		all, err := d.Coverage(relay)
		if !errors.Is(err, errNoDaemon) {
			return all, err
		}
	} else if !errors.Is(err, errNoDaemon) {
		return report.Coverage{}, err
	}
	all, err := pipeline.ReadCoverage(dir, p.now())
	if err != nil {
		return all, besideWriter(dir, err)
	}
	if relay == "" {
		return all, nil
	}
	only, err := url.Normalize(relay)
	if err != nil {
		if only = p.sourceNamed(c, relay); only == "" {
			return all, report.Refuse(report.Malformed, "%q is no relay's name or address: %v", relay, err)
		}
	}
	if all = all.Only(only); len(all.Sources) == 0 {
		return all, report.Refuse(report.Absent, "%s", pipeline.NoSource(only))
	}
	return all, nil
}

// sourceNamed is the URL of the source that the config gives that name; "" if there is none, or no config that can be read.
func (p *program) sourceNamed(c *cli.Context, name string) string {
	cfg, err := p.load(c)
	if err != nil {
		return ""
	}
	for _, s := range cfg.Sources {
		if s.Name == name {
			return s.URL
		}
	}
	return ""
}

// besideWriter says who writes to the archive, where err is that somebody does.
func besideWriter(dir string, err error) error {
	if !errors.Is(err, state.ErrInUse) {
		return fmt.Errorf("%w%s", err, permissionHint(err))
	}
	busy := &archive.InUse{Dir: dir}
	if holder, err := archive.ReadLock(dir); err == nil {
		busy.Holder, busy.Age = holder, time.Since(holder.Since)
	}
	return busy
}
