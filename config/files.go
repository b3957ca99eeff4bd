package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxFile  = 64 << 20 // of a config file; 100,000 authors are 7 MiB
	maxNamed = 4 << 20  // of a file that it names; Debian's bundle of certificates has 0.2 MiB
)

// readFile reads what is there, up to a limit; a pipe will do.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("more than %s", formatSize(limit))
	}
	return text, nil
}

// cause is what went wrong with a file, without its name.
func cause(err error) string {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such file"
	case errors.As(err, &p):
		return p.Err.Error()
	default:
		return err.Error()
	}
}

// path reads a path; one that is relative starts at the config file's directory, ~ at home.
func (l *loader) path(n *yaml.Node, a at) (string, bool) {
	name, ok := l.scalar(n, a)
	if !ok || name == "" {
		return "", ok
	}
	if strings.ContainsRune(name, 0) {
		l.wrong(a, name, "not a path")
		return "", false
	}
	if rest, found := strings.CutPrefix(name, "~/"); found {
		home, ok := l.in.lookup("HOME")
		if !ok || home == "" {
			l.wrong(a, name, "HOME is not set")
			return "", false
		}
		return filepath.Join(home, rest), true
	}
	if filepath.IsAbs(name) {
		return name, true
	}
	return filepath.Join(filepath.Dir(l.file), name), true
}

// fileName reads the name of a file that the command will use, and looks into it: it must be there and hold no private
// key. check may be nil.
func (l *loader) fileName(n *yaml.Node, a at, check func(text []byte) string) string {
	name, ok := l.path(n, a)
	if !ok || name == "" || !l.rule.files {
		return name
	}
	info, err := os.Stat(name)
	if err != nil {
		l.wrong(a, name, "%s", cause(err))
		return ""
	}
	if !info.Mode().IsRegular() {
		l.wrong(a, name, "not a file") // a device or a pipe might never end
		return ""
	}
	text, err := readFile(name, maxNamed)
	switch {
	case err != nil:
		l.wrong(a, name, "%s", cause(err))
	case HoldsPrivateKey(string(text)):
		l.problem(a, "%s %s", show(name), NoKeyNeeded)
	case check != nil && check(text) != "":
		l.wrong(a, name, "%s", check(text))
	default:
		return name
	}
	return ""
}

func (l *loader) certificates(text []byte) string {
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return "holds no certificate in PEM form"
	}
	return ""
}

// dataDir is where the archive is kept when nobody says where.
func (l *loader) dataDir() (string, bool) {
	if dirs, _ := l.in.lookup("STATE_DIRECTORY"); dirs != "" {
		first, _, _ := strings.Cut(dirs, ":") // systemd lists several this way
		return first, true
	}
	if dir, _ := l.in.lookup("XDG_DATA_HOME"); filepath.IsAbs(dir) { // the XDG specification: ignore a relative one
		return filepath.Join(dir, "rebroadcastr"), true
	}
	if home, _ := l.in.lookup("HOME"); home != "" {
		return filepath.Join(home, ".local", "share", "rebroadcastr"), true
	}
	return "", false
}
