package simnet

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
)

// A Server is an HTTP server on a host: what httptest.Server is on the system's loopback. Its
// clients are on the hosts: see [Server.Client].
type Server struct {
	// URL is the server's address, with the name of its host and no slash at the end:
	// "http://server", or "http://server:8080" if the port is not 80.
	URL string

	// Config is the server.
	Config *http.Server

	// Listener is what Config serves.
	Listener net.Listener
}

// Serve starts an HTTP server on port 80 of the host, which uses handler, as httptest.NewServer
// does. It is closed when the test ends. If the host crashes, the server ends; call Serve again
// after [Host.Restart]. If it cannot listen, Serve fails the test.
//
// Do not use httptest.NewServer in a simulated network: it listens on the system's loopback, and
// its client dials there.
func (h *Host) Serve(t testing.TB, handler http.Handler) *Server {
	t.Helper()
	return h.ServeAt(t, ":80", handler)
}

// ServeAt is Serve at an address, such as ":8080", or ":0" for any port.
func (h *Host) ServeAt(t testing.TB, address string, handler http.Handler) *Server {
	t.Helper()
	ln, err := h.Listen("tcp", address)
	if err != nil {
		t.Fatalf("simnet: serve on %s: %v", h.name, err)
	}
	s := &Server{URL: "http://" + h.name, Config: &http.Server{Handler: handler}, Listener: ln}
	at, err := netip.ParseAddrPort(ln.Addr().String())
	if err == nil && at.Port() != 80 {
		s.URL += ":" + strconv.Itoa(int(at.Port()))
	}
	go s.Config.Serve(ln)
	if t != h.n.t {
		t.Cleanup(s.Close)
	} // otherwise the end of the network, which the report comes before, ends the server
	return s
}

// Client returns the client of a host, from which it dials the server over the network: the same as
// [Host.Client]. Its Get(s.URL) asks the server.
func (s *Server) Client(from *Host) *http.Client { return from.Client() }

// Close closes the listener and all connections.
func (s *Server) Close() { s.Config.Close() }
