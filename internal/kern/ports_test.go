package kern

import (
	"math"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/testutil"
)

// take hands out each port once, whatever has been given back in between, and never one that is
// taken.
func TestPortSet(t *testing.T) {
	var s portSet
	s.next = 54321
	taken := map[uint16]bool{}
	r := seededInts(7)
	for range 300_000 {
		if r(3) > 0 || len(taken) == 0 {
			p, ok := s.take()
			if !ok {
				if len(taken) != portRange {
					t.Fatalf("full with %d ports", len(taken))
				}
				continue
			}
			if taken[p] || p < portFirst {
				t.Fatalf("port %d, taken already: %v", p, taken[p])
			}
			taken[p] = true
			continue
		}
		for p := range taken {
			s.giveBack(p)
			delete(taken, p)
			break
		}
	}
	for len(taken) < portRange {
		p, ok := s.take()
		if !ok || taken[p] {
			t.Fatalf("port %d of %d: %v", p, len(taken), ok)
		}
		taken[p] = true
	}
	if p, ok := s.take(); ok {
		t.Errorf("port %d of none", p)
	}
	for p := range taken {
		s.giveBack(p)
	}
	if s.n != 0 || s.many != nil {
		t.Errorf("%d ports at the end", s.n)
	}
}

// seededInts returns a function that draws numbers below n.
func seededInts(seed uint64) func(n int) int {
	x := seed*2 + 1
	return func(n int) int {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		return int(x % uint64(n))
	}
}

// lcg of socket, bind, connect without waiting.
func (v *victim) connectNB(to netip.AddrPort) (*Socket, syscall.Errno) {
	so, errno := v.k.Socreate(v.fam.domain, SOCK_STREAM, 0)
	v.no(errno)
	so.Setnbio(true)
	if errno = so.Soconnect(to); errno != 0 {
		so.Soclose()
		return nil, errno
	}
	return so, 0
}

// RFC 6056: there are 55,536 ports to each destination; then EADDRNOTAVAIL, at once. A port that
// serves one destination is free for others. A port that becomes free is found in a bounded number
// of steps.
func TestEphemeralPortsExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, func(_ *Config, p *tcp.Profile) {
			p.Keepinit = math.MaxInt64 / 4
			p.RTOInit = int64(time.Hour)
		})
		defer v.done()
		v.link.quiet = true
		to := netip.AddrPortFrom(attPeer, 9)
		used := map[uint16]*Socket{}
		for range portRange {
			so, errno := v.connectNB(to)
			if errno != 0 {
				t.Fatalf("dial %d: %v", len(used), errno)
			}
			p := so.inp.lport
			if used[p] != nil || p < portFirst {
				t.Fatalf("port %d twice", p)
			}
			used[p] = so
		}
		before := v.k.Stats.IP.Localout.Load()
		for range 3 {
			if _, errno := v.connectNB(to); errno != syscall.EADDRNOTAVAIL {
				t.Fatalf("dial with no port left: %v", errno)
			}
		}
		if v.k.Stats.IP.Localout.Load() != before {
			t.Errorf("something was sent")
		}
		third := netip.AddrPortFrom(attFrom(10, 0, 0, 3), 9)
		for _, other := range []netip.AddrPort{netip.AddrPortFrom(attPeer, 10), third} {
			if so, errno := v.connectNB(other); errno != 0 {
				t.Errorf("another destination: %v", errno)
			} else {
				so.Soclose()
			}
		}
		// Nearly full: the one that is free is found.
		for _, p := range []uint16{portFirst, 33333, portLast} {
			used[p].Soclose()
			so, errno := v.connectNB(to)
			if errno != 0 || so.inp.lport != p {
				t.Fatalf("the only free port is %d: %v", p, errno)
			}
			used[p] = so
		}
		for _, so := range used {
			so.Soabort()
		}
	})
}

// RFC 6056, 3.1: the sequence of ports to a destination begins at a place that depends on the
// addresses and a secret, so it says nothing about the ports to other destinations, and another
// secret gives another sequence.
func TestEphemeralPortsUnpredictable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := func(seed uint64, to netip.AddrPort) uint16 {
			v := attacked(t, func(c *Config, _ *tcp.Profile) { c.Rand = testutil.SeededRand(seed) })
			defer v.done()
			so, errno := v.connectNB(to)
			v.no(errno)
			defer so.Soabort()
			return so.inp.lport
		}
		seen := map[uint16]int{}
		var sum float64
		const n = 300
		for i := range uint64(n) {
			p := first(i, netip.AddrPortFrom(attPeer, 9))
			seen[p]++
			sum += float64(p)
		}
		if len(seen) < n-5 {
			t.Errorf("%d stacks begin at %d ports", n, len(seen))
		}
		if mean := sum / n; math.Abs(mean-(portFirst+portRange/2)) > 3*portRange/math.Sqrt(12*n) {
			t.Errorf("the mean is %v", mean)
		}
		// To different destinations of one stack.
		v := attacked(t, nil)
		defer v.done()
		clear(seen)
		deltas := map[int]int{}
		last := 0
		for i := range n {
			so, errno := v.connectNB(netip.AddrPortFrom(attPeer, uint16(100+i)))
			v.no(errno)
			seen[so.inp.lport]++
			deltas[int(so.inp.lport)-last]++
			last = int(so.inp.lport)
			so.Soabort()
		}
		if len(seen) < n-5 || len(deltas) < n-5 {
			t.Errorf("%d ports, %d differences to %d destinations", len(seen), len(deltas), n)
		}
		to := netip.AddrPortFrom(attPeer, 9)
		if a, b := first(1, to), first(1, to); a != b {
			t.Errorf("the same secret gives other ports")
		}
	})
}

// Tens of thousands of dials a minute to one port, each closed by the dialer first, never run out
// of ports: the records of its own TIME_WAIT give way once the timestamp clock has moved.
func TestDialsNeverRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := newPair(1500, false, 1)
		ka, kb := twoKernels(t, la, lb, nil)
		ls, _ := ka.Socreate(attFam.domain, SOCK_STREAM, 0)
		ls.Sobind(netip.AddrPortFrom(attHost, 80))
		ls.Solisten(10)
		// A narrow range of ports stands for many dials: the test takes all other ports before.
		d := dest{in6(attPeer), in6(attHost), 80}
		set := &portSet{}
		const left = 40
		for range portRange - left {
			set.take()
		}
		kb.ports.destShard(&d).sets = map[dest]*portSet{d: set}
		reused := func() uint64 { return kb.Stats.TCP.Twreuse.Load() }
		const n = 1200
		for i := range n {
			so, _ := kb.Socreate(attFam.domain, SOCK_STREAM, 0)
			errno := so.Soconnect(ls.Laddr())
			if errno == 0 {
				errno = so.Soconnectwait()
			}
			if errno != 0 {
				t.Fatalf("dial %d: %v", i, errno)
			}
			start := time.Now()
			srv, errno := ls.Soaccept()
			if errno != 0 || time.Since(start) > 500*time.Millisecond {
				t.Fatalf("accept %d: %v after %v", i, errno, time.Since(start))
			}
			so.Soclose()
			srv.Soclose()
			pass(time.Millisecond)
		}
		if r := reused(); r < n-left-5 {
			t.Errorf("%d records were reused in %d dials", r, n)
		}
		if n := len(kbTimeWait(kb)); n > left {
			t.Errorf("%d records on %d ports", n, left)
		}
		pass(2 * time.Minute)
		if n := len(kbTimeWait(kb)); n != 0 {
			t.Errorf("%d records after 2 MSL", n)
		}
		ls.Soclose()
		set.n = 0
		clear(kb.ports.destShard(&d).sets)
		ka.Close()
		kb.Close()
		closedClean(t, ka)
		closedClean(t, kb)
	})
}

func kbTimeWait(k *Kernel) (list []Conn) {
	for _, c := range k.Pcblist() {
		if c.State == tcp.TimeWait {
			list = append(list, c)
		}
	}
	return list
}

// Without timestamps, or in a profile without RFC 6191, a record keeps its port for 2 MSL: the dial
// that finds none says so at once.
func TestTimeWaitKeepsPortWithoutTimestamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, ts := range []bool{false, true} {
			v := attacked(t, func(_ *Config, p *tcp.Profile) { p.RFC6191 = !ts })
			d := dest{in6(attHost), in6(attPeer), 9}
			set := &portSet{}
			const left = 3
			for range portRange - left {
				set.take()
			}
			v.k.ports.destShard(&d).sets = map[dest]*portSet{d: set}
			once := func() syscall.Errno {
				so, errno := v.connectNB(netip.AddrPortFrom(attPeer, 9))
				if errno != 0 {
					return errno
				}
				p := v.peer(9, so.inp.lport)
				syn := v.one()
				p.ack = syn.th.Seq + 1
				p.tsecr, p.ts = syn.th.Opt.TSVal, ts
				s := p.seg(wire.SYN|wire.ACK, nil)
				s.th.Opt.MSS = 1000
				s.th.Opt.Has |= wire.TofMSS
				v.inject(s.bytes())
				p.seq++
				so.Soclose()
				p.ack++
				v.inject(p.seg(wire.FIN|wire.ACK, nil).bytes())
				v.link.fetch()
				pass(10 * time.Millisecond)
				return 0
			}
			for range left {
				v.no(once())
			}
			if n := len(kbTimeWait(v.k)); n != left {
				t.Fatalf("%d records", n)
			}
			if set.n != portRange {
				t.Errorf("a dial would try %d ports in vain", portRange-set.n)
			}
			if errno := once(); errno != syscall.EADDRNOTAVAIL {
				t.Errorf("timestamps %v: dial with all ports in TIME_WAIT: %v", ts, errno)
			}
			pass(61 * time.Second)
			v.no(once())
			pass(61 * time.Second)
			if set.n != portRange-left {
				t.Errorf("%d ports are taken, want %d", set.n, portRange-left)
			}
			set.n = 0
			v.done()
		}
	})
}

// BSD's rules of bind, as a table: which socket has the port, which one binds to it, and the
// options of both.
func TestBindRules(t *testing.T) {
	const (
		none  = 0
		addr  = SO_REUSEADDR
		port  = SO_REUSEPORT
		any   = "0.0.0.0:80"
		one   = "10.0.0.1:80"
		other = "127.0.0.1:80"
	)
	for _, c := range []struct {
		what         string
		a            string
		aopts        soOptions
		b            string
		bopts        soOptions
		listening    bool // the first one is
		want         syscall.Errno
		alsoReversed bool
	}{
		{"the same", one, none, one, none, false, syscall.EADDRINUSE, true},
		{"the same, listening", one, none, one, none, true, syscall.EADDRINUSE, true},
		{"different addresses", one, none, other, none, true, 0, true},
		{"wildcard and specific", any, none, one, none, false, syscall.EADDRINUSE, true},
		{"both wildcard", any, none, any, none, true, syscall.EADDRINUSE, true},
		{"the same, REUSEADDR on both", one, addr, one, addr, true, syscall.EADDRINUSE, true},
		{"both wildcard, REUSEADDR on both", any, addr, any, addr, true, syscall.EADDRINUSE, true},
		{"the same, REUSEPORT on both", one, port, one, port, true, 0, true},
		{"the same, REUSEPORT on the first", one, port, one, none, true, syscall.EADDRINUSE, true},
		{"the same, REUSEPORT on the second", one, none, one, port, true, syscall.EADDRINUSE, true},
		{"wildcard and specific, REUSEPORT on both", any, port, one, port, true, 0, true},
		{"wildcard and specific, REUSEADDR on one", any, addr, one, none, true, syscall.EADDRINUSE, true},
	} {
		try := func(a string, aopts soOptions, b string, bopts soOptions) {
			v := attacked(t, nil)
			defer v.done()
			bind := func(at string, opts soOptions) (int, syscall.Errno) {
				fd, errno := v.p.Socket(attFam.domain, SOCK_STREAM, 0)
				v.no(errno)
				for _, o := range []soOptions{addr, port} {
					if opts&o != 0 {
						v.no(v.p.Setsockopt(fd, SOL_SOCKET, int(o), 1))
					}
				}
				return fd, v.p.Bind(fd, netip.MustParseAddrPort(at))
			}
			fa, errno := bind(a, aopts)
			v.no(errno)
			if c.listening {
				v.no(v.p.Listen(fa, 5))
			}
			fb, errno := bind(b, bopts)
			if errno != c.want {
				t.Errorf("%s: %s then %s: %v, want %v", c.what, a, b, errno, c.want)
			}
			// Closing gives the port back.
			v.no(v.p.Close(fa))
			v.no(v.p.Close(fb))
			if _, errno := bind(a, none); errno != 0 {
				t.Errorf("%s: after close: %v", c.what, errno)
			}
		}
		try(c.a, c.aopts, c.b, c.bopts)
		if c.alsoReversed {
			try(c.b, c.bopts, c.a, c.aopts)
		}
	}
}

// A port beside connections: a listener may come back with SO_REUSEADDR while what it has accepted
// lives on or is in TIME_WAIT, and not without; a port that dials have taken can be bound.
func TestBindBesideConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, reuse := range []bool{false, true} {
			for _, state := range []string{"established", "TIME_WAIT"} {
				v := attacked(t, nil)
				lfd := v.listen(80, 5)
				p, fd := v.established(lfd, 5000, 80)
				v.no(v.p.Close(lfd))
				if state == "TIME_WAIT" {
					v.no(v.p.Close(fd))
					p.ack++
					v.inject(p.seg(wire.FIN|wire.ACK, nil).bytes())
					if s := v.states(nil); len(s) != 1 || s[0] != tcp.TimeWait {
						t.Fatalf("states %v", s)
					}
				}
				nfd, _ := v.p.Socket(attFam.domain, SOCK_STREAM, 0)
				want := syscall.EADDRINUSE
				if reuse {
					v.p.Setsockopt(nfd, SOL_SOCKET, int(SO_REUSEADDR), 1)
					want = 0
				}
				if errno := v.p.Bind(nfd, netip.MustParseAddrPort("0.0.0.0:80")); errno != want {
					t.Errorf("%s, SO_REUSEADDR %v: %v, want %v", state, reuse, errno, want)
				}
				v.done()
			}
		}
		v := attacked(t, nil)
		defer v.done()
		so, _ := v.connectNB(netip.AddrPortFrom(attPeer, 9))
		v.listen(so.inp.lport, 5)
	})
}

// bind with port 0 gives every port once, then EADDRNOTAVAIL.
func TestBindAnyPort(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	seen := map[uint16]bool{}
	var last *Socket
	for range portRange {
		so, errno := v.k.Socreate(attFam.domain, SOCK_STREAM, 0)
		v.no(errno)
		v.no(so.Sobind(netip.AddrPortFrom(attHost, 0)))
		if seen[so.inp.lport] {
			t.Fatalf("port %d twice", so.inp.lport)
		}
		seen[so.inp.lport] = true
		last = so
	}
	so, _ := v.k.Socreate(attFam.domain, SOCK_STREAM, 0)
	if errno := so.Sobind(netip.AddrPortFrom(attHost, 0)); errno != syscall.EADDRNOTAVAIL {
		t.Errorf("bind with no port left: %v", errno)
	}
	port := last.inp.lport
	last.Soclose()
	if errno := so.Sobind(netip.AddrPortFrom(attHost, 0)); errno != 0 || so.inp.lport != port {
		t.Errorf("the only free port is %d: %d, %v", port, so.inp.lport, errno)
	}
}

// The table may forget a destination without connections if there are many, but not while a dial is
// trying its ports: the dial would try the same port again and again.
func TestPortsAmongManyDestinations(t *testing.T) {
	k, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	lo := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for i := range 80_000 { // more than maxDests in each shard
		d := dest{in6(lo), in6(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), 9}
		if _, ok := k.ports.take(&d); !ok {
			t.Fatal("no port")
		}
	}
	d := dest{in6(lo), in6(netip.AddrFrom4([4]byte{11, 0, 0, 1})), 9}
	inp := inpcb{tuple: tuple{laddr: d.laddr, faddr: d.faddr, fport: d.fport}}
	seen := map[uint16]bool{}
	for range 100 {
		port, ok := k.ports.take(&d)
		if !ok || seen[port] {
			t.Fatalf("port %d again", port)
		}
		seen[port] = true
		inp.lport = port
		k.ports.retry(&inp)
	}
	inp.lport, _ = k.ports.take(&d)
	k.ports.giveBack(&inp)
	if k.ports.destShard(&d).sets[d] != nil {
		t.Error("an idle destination among many is kept")
	}
}

// The look-up of a stray segment to a port with many connections, and no listener any more, reads
// none of them: sockets without a peer have a list of their own.
func TestPortLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		lfd := v.listen(80, 100)
		for i := range 50 {
			v.established(lfd, uint16(5000+i), 80)
		}
		s := v.k.ports.shard(80)
		count := func(p *inpcb) (n int) {
			for ; p != nil; p = p.portNext {
				n++
			}
			return n
		}
		check := func(what string, port uint16, users, conns int) {
			t.Helper()
			s := v.k.ports.shard(port)
			all := 0
			for p := s.first(port); p != nil; p = s.after(p) {
				all++
			}
			if u, c := count(s.users[port]), count(s.conns[port]); u != users || c != conns || all != users+conns {
				t.Errorf("%s: %d without a peer and %d with one, want %d and %d; %d in all", what, u, c, users,
					conns, all)
			}
		}
		check("listening", 80, 1, 50)
		v.no(v.p.Close(lfd))
		check("no listener", 80, 0, 50)
		if v.k.ports.boundTo(in6(attHost), 80) != nil {
			t.Errorf("somebody is bound")
		}
		if len(s.users) != 0 {
			t.Errorf("an empty list is left")
		}
		// A bound socket that connects, and one that fails to.
		fd, errno := v.p.Socket(attFam.domain, SOCK_STREAM, 0)
		v.no(errno)
		v.p.Fcntl(fd, F_SETFL, O_NONBLOCK)
		v.no(v.p.Bind(fd, netip.AddrPortFrom(attHost, 90)))
		check("bound", 90, 1, 0)
		if so := v.k.ports.boundTo(in6(attHost), 90); so == nil || so != v.p.Sock(fd) {
			t.Errorf("bound to 90: %v", so)
		}
		if errno := v.p.Connect(fd, netip.MustParseAddrPort("224.0.0.1:9")); errno == 0 {
			t.Errorf("connected to a group")
		}
		check("failed to connect", 90, 1, 0)
		v.p.Connect(fd, netip.AddrPortFrom(attPeer, 9))
		check("connecting", 90, 0, 1)
		v.no(v.p.Close(fd))
		check("closed", 90, 0, 0)
	})
}
