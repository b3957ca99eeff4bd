package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/proxy"

	relayurl "rebroadcastr/relay/url"
)

// DialFunc opens a connection; net.Dialer.DialContext is one.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer makes connections with one relay.
type dialer struct {
	url       string
	settings  Settings
	userAgent string
	direct    DialFunc
}

// websocket dials and upgrades, within Settings.Connect for all of it. The error is an *End.
func (d *dialer) websocket(ctx context.Context) (*websocket.Conn, *frames, error) {
	tlsConfig, err := d.tlsConfig()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.settings.Connect)
	defer cancel()
	var f *frames
	stop := func() bool { return true }
	dial := func(ctx context.Context, network, addr string) (*wire, error) {
		conn, err := d.dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		// gorilla heeds a deadline while it waits for the upgrade's answer, but no cancellation.
		stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		return &wire{Conn: conn, clock: &clock{start: time.Now()}}, nil
	}
	up := websocket.Dialer{
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			w, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			f = newFrames(w, w)
			return f, nil
		},
		NetDialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			w, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			conn, err := overTLS(ctx, w, addr, tlsConfig)
			if err != nil {
				return nil, err
			}
			f = newFrames(conn, w)
			return f, nil
		},
		ReadBufferSize:    gorillaBuffer,
		WriteBufferSize:   writeBuffer,
		EnableCompression: d.settings.Compression,
	}
	ws, resp, err := up.DialContext(ctx, d.url, map[string][]string{"User-Agent": {d.userAgent}})
	if !stop() && err == nil {
		_ = ws.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		late := ctx.Err() == context.DeadlineExceeded || errors.Is(err, os.ErrDeadlineExceeded)
		if late && !errors.Is(err, websocket.ErrBadHandshake) {
			err = fmt.Errorf("no answer within %s", d.settings.Connect)
		}
		return nil, nil, endOfDial(err, resp)
	}
	ws.EnableWriteCompression(false) // small messages: CPU for nothing
	f.open = true
	return ws, f, nil
}

// overTLS makes the handshake, so that frames stand above it. gorilla's own is the same, but leaves no room for them.
func overTLS(ctx context.Context, w *wire, addr string, config *tls.Config) (net.Conn, error) {
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		config.ServerName = host
	}
	conn := tls.Client(w, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = w.Close()
		return nil, err
	}
	return conn, nil
}

// dial opens a connection, through the proxy that is meant for the address.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	through := d.settings.Proxy
	if relayurl.Onion(host) && d.settings.OnionProxy != "" {
		through = d.settings.OnionProxy
	}
	if through == "" {
		return d.direct(ctx, network, addr)
	}
	u, err := url.Parse(through)
	if err != nil || u.Scheme != "socks5h" && u.Scheme != "socks5" || u.Host == "" {
		return nil, &End{Reason: Misconfigured, Err: errors.New("proxy must be socks5h://host:port")}
	}
	// Names are resolved by the proxy, with either scheme.
	p, err := proxy.FromURL(u, forward{d.direct})
	if err != nil {
		return nil, &End{Reason: Misconfigured, Err: fmt.Errorf("use proxy %s: %w", u.Host, err)}
	}
	conn, err := p.(proxy.ContextDialer).DialContext(ctx, network, addr)
	if err != nil {
		// What the proxy's own name or refusal is about must not look like the relay's.
		return nil, &End{Reason: Unreachable, Err: fmt.Errorf("through proxy %s: %w", u.Host, err)}
	}
	return conn, nil
}

// forward is how the proxy itself is reached.
type forward struct{ dial DialFunc }

func (f forward) Dial(network, addr string) (net.Conn, error) {
	return f.dial(context.Background(), network, addr)
}

func (f forward) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f.dial(ctx, network, addr)
}

// tlsConfig makes a new one each time: gorilla and net/http each change theirs. The file is read again, so that a
// renewed certificate needs no restart.
func (d *dialer) tlsConfig() (*tls.Config, error) {
	t := d.settings.TLS
	c := &tls.Config{ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, &End{Reason: Misconfigured, Err: fmt.Errorf("read CA file: %w", err)}
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &End{Reason: Misconfigured, Err: fmt.Errorf("CA file %s holds no certificate in PEM form", t.CAFile)}
		}
	}
	return c, nil
}
