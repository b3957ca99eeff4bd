package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

// fileWatch tells of changes of a config file. It watches the directories that its name leads through, not the file:
// editors put another one in its place, and Kubernetes swaps a link above it.
type fileWatch struct {
	path    string
	changed chan<- struct{} // 1: look at the file
	log     zerolog.Logger
}

const (
	watchQuiet = 200 * time.Millisecond // without another change, before one counts: a file is written in pieces
	watchMost  = 2 * time.Second        // after the first of many changes
	watchAgain = 5 * time.Second        // until a directory that is not there is tried again
)

// run watches until ctx ends. What cannot be watched is logged and tried again.
func (w *fileWatch) run(ctx context.Context) error {
	path, err := filepath.Abs(w.path)
	if err != nil {
		return fmt.Errorf("watch %s: %w", w.path, err)
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = notify.Close() }() // nothing is lost with it
	again := time.NewTicker(watchAgain)
	defer again.Stop()
	quiet := time.NewTimer(0) // what changed before the watch is looked at too
	defer quiet.Stop()
	var first time.Time
	whole := w.follow(notify, path, nil)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-notify.Events:
			if !ok {
				return nil
			}
			// A write to a neighbour says nothing; a new name may be a link on the way.
			if filepath.Base(e.Name) != filepath.Base(path) && !e.Has(fsnotify.Create) && !e.Has(fsnotify.Remove) && !e.Has(fsnotify.Rename) {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			quiet.Reset(max(0, min(watchQuiet, time.Until(first.Add(watchMost)))))
		case err := <-notify.Errors:
			w.log.Warn().Err(err).Msg("watching the config file")
			quiet.Reset(watchQuiet) // something may have been missed
		case <-again.C:
			if whole == nil {
				continue
			}
			if whole = w.follow(notify, path, whole); whole == nil {
				quiet.Reset(0)
			}
		case <-quiet.C:
			first = time.Time{}
			whole = w.follow(notify, path, whole)
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// follow watches the directories that path leads through now, and no others. It logs an error that was not there before.
func (w *fileWatch) follow(notify *fsnotify.Watcher, path string, before error) error {
	want := throughDirs(path)
	var errs []error
	for _, dir := range notify.WatchList() {
		if !slices.Contains(want, dir) {
			_ = notify.Remove(dir) // it may have gone by itself
		}
	}
	for _, dir := range want { // again, too: a directory of that name may be another one now
		_ = notify.Remove(dir)
		errs = append(errs, notify.Add(dir))
	}
	err := errors.Join(errs...)
	if err != nil && before == nil {
		w.log.Warn().Err(err).Msg("the config file is not wholly watched")
	}
	return err
}

// throughDirs are the directories of path and of each link that it leads through.
func throughDirs(path string) (dirs []string) {
	for range 40 { // as many links as Linux follows
		if dir := filepath.Dir(path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return dirs
}
