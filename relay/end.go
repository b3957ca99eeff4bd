package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// Reason is why a session ended or did not come about.
type Reason string

// The reasons. Each end has exactly one.
const (
	Dropped        Reason = "dropped"         // the connection broke without a close frame
	ClosedByRelay  Reason = "closed by relay" // a close frame; Code and Text are the relay's
	ClosedByUs     Reason = "closed by us"    // no role is left, or the link was stopped
	Idle           Reason = "idle"            // not a byte, not even a pong, within ping every + timeout
	WriteBlocked   Reason = "write blocked"   // the relay stopped reading
	FrameTooBig    Reason = "frame too big"   // a length that no message can have, or 64 times max_frame
	FrameTooSlow   Reason = "frame too slow"  // a message that took longer than Settings.FrameTime
	Protocol       Reason = "protocol error"  // not a websocket's bytes
	ArchiveStalled Reason = "archive stalled" // a handler waited longer than Settings.Stall; closed on purpose
	RoleFailed     Reason = "role failed"     // a role's Serve returned an error
	Refused        Reason = "refused"         // the upgrade was answered with an HTTP status; Code is it
	Unreachable    Reason = "unreachable"     // no connection: refused, timeout, proxy
	NoSuchHost     Reason = "no such host"    // the name does not exist
	BadCertificate Reason = "bad certificate" // TLS: unknown authority, wrong name, expired
	Misconfigured  Reason = "misconfigured"   // our own settings: a CA file or proxy that cannot be used
)

// End is how a session ended, or why it did not begin.
type End struct {
	Reason     Reason
	Code       int           // close code, or HTTP status where Refused
	Text       string        // the relay's words
	RetryAfter time.Duration // the relay's wish, 0 for none
	Err        error         // the cause, if any
}

func (e *End) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Reason))
	if e.Code != 0 {
		fmt.Fprintf(&b, " (%d", e.Code)
		if e.Reason == Refused && http.StatusText(e.Code) != "" {
			b.WriteString(" " + http.StatusText(e.Code))
		}
		b.WriteString(")")
	}
	if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	if e.Err != nil {
		if e.Reason == NoSuchHost || e.Reason == Unreachable || e.Reason == RoleFailed || e.Reason == BadCertificate {
			return e.Err.Error() // it says it all
		}
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Ours says that it was not the relay that ended what was done on a session: the session, whose end is err, still lives (a pause,
// a reload, a trial of the sink on the same link), or we ended it as a whole.
func Ours(err error) bool {
	var end *End
	return err == nil || errors.As(err, &end) && (end.Reason == ClosedByUs || end.Reason == ArchiveStalled)
}

// Theirs says that a session, whose end is err, was ended by the relay or the line, in whatever way.
func Theirs(err error) bool {
	var end *End
	return errors.As(err, &end) && end.Reason != RoleFailed && !Ours(err)
}

// BrokenOff says that a session, whose end is err, was ended by the relay or the line, and not for what the relay sent: what it was
// sent last may be why.
func BrokenOff(err error) bool {
	var end *End
	return errors.As(err, &end) && (end.Reason == Dropped || end.Reason == ClosedByRelay)
}

func (e *End) Unwrap() error { return e.Err }

// Lasting says that trying again soon is of no use: only an operator, ours or the relay's, can help.
func (e *End) Lasting() bool {
	switch e.Reason {
	case NoSuchHost, BadCertificate, Misconfigured:
		return true
	case Refused:
		switch e.Code {
		case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
			return true
		}
	}
	return false
}

// endOf finds the End in an error; an error without one is a role's.
func endOf(err error) *End {
	var e *End
	if errors.As(err, &e) {
		return e
	}
	return &End{Reason: RoleFailed, Err: err}
}

// PanicError is a panic of a role, a handler or the link itself, recovered. It ends the link's Run.
type PanicError struct {
	Where string
	Value any
	Stack []byte
}

// Error has the stack too: it is printed once, where the program ends, and without it nobody finds the cause.
func (e *PanicError) Error() string {
	return fmt.Sprintf("panic in %s: %v\n%s", e.Where, e.Value, e.Stack)
}

// GaveUp is the end of a link that was told not to try for ever.
type GaveUp struct {
	Tries int           // in a row, without progress
	After time.Duration // since the first of them
	Err   error         // the last one
}

func (e *GaveUp) Error() string {
	if e.Tries == 1 {
		return fmt.Sprintf("1 try: %v", e.Err)
	}
	return fmt.Sprintf("%d tries: %v", e.Tries, e.Err)
}

func (e *GaveUp) Unwrap() error { return e.Err }

// endOfDial says why a dial did not come to a websocket. resp is the relay's answer to the upgrade, if there was one.
func endOfDial(err error, resp *http.Response) *End {
	var end *End
	if errors.As(err, &end) {
		return end
	}
	if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return &End{Reason: Protocol, Err: err}
		}
		return &End{Reason: Refused, Code: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if dns.IsNotFound {
			return &End{Reason: NoSuchHost, Err: fmt.Errorf("lookup %s: no such host", dns.Name)}
		}
		return &End{Reason: Unreachable, Err: err}
	}
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &name) || errors.As(err, &invalid) {
		return &End{Reason: BadCertificate, Err: err}
	}
	return &End{Reason: Unreachable, Err: err}
}

// retryAfter reads the header's seconds; its date form is not worth a clock that may be wrong.
func retryAfter(s string) time.Duration {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n <= 0 {
		return 0
	}
	return time.Duration(min(n, 86400)) * time.Second
}

// errDead is what an idle link's status says.
var errDead = errors.New("nothing came, not even an answer to a ping")

// endOfRead says why reading from the websocket ended. slow: a message was begun and its time is over.
func endOfRead(err error, slow bool) *End {
	var end *End
	var closed *websocket.CloseError
	var timeout net.Error
	switch {
	case errors.As(err, &end):
		return end
	case errors.As(err, &closed):
		if closed.Code == websocket.CloseAbnormalClosure { // gorilla's word for an end without a close frame
			return &End{Reason: Dropped, Err: errors.New("connection ended without a close frame")}
		}
		code := closed.Code
		if code == websocket.CloseNoStatusReceived {
			code = 0
		}
		return &End{Reason: ClosedByRelay, Code: code, Text: clean(closed.Text)}
	case errors.Is(err, websocket.ErrReadLimit):
		return &End{Reason: FrameTooBig}
	case errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded):
		if slow {
			return &End{Reason: FrameTooSlow}
		}
		return &End{Reason: Idle, Err: errDead}
	case strings.HasPrefix(err.Error(), "websocket: ") || strings.HasPrefix(err.Error(), "flate: "):
		return &End{Reason: Protocol, Err: err}
	}
	return &End{Reason: Dropped, Err: err}
}
