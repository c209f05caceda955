package contract

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUDPErrorsAfterClose tests that every method fails with net.ErrClosed after Close, with the Op
// and the addresses of package net.
func TestUDPErrorsAfterClose(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		to := udpAddr(s)
		l := n.clientEnd().open(t)
		b := make([]byte, 1)
		const closed = ": use of closed network connection [net.ErrClosed]"
		for _, u := range []struct {
			name string
			c    udpConn
		}{{"with a peer", c}, {"without", l}} {
			local, remote := u.c.LocalAddr(), u.c.RemoteAddr()
			if err := u.c.Close(); err != nil {
				t.Fatal(err)
			}
			both := " udp C->S"
			if remote == nil {
				both = " udp C"
			}
			for _, a := range []struct {
				name, want string
				do         func() error
			}{
				{"Read", "read" + both + closed, func() error { _, err := u.c.Read(b); return err }},
				{"Read of nothing", "read" + both + closed, func() error { _, err := u.c.Read(nil); return err }},
				{"ReadFrom", "read" + both + closed, func() error { _, _, err := u.c.ReadFrom(b); return err }},
				{"ReadFromUDP", "read" + both + closed, func() error { _, _, err := u.c.ReadFromUDP(b); return err }},
				{"ReadFromUDPAddrPort", "read" + both + closed, func() error {
					_, _, err := u.c.ReadFromUDPAddrPort(b)
					return err
				}},
				{"ReadMsgUDP", "read" + both + closed, func() error {
					_, _, _, _, err := u.c.ReadMsgUDP(b, nil)
					return err
				}},
				{"ReadMsgUDPAddrPort", "read" + both + closed, func() error {
					_, _, _, _, err := u.c.ReadMsgUDPAddrPort(b, nil)
					return err
				}},
				{"Write", "write" + both + closed, func() error { _, err := u.c.Write(b); return err }},
				{"SetDeadline", "set udp C" + closed, func() error { return u.c.SetDeadline(past) }},
				{"SetReadDeadline", "set udp C" + closed, func() error { return u.c.SetReadDeadline(time.Time{}) }},
				{"SetWriteDeadline", "set udp C" + closed, func() error { return u.c.SetWriteDeadline(past) }},
				{"SetReadBuffer", "set udp C" + closed, func() error { return u.c.SetReadBuffer(1 << 16) }},
				{"SetWriteBuffer", "set udp C" + closed, func() error { return u.c.SetWriteBuffer(1 << 16) }},
				{"Close", "close" + both + closed, u.c.Close},
				{"File", "file" + both + closed, func() error { _, err := u.c.File(); return err }},
			} {
				if a.name == "File" && n.kernel {
					continue // package net's error has no fixed text
				}
				wantError(t, a.name+" "+u.name, a.do(), a.want, local, "C", to, "S")
			}
			if u.c.LocalAddr() != local || u.c.RemoteAddr() != remote {
				t.Errorf("%s: the addresses have changed", u.name)
			}
			if remote != nil {
				_, _, err := u.c.WriteMsgUDP(b, nil, nil)
				wantError(t, "WriteMsgUDP", err, "write udp C"+closed, local, "C")
				_, _, err = u.c.WriteMsgUDPAddrPort(b, nil, netip.AddrPort{})
				wantError(t, "WriteMsgUDPAddrPort", err, "write udp C->invalid AddrPort"+closed, local, "C")
				continue
			}
			for name, do := range destinations(u.c, b, to) {
				wantError(t, name, do(), "write udp C->S"+closed, local, "C", to, "S")
			}
		}
	})
}

// destinations are the methods that name a destination, with the destination a.
func destinations(c udpConn, b []byte, a *net.UDPAddr) map[string]func() error {
	return map[string]func() error{
		"WriteTo":            func() error { _, err := c.WriteTo(b, a); return err },
		"WriteToUDP":         func() error { _, err := c.WriteToUDP(b, a); return err },
		"WriteToUDPAddrPort": func() error { _, err := c.WriteToUDPAddrPort(b, a.AddrPort()); return err },
		"WriteMsgUDP":        func() error { _, _, err := c.WriteMsgUDP(b, nil, a); return err },
		"WriteMsgUDPAddrPort": func() error {
			_, _, err := c.WriteMsgUDPAddrPort(b, nil, a.AddrPort())
			return err
		},
	}
}

// TestUDPErrorsWithPeer tests that a socket with a peer takes no destination, not even its peer.
func TestUDPErrorsWithPeer(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		for name, do := range destinations(c, []byte("x"), udpAddr(s)) {
			err := do()
			wantError(t, name, err, "write udp C->S: use of WriteTo with pre-connected connection []",
				c.LocalAddr(), "C", s.LocalAddr(), "S")
			if op, ok := err.(*net.OpError); !ok || op.Err != net.ErrWriteToConnected {
				t.Errorf("%s: %#v", name, err)
			}
		}
		_, err := c.WriteTo(nil, nil)
		wantError(t, "WriteTo(nil)", err, "write udp C: invalid argument [EINVAL]", c.LocalAddr(), "C")
	})
}

// TestUDPErrorsOfDestinations tests the destinations to which nothing can be sent.
func TestUDPErrorsOfDestinations(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		c := n.clientEnd().open(t)
		b := []byte("x")
		l := c.LocalAddr()
		none := (*net.UDPAddr)(nil)
		for _, a := range []struct {
			name, want string
			do         func() error
		}{
			{"Write", "write udp C: write: destination address required [EDESTADDRREQ SyscallError]", func() error {
				_, err := c.Write(b)
				return err
			}},
			{"WriteTo(nil)", "write udp C: invalid argument [EINVAL]", func() error {
				_, err := c.WriteTo(b, nil)
				return err
			}},
			{"WriteTo(nil *UDPAddr)", "write udp C: missing address []", func() error {
				_, err := c.WriteTo(b, none)
				return err
			}},
			{"WriteTo a TCPAddr", "write udp C->1.2.3.4:5: invalid argument [EINVAL]", func() error {
				_, err := c.WriteTo(b, &net.TCPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5})
				return err
			}},
			{"WriteToUDP(nil)", "write udp C: missing address []", func() error {
				_, err := c.WriteToUDP(b, nil)
				return err
			}},
			{"WriteMsgUDP(nil)", "write udp C: missing address []", func() error {
				_, _, err := c.WriteMsgUDP(b, nil, nil)
				return err
			}},
			{"WriteToUDPAddrPort(zero)", "write udp C->invalid AddrPort: missing address []", func() error {
				_, err := c.WriteToUDPAddrPort(b, netip.AddrPort{})
				return err
			}},
			{"WriteMsgUDPAddrPort(zero)", "write udp C->invalid AddrPort: missing address []", func() error {
				_, _, err := c.WriteMsgUDPAddrPort(b, nil, netip.AddrPort{})
				return err
			}},
		} {
			wantError(t, a.name, a.do(), a.want, l, "C")
		}
		v6 := &net.UDPAddr{IP: net.IPv6loopback, Port: 5}
		for name, do := range destinations(c, b, v6) {
			wantError(t, name+" to ::1", do(), "write udp C->[::1]:5: address ::1: non-IPv4 address []", l, "C")
		}
		for _, port := range []int{-1, 65536, 0} {
			bad := &net.UDPAddr{IP: net.ParseIP(n.shost), Port: port}
			const invalid = ": invalid argument [EINVAL SyscallError]"
			_, err := c.WriteToUDP(b, bad)
			wantError(t, "WriteToUDP, bad port", err, "write udp C->B: sendto"+invalid, l, "C", bad, "B")
			_, _, err = c.WriteMsgUDP(b, nil, bad)
			wantError(t, "WriteMsgUDP, bad port", err, "write udp C->B: sendmsg"+invalid, l, "C", bad, "B")
		}
	})
}

// TestUDPTooLong tests the longest datagram, and one that is too long.
func TestUDPTooLong(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s, c := n.serverEnd().open(t), n.clientEnd().open(t)
		const most = 65535 - 20 - 8
		b := []byte(strings.Repeat("0123456789", most/10+1))
		if k, err := c.WriteTo(b[:most], s.LocalAddr()); k != most || err != nil {
			t.Errorf("%d, %v", k, err)
		}
		if got := readSoon(t, s); got != string(b[:most]) {
			t.Errorf("read %d bytes, want %d", len(got), most)
		}
		d := n.clientEnd().connect(t, s.LocalAddr().String())
		for _, long := range [][]byte{b[:most+1], make([]byte, 1<<16), make([]byte, 1<<20)} {
			k, err := c.WriteTo(long, s.LocalAddr())
			wantError(t, "WriteTo", err, "write udp C->S: sendto: message too long [EMSGSIZE SyscallError]",
				c.LocalAddr(), "C", s.LocalAddr(), "S")
			j, err := d.Write(long)
			wantError(t, "Write", err, "write udp C->S: write: message too long [EMSGSIZE SyscallError]",
				d.LocalAddr(), "C", s.LocalAddr(), "S")
			if k != 0 || j != 0 {
				t.Errorf("wrote %d and %d bytes of datagrams of %d bytes", k, j, len(long))
			}
		}
	})
}

// TestUDPRefused tests that the answer of a port that nobody has reaches a socket with a peer,
// once, in the next call, and no other socket.
func TestUDPRefused(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		to := udpAddr(s)
		s.Close()
		c := n.clientEnd().connect(t, to.String())
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		const refused = ": connection refused [ECONNREFUSED SyscallError]"
		_, err := c.Read(make([]byte, 1))
		wantError(t, "Read", err, "read udp C->S: read"+refused, c.LocalAddr(), "C", to, "S")
		c.SetReadDeadline(past)
		_, err = c.Read(make([]byte, 1))
		wantError(t, "Read again", err, "read udp C->S: i/o timeout [os.ErrDeadlineExceeded Timeout Temporary]",
			c.LocalAddr(), "C", to, "S")
		c.SetReadDeadline(time.Time{})

		read := asyncRead(c, 1)
		n.settle()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		wantError(t, "blocked Read", within(t, "Read", read).err, "read udp C->S: read"+refused,
			c.LocalAddr(), "C", to, "S")

		l := n.clientEnd().open(t)
		if _, err := l.WriteTo([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
		n.settle()
		l.WriteTo([]byte("still well"), l.LocalAddr())
		if got := readSoon(t, l); got != "still well" {
			t.Errorf("read %q", got)
		}
	})
}

// TestUDPListenErrors tests the errors of calls that make a socket.
func TestUDPListenErrors(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		e := n.serverEnd()
		s := e.open(t)
		in := s.LocalAddr()
		foreign := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5}
		listen := func(network, address string) func() error {
			return func() error {
				c, err := e.listenPacket(network, address)
				if err != nil && c != nil {
					t.Errorf("a %T and an error", c)
				}
				return err
			}
		}
		listenUDP := func(network string, a *net.UDPAddr) func() error {
			return func() error { _, err := e.listenUDP(network, a); return err }
		}
		dialUDP := func(network string, l, r *net.UDPAddr) func() error {
			return func() error { _, err := e.dialUDP(network, l, r); return err }
		}
		dial := func(network, address string) func() error {
			return func() error { _, err := e.dial(context.Background(), network, address); return err }
		}
		const notAvail = " [EADDRNOTAVAIL SyscallError]"
		for _, a := range []struct {
			name, want string
			do         func() error
		}{
			{"ListenPacket, in use", "listen udp S: bind: address already in use [EADDRINUSE SyscallError]",
				listen("udp", in.String())},
			{"ListenUDP, in use", "listen udp4 S: bind: address already in use [EADDRINUSE SyscallError]",
				listenUDP("udp4", in.(*net.UDPAddr))},
			{"ListenPacket, foreign", "listen udp F: bind: cannot assign requested address" + notAvail,
				listen("udp", foreign.String())},
			{"ListenUDP, foreign", "listen udp F: bind: cannot assign requested address" + notAvail,
				listenUDP("udp", foreign)},
			{"DialUDP, foreign", "dial udp F->S: bind: cannot assign requested address" + notAvail,
				dialUDP("udp", foreign, in.(*net.UDPAddr))},
			{"DialUDP, nil", "dial udp: missing address []", dialUDP("udp", nil, nil)},
			{"DialUDP, from, nil", "dial udp S: missing address []", dialUDP("udp", in.(*net.UDPAddr), nil)},
			{"DialUDP, tcp", "dial tcp S: unknown network tcp []", dialUDP("tcp", nil, in.(*net.UDPAddr))},
			{"ListenUDP, tcp", "listen tcp S: unknown network tcp []", listenUDP("tcp", in.(*net.UDPAddr))},
			{"ListenUDP, tcp, nil", "listen tcp: unknown network tcp []", listenUDP("tcp", nil)},
			{"ListenUDP, bad port", "listen udp :65536: bind: invalid argument [EINVAL SyscallError]",
				listenUDP("udp", &net.UDPAddr{Port: 65536})},
			{"DialUDP, bad port", "dial udp4 :65536: connect: invalid argument [EINVAL SyscallError]",
				dialUDP("udp4", nil, &net.UDPAddr{Port: 65536})},
			{"ListenUDP, IPv6", "listen udp4 [::1]:0: address ::1: non-IPv4 address []",
				listenUDP("udp4", &net.UDPAddr{IP: net.IPv6loopback})},
			{"DialUDP, IPv6", "dial udp4 [::1]:5: address ::1: non-IPv4 address []",
				dialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv6loopback, Port: 5})},
			{"ListenPacket, tcp", "listen tcp S: address S: unexpected address type []", listen("tcp", in.String())},
			{"ListenPacket, unknown", "listen sctp: unknown network sctp []", listen("sctp", in.String())},
			{"Dial, no port", "dial udp: address 127.0.0.1: missing port in address []", dial("udp", "127.0.0.1")},
			{"Dial, nothing", "dial udp: missing address []", dial("udp", "")},
			{"Dial, bad port", "dial udp: address 65536: invalid port []", dial("udp", "127.0.0.1:65536")},
			{"Dial, unknown", "dial udp5: unknown network udp5 []", dial("udp5", "127.0.0.1:5")},
		} {
			wantError(t, a.name, a.do(), a.want, in, "S", foreign, "F")
		}
		ln, err := n.listenOn("127.0.0.1:0")
		if n.kernel || n.shost == "127.0.0.1" {
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			udp, err := e.listenPacket("udp", ln.Addr().String())
			if err != nil {
				t.Fatalf("TCP and UDP cannot have the same port: %v", err)
			}
			udp.Close()
		}
	})
}

// TestUDPDialCanceled tests that a dial fails if its context has ended, though it need not wait.
func TestUDPDialCanceled(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c, err := n.clientEnd().dial(ctx, "udp", s.LocalAddr().String())
		wantError(t, "Dial", err, "dial udp S: operation was canceled [context.Canceled]", s.LocalAddr(), "S")
		if c != nil {
			t.Errorf("a %T and an error", c)
		}
		ctx, cancel = context.WithDeadline(context.Background(), past)
		defer cancel()
		_, err = n.clientEnd().dial(ctx, "udp", s.LocalAddr().String())
		wantError(t, "Dial, late", err, "dial udp S: i/o timeout [context.DeadlineExceeded Timeout Temporary]",
			s.LocalAddr(), "S")
	})
}

// TestUDPErrorsOfDeadlines tests that reads and writes return os.ErrDeadlineExceeded, even if a
// datagram is there, and that nothing is lost thereby.
func TestUDPErrorsOfDeadlines(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		l, r := c.LocalAddr(), s.LocalAddr()
		c.Write([]byte("there"))
		n.settle()
		const late = ": i/o timeout [os.ErrDeadlineExceeded Timeout Temporary]"
		s.SetDeadline(past)
		c.SetDeadline(past)
		b := make([]byte, 10)
		k, err := s.Read(b)
		wantError(t, "Read", err, "read udp S"+late, r, "S")
		_, a, err := s.ReadFrom(b)
		wantError(t, "ReadFrom", err, "read udp S"+late, r, "S")
		_, ua, err := s.ReadFromUDP(b)
		wantError(t, "ReadFromUDP", err, "read udp S"+late, r, "S")
		_, ap, err := s.ReadFromUDPAddrPort(b)
		wantError(t, "ReadFromUDPAddrPort", err, "read udp S"+late, r, "S")
		_, _, _, ma, err := s.ReadMsgUDP(b, nil)
		wantError(t, "ReadMsgUDP", err, "read udp S"+late, r, "S")
		_, _, _, mp, err := s.ReadMsgUDPAddrPort(b, nil)
		wantError(t, "ReadMsgUDPAddrPort", err, "read udp S"+late, r, "S")
		if k != 0 || a != nil || ua != nil || ap.IsValid() {
			t.Errorf("results with an error: %d, %v, %v, %v", k, a, ua, ap)
		}
		if ma.String() != "0.0.0.0:0" || mp.String() != "0.0.0.0:0" { // as package net has it
			t.Errorf("addresses of ReadMsgUDP with an error: %v, %v", ma, mp)
		}
		if _, err := s.Read(nil); err != nil {
			t.Errorf("Read of nothing after the deadline: %v", err)
		}
		k, err = c.Write([]byte("x"))
		wantError(t, "Write", err, "write udp C->S"+late, l, "C", r, "S")
		_, err = s.WriteTo([]byte("x"), l)
		wantError(t, "WriteTo", err, "write udp S->C"+late, l, "C", r, "S")
		if k != 0 {
			t.Errorf("wrote %d bytes after the deadline", k)
		}
		s.SetDeadline(time.Time{})
		if got := readSoon(t, s); got != "there" {
			t.Errorf("read %q", got)
		}
	})
}

// TestUDPBlockedRead tests that deadlines and Close reach calls that wait.
func TestUDPBlockedRead(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		for _, a := range []struct {
			name string
			do   func(c udpConn)
			want error
		}{
			{"Close", func(c udpConn) { c.Close() }, net.ErrClosed},
			{"deadline", func(c udpConn) { c.SetReadDeadline(past) }, context.DeadlineExceeded},
			{"later deadline", func(c udpConn) {
				c.SetDeadline(time.Now().Add(10 * time.Millisecond))
			}, context.DeadlineExceeded},
		} {
			c := n.serverEnd().open(t)
			var reads []<-chan error
			for range 3 {
				reads = append(reads, async(func() error { _, _, err := c.ReadFrom(make([]byte, 1)); return err }))
			}
			reads = append(reads, async(func() error { _, err := c.Read(make([]byte, 1)); return err }))
			n.settle()
			a.do(c)
			for _, r := range reads {
				err := within(t, a.name, r)
				if timeout := new(net.OpError); a.want == net.ErrClosed && !errors.Is(err, net.ErrClosed) ||
					a.want != net.ErrClosed && (!errors.As(err, &timeout) || !timeout.Timeout()) {
					t.Errorf("%s: %v", a.name, err)
				}
			}
		}
	})
}

// TestUDPFile tests that File fails with an errno, and that there is no SyscallConn.
func TestUDPFile(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		c := n.serverEnd().open(t)
		f, err := c.File()
		wantError(t, "File", err, "file udp C: dup: operation not supported [errors.ErrUnsupported SyscallError]",
			c.LocalAddr(), "C")
		if f != nil || !errors.As(err, new(syscall.Errno)) {
			t.Errorf("%v, %v", f, err)
		}
		if _, ok := c.(syscall.Conn); ok {
			t.Error("SyscallConn would be taken for that of an owner of a descriptor")
		}
	})
}
