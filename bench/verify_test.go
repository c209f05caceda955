package main

import (
	"net"
	"strings"
	"testing"
)

// A badConn changes one byte of those that pass.
type badConn struct {
	net.Conn
	at int
}

func (c *badConn) Write(p []byte) (int, error) {
	if c.at -= len(p); c.at < 0 && c.at+len(p) >= 0 {
		q := append([]byte(nil), p...)
		q[c.at+len(p)] ^= 1
		return c.Conn.Write(q)
	}
	return c.Conn.Write(p)
}

// connected returns a connection that carries what it is given.
func connected(t *testing.T) (c, s net.Conn) {
	n, err := openBufpipe(congestion{})
	if err != nil {
		t.Fatal(err)
	}
	m := newMeter(n, tiny)
	t.Cleanup(func() { m.finish() })
	cs, ss, err := m.connect(1)
	if err != nil {
		t.Fatal(err)
	}
	return cs[0], ss[0]
}

// verify finds a single flipped bit before anything is timed.
func TestVerifyFindsABit(t *testing.T) {
	c, s := connected(t)
	if err := verifyFlow(c, s, 300000, 1); err != nil {
		t.Errorf("a good connection: %v", err)
	}
	for _, at := range []int{0, 123456, 299999} {
		c, s := connected(t)
		err := verifyFlow(&badConn{c, at}, s, 300000, 1)
		if err == nil || !strings.Contains(err.Error(), "differ from the sent ones") {
			t.Errorf("byte %d was changed: %v", at, err)
		}
	}
}

// A connection that ends too early is an error, and verify does not wait forever.
func TestVerifyEnds(t *testing.T) {
	for _, early := range []func(c, s net.Conn){func(c, s net.Conn) { c.Close() }, func(c, s net.Conn) { s.Close() }} {
		c, s := connected(t)
		early(c, s)
		if err := verifyFlow(c, s, 3000000, 1); err == nil {
			t.Error("no error")
		}
	}
}

// A wrong echo ends a row of latency.
func TestWrongEcho(t *testing.T) {
	n, err := openBufpipe(congestion{})
	if err != nil {
		t.Fatal(err)
	}
	dial := n.dial
	n.dial = func(address string) (net.Conn, error) {
		c, err := dial(address)
		return &badConn{c, 100}, err
	}
	m := newMeter(n, tiny)
	m.time = 1e10
	if err := pingPong(m, 1, 1); err != errEcho {
		t.Errorf("ping-pong: %v", err)
	}
	m.finish()
}
