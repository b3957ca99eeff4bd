package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is never removed: a second process that made it anew would hold another file.
const lockName = "LOCK"

// Holder is who writes to an archive, as LOCK says.
type Holder struct {
	PID       int       `json:"pid"`
	Command   string    `json:"command"`
	Since     time.Time `json:"since"`
	Addresses []string  `json:"addresses,omitempty"` // of its listener, and of its control socket
}

// LockFile is a held lock. The kernel gives it up when the process ends, however it ends.
type LockFile struct {
	f      *os.File
	holder Holder
}

// InUse says that another process writes to the archive.
type InUse struct {
	Dir    string
	Holder Holder // PID 0: it has not said who it is
	Age    time.Duration
}

func (e *InUse) Error() string {
	who := "another process"
	if e.Holder.PID != 0 {
		who = fmt.Sprintf("pid %d (%s, %s)", e.Holder.PID, e.Holder.Command, age(e.Age))
	}
	return fmt.Sprintf("archive %s is in use by %s. export, verify, import, status work beside it; stop it for reindex", e.Dir, who)
}

// age is a duration in its largest unit, as people say it.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d m", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// Unusable says why a directory cannot be an archive, and what to do.
type Unusable struct {
	Dir     string
	Message string
	Err     error
}

func (e *Unusable) Error() string { return e.Message }
func (e *Unusable) Unwrap() error { return e.Err }

// systemd gives a unit with DynamicUser= a uid from this range.
const firstDynamicUID, lastDynamicUID = 61184, 65519

// unusable finds the reason that helps most. uid is ours.
func unusable(dir string, uid int, err error) *Unusable {
	u := &Unusable{Dir: dir, Err: err}
	at := dir // or the nearest directory above that exists
	info, serr := os.Stat(at)
	for errors.Is(serr, fs.ErrNotExist) && filepath.Dir(at) != at {
		at = filepath.Dir(at)
		info, serr = os.Stat(at)
	}
	owner := -1
	if serr == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			owner = int(st.Uid)
		}
	}
	switch {
	case errors.Is(err, unix.ENOTDIR) || serr == nil && !info.IsDir() || errors.Is(serr, unix.ENOTDIR):
		u.Message = fmt.Sprintf("archive %s: not a directory: use another --archive", dir)
	case errors.Is(err, fs.ErrPermission) && owner >= 0 && owner != uid:
		service := ""
		if owner >= firstDynamicUID && owner <= lastDynamicUID {
			service = " (the service)"
		}
		u.Message = fmt.Sprintf("%s belongs to uid %d%s: use sudo, or --archive elsewhere", at, owner, service)
		if at != dir {
			u.Message = fmt.Sprintf("archive %s cannot be made: %s", dir, u.Message)
		}
	case errors.Is(err, fs.ErrPermission):
		u.Message = fmt.Sprintf("%s is not writable: chmod u+rwx it, or --archive elsewhere", at)
	case errors.Is(err, unix.EROFS):
		u.Message = fmt.Sprintf("%s is on a read-only filesystem: use another --archive", at)
	default:
		u.Message = fmt.Sprintf("archive %s cannot be used: %v", dir, err)
	}
	return u
}

// Lock makes dir if it is missing (0750) and takes its lock for a process that runs command. The error is an *InUse
// or an *Unusable.
func Lock(dir, command string) (*LockFile, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, unusable(dir, os.Geteuid(), err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, unusable(dir, os.Geteuid(), err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		inUse := &InUse{Dir: dir}
		if h, err := readHolder(f); err == nil {
			inUse.Holder, inUse.Age = h, time.Since(h.Since)
		}
		_ = f.Close() // nothing was written
		return nil, inUse
	}
	if err != nil {
		_ = f.Close()
		return nil, unusable(dir, os.Geteuid(), &fs.PathError{Op: "flock", Path: f.Name(), Err: err})
	}
	l := &LockFile{f: f, holder: Holder{PID: os.Getpid(), Command: command, Since: time.Now().UTC().Truncate(time.Second)}}
	if err := l.write(); err != nil {
		_ = f.Close()
		return nil, unusable(dir, os.Geteuid(), err)
	}
	return l, nil
}

// SetAddresses says in LOCK where the process can be reached.
func (l *LockFile) SetAddresses(addresses ...string) error {
	l.holder.Addresses = slices.Clone(addresses)
	return l.write()
}

// write replaces the content in one write, padded to what was there: a reader never sees two halves.
func (l *LockFile) write() error {
	b, err := json.Marshal(l.holder)
	if err != nil {
		return err
	}
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	for int64(len(b)+1) < info.Size() {
		b = append(b, ' ')
	}
	if _, err := l.f.WriteAt(append(b, '\n'), 0); err != nil {
		return fmt.Errorf("write %s: %w", l.f.Name(), err)
	}
	return nil
}

// Close gives the lock up. The file stays.
func (l *LockFile) Close() error { return l.f.Close() }

// ReadLock reads who holds, or held last, the archive in dir. Whether it still runs, its control socket tells.
func ReadLock(dir string) (Holder, error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return Holder{}, err
	}
	h, err := readHolder(f)
	return h, errors.Join(err, f.Close())
}

func readHolder(r io.ReaderAt) (h Holder, err error) {
	b := make([]byte, 64<<10)
	n, err := r.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return h, err
	}
	if err := json.Unmarshal(b[:n], &h); err != nil {
		return h, fmt.Errorf("read %s: %w", lockName, err)
	}
	return h, nil
}
