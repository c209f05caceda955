package resolv

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"
)

// The errors of lookups, with package net's texts.
var (
	errNoSuchHost  = &lookupError{text: "no such host", notFound: true}
	errNoServer    = &lookupError{text: noServer, notFound: true}
	errMisbehaving = &lookupError{text: "server misbehaving"}
	errServfail    = &lookupError{text: "server misbehaving", temporary: true}
	errLame        = &lookupError{text: "lame referral"}
	errMalformed   = &lookupError{text: "cannot unmarshal DNS message"}
	errInvalid     = &lookupError{text: "invalid DNS response"}
	errTimeout     = &lookupError{text: "i/o timeout", timeout: true, is: context.DeadlineExceeded}
	errCanceled    = &lookupError{text: "operation was canceled", is: context.Canceled}
)

const noServer = "no such host (the stack has no DNS server: set Config.DNS.Servers or call SetDNS)"

// A lookupError is why a lookup has failed.
type lookupError struct {
	text                         string
	notFound, timeout, temporary bool
	is                           error // what errors.Is finds
}

func (e *lookupError) Error() string        { return e.text }
func (e *lookupError) Timeout() bool        { return e.timeout }
func (e *lookupError) Temporary() bool      { return e.temporary || e.timeout }
func (e *lookupError) Is(target error) bool { return e.is != nil && errors.Is(e.is, target) }

// ctxError returns the error that package net makes of a context's.
func ctxError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return errCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return errTimeout
	}
	return err
}

// ended returns the error of a context that has ended, or whose deadline is now: a try may time out
// at the same instant.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return ctxError(err)
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return errTimeout
	}
	return nil
}

// dnsError makes the error of a lookup of name, as package net does. server may be empty.
func dnsError(err error, name, server string) *net.DNSError {
	if de, ok := err.(*net.DNSError); ok {
		return de
	}
	e := &net.DNSError{Err: err.Error(), Name: name, Server: server}
	if ne, ok := err.(net.Error); ok {
		//lint:ignore SA1019 it is deprecated, but package net still has it
		e.IsTimeout, e.IsTemporary = ne.Timeout(), ne.Temporary()
	}
	switch err := err.(type) {
	case *lookupError:
		e.IsNotFound = err.notFound
		e.UnwrapErr = err.is
	case *net.OpError: // from the socket
		e.IsTemporary = true
		e.UnwrapErr = err
	default:
		e.UnwrapErr = err
	}
	return e
}

// notFound reports whether an error says that there is no such name.
func notFound(err error) bool {
	de, ok := err.(*net.DNSError)
	return ok && de.IsNotFound
}

// equalFold compares names. RFC 4343, 3: "comparisons on name lookup for DNS queries should be
// case insensitive"; only the letters of ASCII have a case there.
func equalFold(a, b string) bool { return len(a) == len(b) && lower(a) == lower(b) }

// lower returns a name with ASCII's capitals made small.
func lower(name string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, name)
}
