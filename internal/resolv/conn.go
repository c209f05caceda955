package resolv

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// A conn is what a net.Resolver takes for a connection to a server over TCP. Behind it are the
// configuration of this resolver, and its servers: the address that the net.Resolver dials comes
// from the system's configuration, and is ignored.
type conn struct {
	r      *Resolver
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	deadline time.Time
	in, out  []byte // what has been written, and not yet read, with the lengths of RFC 7766, 8
}

// Dial is the Dial of a net.Resolver.
func (r *Resolver) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c := &conn{r: r}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c, nil
}

// Write takes a part of a query.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return 0, net.ErrClosed
	}
	c.in = append(c.in, b...)
	return len(b), nil
}

// Read looks the oldest query up, and returns a part of its answer.
func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	var query []byte
	if len(c.out) == 0 {
		if n := len(c.in); n < 2 || n < 2+int(binary.BigEndian.Uint16(c.in)) {
			c.mu.Unlock()
			return 0, errors.New("bsdnet: no query has been written")
		}
		n := 2 + int(binary.BigEndian.Uint16(c.in))
		query, c.in = c.in[2:n], c.in[n:]
	}
	deadline := c.deadline
	c.mu.Unlock()
	if query != nil {
		ctx, cancel := c.ctx, func() {}
		if !deadline.IsZero() {
			ctx, cancel = context.WithDeadline(c.ctx, deadline)
		}
		answer, err := c.r.answer(ctx, query)
		cancel()
		if err != nil {
			return 0, err
		}
		c.mu.Lock()
		c.out = append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(b, c.out)
	c.out = c.out[n:]
	return n, nil
}

// Close ends the lookup that is under way.
func (c *conn) Close() error { c.cancel(); return nil }

func (c *conn) LocalAddr() net.Addr                { return addr{} }
func (c *conn) RemoteAddr() net.Addr               { return addr{} }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return nil } // Write never waits

func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// An addr is the address of a resolver.
type addr struct{}

func (addr) Network() string { return "tcp" }
func (addr) String() string  { return "bsdnet.Resolver" }

// answer returns the answer to a query: from what is known without servers, or else from them.
func (r *Resolver) answer(ctx context.Context, query []byte) ([]byte, error) {
	_, q, end, ok := parseQuestion(query)
	if !ok {
		return nil, errMalformed
	}
	c := r.conf.Load()
	if q.class == classIN {
		if msg, err := r.answerKnown(ctx, c, query[:end], q); msg != nil || err != nil {
			return msg, err
		}
	}
	if len(c.Servers) == 0 {
		return nil, errNoServer
	}
	x, ok := r.newExchange(c.Servers, query)
	if !ok {
		return nil, errMalformed
	}
	msg, _, err := x.run(ctx)
	if msg == nil {
		return nil, err
	}
	copy(msg, query[:2]) // its ID
	return msg, nil
}

// answerKnown returns the answer to a question if no server needs to be asked, or if the name has
// to be searched for. Otherwise it returns nil.
func (r *Resolver) answerKnown(ctx context.Context, c *Config, query []byte, q question) ([]byte, error) {
	name := hostKey(q.name)
	switch {
	case q.typ == typePTR:
		a, ok := unreverse(name)
		if !ok {
			return nil, nil
		}
		names := c.namesOf(a)
		if len(names) == 0 {
			return nil, nil
		}
		msg := mkanswer(query, rcodeSuccess)
		for _, name := range names {
			if data, ok := appendName(nil, name); ok {
				msg = appendAnswer(msg, "", typePTR, data)
			}
		}
		return msg, nil
	case avoidDNS(name):
		return mkanswer(query, rcodeName), nil
	case isLocalhost(name) && q.typ != typeA && q.typ != typeAAAA:
		return mkanswer(query, rcodeSuccess), nil
	case q.typ != typeA && q.typ != typeAAAA:
		return nil, nil
	}
	addrs, ok, err := r.known(ctx, c, name)
	if err != nil {
		return nil, reason(r.hostsError(ctx, err, name))
	}
	canonical := ""
	if !ok {
		if len(c.Search) == 0 || strings.Count(name, ".") >= ndots {
			return nil, nil
		}
		network := "ip4"
		if q.typ == typeAAAA {
			network = "ip6"
		}
		if addrs, canonical, err = r.search(ctx, c, network, name); notFound(err) && len(c.Servers) > 0 {
			return mkanswer(query, rcodeName), nil
		} else if err != nil {
			return nil, reason(err)
		}
	}
	msg := mkanswer(query, rcodeSuccess)
	if canonical != "" {
		data, _ := appendName(nil, canonical)
		msg = appendAnswer(msg, "", typeCNAME, data)
	}
	for _, a := range addrs {
		if a.Is4() == (q.typ == typeA) {
			msg = appendAddr(msg, canonical, a)
		}
	}
	return msg, nil
}

// reason returns an error without the name, of which package net makes a DNSError again.
func reason(err error) error {
	de, ok := err.(*net.DNSError)
	if !ok {
		return err
	}
	return &lookupError{text: de.Err, timeout: de.IsTimeout, temporary: de.IsTemporary, is: de.UnwrapErr}
}
