package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"rebroadcastr/archive"
	"rebroadcastr/report"
	"rebroadcastr/web"
)

// errNoDaemon says that nobody writes to the archive now.
var errNoDaemon = errors.New("no daemon runs on this archive")

// daemonClient speaks with the running writer through its control socket.
type daemonClient struct{ http *http.Client }

// findDaemon looks at who holds the archive in dir. The error is errNoDaemon when nobody does: LOCK stays behind, its
// control socket then refuses or is gone.
func findDaemon(dir string) (*daemonClient, error) {
	holder, err := archive.ReadLock(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoDaemon
	case err != nil:
		return nil, fmt.Errorf("look for the daemon of %s: %w%s", dir, err, permissionHint(err))
	}
	i := slices.IndexFunc(holder.Addresses, filepath.IsAbs)
	if i < 0 {
		return nil, errNoDaemon
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", holder.Addresses[i])
	}
	// Asked first: an import must know before it streams.
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	conn, err := dial(ctx, "", "")
	if err != nil {
		return nil, dialError(err)
	}
	return &daemonClient{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}, conn.Close()
}

func dialError(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ask the daemon: its control socket is for its own user: use sudo: %w", err)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return errNoDaemon
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("ask the daemon: it did not answer within %s: %w", statusTimeout, err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return &exitError{exitInUse, fmt.Errorf("ask the daemon: it ended before it answered, ask again: %w", err)}
	}
	return fmt.Errorf("ask the daemon: %w", err)
}

// statusTimeout is generous: status takes a few locks and reads nothing.
const statusTimeout = 10 * time.Second

func (d *daemonClient) status(ctx context.Context) (s report.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	body, err := d.do(ctx, http.MethodGet, "/api/status", nil)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if err := json.NewDecoder(body).Decode(&s); err != nil {
		return s, fmt.Errorf("read the daemon's status: %w", err)
	}
	return s, nil
}

// importLines streams lines to the daemon and its refusals to rejects.
func (d *daemonClient) importLines(ctx context.Context, lines io.Reader, noDeliver bool, rejects io.Writer) (done report.Source, err error) {
	path := "/control/import"
	if noDeliver {
		path += "?no-deliver"
	}
	// The transport closes what it can close; the file is its opener's.
	body, err := d.do(ctx, http.MethodPost, path, io.NopCloser(lines))
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	dec := json.NewDecoder(bufio.NewReader(body))
	for {
		var l web.ImportLine
		if err := dec.Decode(&l); err != nil {
			return done, fmt.Errorf("read the daemon's answer: %w", err)
		}
		switch {
		case l.Error != "":
			return done, errors.New(l.Error)
		case l.Done != nil:
			return *l.Done, nil
		case rejects != nil:
			if _, err := rejects.Write(append(l.Reject, '\n')); err != nil {
				return done, fmt.Errorf("write the rejects: %w", err)
			}
		}
	}
}

func (d *daemonClient) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://rebroadcastr"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := d.http.Do(req)
	switch {
	case err != nil:
		return nil, dialError(err)
	case resp.StatusCode != http.StatusOK:
		return nil, errors.Join(refusal(resp), resp.Body.Close())
	}
	return resp.Body, nil
}

// refusal is the error of an answer that is not 200.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // part of an error already
	var p web.Problem
	if json.Unmarshal(text, &p) != nil || p.Error == "" {
		return fmt.Errorf("ask the daemon: %s: %s", resp.Status, text)
	}
	why := map[int]report.Why{
		http.StatusBadRequest: report.Malformed, http.StatusNotFound: report.Absent, http.StatusConflict: report.Conflict,
		http.StatusServiceUnavailable: report.NotReady,
	}
	if w, ok := why[resp.StatusCode]; ok {
		return report.Refuse(w, "%s", p.Error)
	}
	return errors.New(p.Error)
}

// call asks for one JSON value.
func call[T any](ctx context.Context, d *daemonClient, method, path string, query url.Values) (v T, err error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	body, err := d.do(ctx, method, path, nil)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if err := json.NewDecoder(body).Decode(&v); err != nil {
		return v, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return v, nil
}

// Explain and the methods after it are the daemon's own; they may take as long as it takes.
func (d *daemonClient) Explain(ctx context.Context, id string) (report.Story, error) {
	return call[report.Story](ctx, d, http.MethodGet, "/api/explain", url.Values{"id": {id}})
}

func (d *daemonClient) Relay(name string) (report.Relay, error) {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	return call[report.Relay](ctx, d, http.MethodGet, "/api/relay", url.Values{"url": {name}})
}

func (d *daemonClient) Coverage(name string) (report.Coverage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	return call[report.Coverage](ctx, d, http.MethodGet, "/api/gaps", url.Values{"url": {name}})
}

func (d *daemonClient) Rejected(ctx context.Context, sink string, limit int, fn func(report.Rejected) error) (err error) {
	query := url.Values{"sink": {sink}, "limit": {strconv.Itoa(limit)}}
	body, err := d.do(ctx, http.MethodGet, "/api/rejected?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	dec := json.NewDecoder(bufio.NewReader(body))
	for {
		var line struct {
			report.Rejected
			web.Problem
		}
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the daemon's answer: %w", err)
		case line.Error != "":
			return errors.New(line.Error)
		}
		if err := fn(line.Rejected); err != nil {
			return err
		}
	}
}

func (d *daemonClient) Retry(ctx context.Context, sink, reason, id string) (report.Retried, error) {
	return call[report.Retried](ctx, d, http.MethodPost, "/control/retry", url.Values{"sink": {sink}, "reason": {reason}, "id": {id}})
}

func (d *daemonClient) Pause(relay string) (report.Held, error) {
	return call[report.Held](context.Background(), d, http.MethodPost, "/control/pause", url.Values{"relay": {relay}})
}

func (d *daemonClient) Resume(relay string) (report.Held, error) {
	return call[report.Held](context.Background(), d, http.MethodPost, "/control/resume", url.Values{"relay": {relay}})
}

func (d *daemonClient) Reconcile(relay string) (report.Compared, error) {
	return call[report.Compared](context.Background(), d, http.MethodPost, "/control/reconcile", url.Values{"relay": {relay}})
}

func (d *daemonClient) Forget(sink string) (report.Forgotten, error) {
	return call[report.Forgotten](context.Background(), d, http.MethodPost, "/control/forget", url.Values{"sink": {sink}})
}

func (d *daemonClient) Reload(ctx context.Context, dry bool) (report.Reloaded, error) {
	query := url.Values{}
	if dry {
		query.Set("dry-run", "")
	}
	return call[report.Reloaded](ctx, d, http.MethodPost, "/control/reload", query)
}
