package simnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// Client returns the host's http.Client, which dials from the host and resolves the names of hosts.
// Its settings are those of http.DefaultClient, without a proxy. It is always the same, and keeps
// connections for reuse; after Crash it begins with new ones. To change a setting, copy the client,
// or make one with an http.Transport whose DialContext is the host's.
//
// The body of each response should be closed, as with any client. If it is not, the client closes
// it when the network ends.
func (h *Host) Client() *http.Client { return h.client }

// clientDialTimeout is that of http.DefaultTransport.
const clientDialTimeout = 30 * time.Second

func (h *Host) initClient() {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, clientDialTimeout)
		defer cancel()
		return h.DialContext(ctx, network, address)
	}
	h.client = &http.Client{Transport: &transport{t, h.n.ended}}
}

// A transport is an http.Transport whose requests end with the network. Otherwise a goroutine would
// wait forever for the test to read a body, and no bubble may end with such a goroutine.
type transport struct {
	t     *http.Transport
	ended context.Context
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(t.ended, cancel)
	done := func() {
		stop()
		cancel()
	}
	resp, err := t.t.RoundTrip(req.WithContext(ctx))
	if err != nil {
		done()
		return nil, err
	}
	resp.Request = req
	b := &body{resp.Body, done}
	resp.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok { // of a response with status 101
		resp.Body = struct {
			*body
			io.Writer
		}{b, w}
	}
	return resp, nil
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (t *transport) CloseIdleConnections() { t.t.CloseIdleConnections() }

// A body is a response's body. When it has been read or closed, it calls done.
type body struct {
	io.ReadCloser
	done func()
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.done()
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.done()
	return err
}
