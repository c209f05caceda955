package contract

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/stacktest"
	"bsdnet/netem"
)

// A deafLink takes all packets, and delivers none. It gives the reason, if it knows one.
type deafLink struct {
	done chan struct{}
	why  error
	to   netip.Addr // the address that it was asked about
}

func (l *deafLink) MTU() int                              { return 1500 }
func (l *deafLink) Start(func()) error                    { return nil }
func (l *deafLink) Read([][]byte, []int) (int, error)     { <-l.done; return 0, net.ErrClosed }
func (l *deafLink) Write(pkts []net.Buffers) (int, error) { return len(pkts), nil }
func (l *deafLink) Close() error                          { close(l.done); return nil }
func (l *deafLink) Diagnose(to netip.Addr) error          { l.to = to; return l.why }

// TestDiagnosis tests that the error of a dial that nobody has answered has the reason if the link
// knows one, and is the usual error in all other respects.
func TestDiagnosis(t *testing.T) {
	why := os.NewSyscallError("sendto", syscall.ECONNREFUSED)
	for _, c := range []struct {
		name string
		why  error
		dial func(s *bsdnet.Stack) (net.Conn, error)
		text string // without the reason
		is   []error
	}{
		{"timeout", why, func(s *bsdnet.Stack) (net.Conn, error) {
			return s.DialTimeout("tcp", "10.0.0.2:80", 5*time.Second)
		},
			"dial tcp 10.0.0.2:80: i/o timeout", []error{context.DeadlineExceeded}},
		{"not known", nil, func(s *bsdnet.Stack) (net.Conn, error) {
			return s.DialTimeout("tcp", "10.0.0.2:80", 5*time.Second)
		},
			"dial tcp 10.0.0.2:80: i/o timeout", []error{context.DeadlineExceeded}},
		{"TCP gives up", why, func(s *bsdnet.Stack) (net.Conn, error) { return s.Dial("tcp", "10.0.0.2:80") },
			"dial tcp 10.0.0.2:80: connect: connection timed out", []error{syscall.ETIMEDOUT}},
		{"from an address", why, func(s *bsdnet.Stack) (net.Conn, error) {
			from := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1000}
			d := bsdnet.Dialer{Stack: s, Timeout: time.Second, LocalAddr: from}
			return d.Dial("tcp", "10.0.0.2:80")
		}, "dial tcp 10.0.0.1:1000->10.0.0.2:80: i/o timeout", []error{context.DeadlineExceeded}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &deafLink{done: make(chan struct{}), why: c.why}
				imp, err := netem.Impair(l, netem.Path{})
				if err != nil {
					t.Fatal(err)
				}
				for _, link := range []bsdnet.Link{l, imp} { // plain and wrapped
					l.done, l.to = make(chan struct{}), netip.Addr{}
					s := stacktest.New(t, bsdnet.Config{})
					stacktest.Attach(t, s, link, "10.0.0.1/24")
					_, err := c.dial(s)
					want := c.text
					if c.why != nil {
						want += " (sendto: connection refused)"
					}
					var op *net.OpError
					if !errors.As(err, &op) || err.Error() != want || !op.Timeout() {
						t.Errorf("%v; want a timeout that says %q", err, want)
					}
					for _, is := range c.is {
						if !errors.Is(err, is) {
							t.Errorf("%v is not %v", err, is)
						}
					}
					if errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("%v passes for a refusal of what was dialed", err)
					}
					if l.to != netip.MustParseAddr("10.0.0.2") {
						t.Errorf("the link was asked about %v", l.to)
					}
					s.Close()
				}
			})
		})
	}
}

// TestNoDiagnosis tests that the stack asks the link for a reason only for timeouts.
func TestNoDiagnosis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &deafLink{done: make(chan struct{}), why: errors.New("deaf")}
		s := stacktest.New(t, bsdnet.Config{})
		stacktest.Attach(t, s, l, "10.0.0.1/24")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, canceled := s.DialContext(ctx, "tcp", "10.0.0.2:80")
		_, refused := s.Dial("tcp", "10.0.0.1:81")
		_, nowhere := s.Dial("tcp", "192.0.2.1:80")
		for _, err := range []error{canceled, refused, nowhere} {
			if err == nil || strings.Contains(err.Error(), "deaf") {
				t.Error(err)
			}
		}
		s.Close()
	})
}

// TestDiagnosisOfConnection tests that the error of a connection that times out has the reason as
// well, and that the error of a deadline that the user has set does not.
func TestDiagnosisOfConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, err := netem.Pipe(netem.PipeConfig{})
		if err != nil {
			t.Fatal(err)
		}
		client, server := stacktest.New(t, bsdnet.Config{}), stacktest.New(t, bsdnet.Config{})
		stacktest.Attach(t, client, explained{a}, "10.0.0.1/24")
		stacktest.Attach(t, server, b, "10.0.0.2/24")
		if _, err := server.Listen("tcp", ":80"); err != nil {
			t.Fatal(err)
		}
		c, err := client.Dial("tcp", "10.0.0.2:80")
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		_, err = c.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(err.Error(), "cut") {
			t.Error(err)
		}
		c.SetReadDeadline(time.Time{})
		server.Detach(b)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_, err = c.Read(make([]byte, 1))
		var errno syscall.Errno
		var ne net.Error
		if !errors.As(err, &errno) || errno != syscall.ETIMEDOUT || !errors.As(err, &ne) || !ne.Timeout() ||
			!strings.HasSuffix(err.Error(), ": read: connection timed out (the cable is cut)") {
			t.Error(err)
		}
		client.Close()
		server.Close()
	})
}

// An explained link gives a reason.
type explained struct{ bsdnet.Link }

func (explained) Diagnose(netip.Addr) error { return errors.New("the cable is cut") }
