package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// giveBack gives what root has made in another user's directory to that user: after `sudo rebroadcastr reindex` the
// service must be able to open its index. systemd does not mend that, since it looks at the directory's own owner only.
//
// The owner of dir could put links there: os.Root follows none out of it, and a file with another name elsewhere is left.
func giveBack(dir string) (err error) {
	if os.Geteuid() != 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("give the files in %s to its owner: %w", dir, err)
		}
	}()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	top, err := root.Stat(".")
	if err != nil {
		return err
	}
	owner, ok := top.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := root.Lstat(name)
		if err != nil {
			return err
		}
		is, ok := info.Sys().(*syscall.Stat_t)
		if !ok || is.Uid != 0 || !d.IsDir() && is.Nlink > 1 {
			return nil
		}
		return root.Lchown(name, int(owner.Uid), int(owner.Gid))
	})
}
