// Package bsdnet is a TCP/IP stack in user space, in the shape of 4.4BSD, behind net.Listener,
// net.Conn and net.PacketConn. Replace net.Listen by bsdnet.Listen, and an unmodified net/http
// server runs on it:
//
//	ln, err := bsdnet.Listen("tcp", "127.0.0.1:80")
//	…
//	go http.Serve(ln, handler)
//	resp, err := bsdnet.HTTPClient().Get("http://127.0.0.1/")
//
// The package-level functions use the default stack, which has a loopback and no other interface.
// [New] makes another [Stack], and [Stack.Attach] gives it links to the world or to other stacks:
//
//	a, b, _ := netem.Pipe(netem.PipeConfig{MTU: 1500})
//	s1, _ := bsdnet.New(bsdnet.Config{})
//	s2, _ := bsdnet.New(bsdnet.Config{})
//	s1.Attach(a, netip.MustParsePrefix("10.0.0.1/24"))
//	s2.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))
//	ln, err := s1.Listen("tcp", ":80")
//	conn, err := s2.Dial("tcp", "10.0.0.1:80")
//
// Links are packages of their own: [bsdnet/tun] is a link to the system's TCP/IP,
// [bsdnet/udptunnel] an encrypted link to another process or host, and [bsdnet/wireguard] a link to
// a WireGuard network. [bsdnet/netem] has cables between stacks, and adds delay, loss and other
// faults to any link. A program can implement a [Link] of its own, which has five methods;
// [bsdnet/linktest] tests it.
//
// Listeners, dials and connections return package net's errors. Each error except io.EOF is a
// *net.OpError. It wraps an *os.SyscallError with a syscall.Errno, net.ErrClosed,
// os.ErrDeadlineExceeded, a context's error or an error about an address. So errors.Is and
// errors.As work as they do with package net.
//
// # In a testing/synctest bubble
//
// A stack takes the time from package time only, starts its goroutines in New and Attach, and has
// ended all of them when Close returns. It waits on channels, sync.Cond and timers only. So a stack
// works in a bubble if it is made there, by [New]; the first use makes the default stack. A run
// repeats exactly if Config.Rand and the seeds of package netem are fixed, and the program itself
// does the same each time.
//
// A bubble has a time of its own, so a stack is for the goroutines of one bubble, or for those that
// are in none. Calls from elsewhere fail with an error that says so, and change nothing: dials,
// Listen, Accept, reads that would wait, writes, Close of a connection, options, deadlines, Attach,
// Detach and Capture. A deadline fails in the same way if it is set in a bubble and was computed
// outside, with time.Now; one that was computed in a bubble has long passed outside. There are two
// exceptions: a datagram can be sent from a bubble by a stack that is in none, and once no call
// waits for a stack, [Stack.Close] may be called from anywhere.
//
// # Names
//
// A stack looks names up by its own configuration, and asks name servers over its own links:
//
//	s, err := bsdnet.New(bsdnet.Config{DNS: bsdnet.DNSConfig{
//		Servers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.53:53")},
//		Search:  []string{"corp.example"},
//		Hosts:   map[string][]netip.Addr{"db": {netip.MustParseAddr("10.0.0.7")}},
//	}})
//	conn, err := s.Dial("tcp", "db:5432")
//
// Nothing is read from the system. A stack without name servers knows localhost, and the hosts in
// its configuration. [Stack.LookupHost] and its siblings look up what dials do, and
// [Stack.Resolver] is a net.Resolver for other programs.
//
// # Limits
//
// The stack has TCP, UDP, ICMP and raw sockets over IPv4 and IPv6. As with package net on Linux, a
// listener on any address takes connections of both families, and a socket of UDP takes datagrams
// of both, unless the network's name ends in 4 or 6. The zone of an IPv6 link-local address is the
// name of a link's interface, "if0" for the first link that is attached. There are no users, so a
// port below 1024 is like any other, and anyone may have a raw socket.
package bsdnet

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"bsdnet/internal/kern"
	"bsdnet/internal/resolv"
)

// Config configures a [Stack]. The zero Config is ready to use.
type Config struct {
	// Rand is the source of the stack's secrets. New reads them once, and the stack derives initial
	// sequence numbers, ports and the like from them. A fixed source makes a run repeatable, but
	// also lets an attacker predict what the stack does. If it is nil, it is crypto/rand.Reader.
	Rand io.Reader

	// Memory is the most that all buffers and connections together may hold, in bytes; a connection
	// counts for 800. When they hold 13/16 of it, buffers take less and do not grow, and new
	// connections are refused. If it is 0, it is 1 GiB; otherwise it is at least 1 MiB.
	Memory int64

	// Backlog is how many connections may wait to be accepted by one listener. If it is 0, it is
	// 4096; it cannot be negative.
	Backlog int

	// LoopbackMTU is the MTU of the loopback interface in bytes, 68 to 65535. If it is 0, it is
	// 65535.
	LoopbackMTU int

	// NoLoopback leaves the loopback interface out, so that the stack has the attached links only.
	NoLoopback bool

	// Forwarding makes a router of the stack (RFC 1812): packets that arrive for other hosts leave
	// by the link that the longest prefix among the routes leads to. Packets that no router may
	// forward are dropped, and senders are told by ICMP of an exhausted TTL, of a packet that is
	// too long for the next link, and of a destination without a route. IPv6 is forwarded in the
	// same way (RFC 8200). There are no redirects, no router advertisements and no multicast
	// routing, and packets in transit are not put together from fragments. Without Forwarding,
	// packets for other hosts are dropped.
	Forwarding bool

	// Trace is called with each event on the stack's connections, from several goroutines at the
	// same time. The connection is locked meanwhile: Trace must return soon, and a call of the
	// stack, or of anything that belongs to it, would block forever. The event must not be kept
	// after Trace returns. Package [bsdnet/qlog] writes events to a file, and bsdnet/cmd/tcpplot
	// draws it. If Trace is nil, tracing costs nothing.
	Trace func(*TraceEvent)

	// TCP has the defaults of TCP.
	TCP TCPConfig

	// DNS has the name servers, the search list and a table of hosts. [Stack.SetDNS] changes it.
	DNS DNSConfig

	// Hosts looks up names before DNS does, for tests and for networks that have other names than
	// those of DNS. It gets each name, except localhost and those that end in .localhost, in lower
	// case and without a dot at its end. If it returns an error, the lookup fails with it. If it
	// returns nil and no error, it does not know the name, and DNS is asked. If it returns an empty
	// slice that is not nil, the name does not exist. Calls come from several goroutines at the
	// same time, and should end when their context does. Hosts may use the stack.
	Hosts func(ctx context.Context, name string) ([]netip.Addr, error)
}

// A Profile names a set of defaults and choices for TCP.
type Profile string

// The profiles.
const (
	ProfileDefault Profile = "Default" // FreeBSD's answers, with a sender like Linux's, and Linux's and Go's defaults
	ProfileFreeBSD Profile = "FreeBSD" // FreeBSD's answers and defaults
	ProfileNet3    Profile = "Net3"    // 4.4BSD-Lite2, which TCP/IP Illustrated, Volume 2 describes
)

// TCPConfig has a stack's defaults for TCP. A zero field stands for the value that its comment
// names.
type TCPConfig struct {
	// Profile is the set of values that the other fields change. If it is empty, it is
	// ProfileDefault.
	Profile Profile

	// ReadBuffer and WriteBuffer are the fixed sizes of a connection's buffers, in bytes: at most
	// 1 GiB, and at least 1 KiB, to which a smaller size is raised. If they are 0, the profile
	// decides. With ProfileDefault, buffers begin at 256 KiB and, except over the loopback, grow
	// with what the connection carries in a round trip, up to 8 MiB for reading and 4 MiB for
	// writing. With the other profiles they have the fixed sizes of the originals.
	ReadBuffer, WriteBuffer int

	// CongestionControl is the algorithm that decides how fast a connection sends: "cubic" (RFC
	// 9438), "newreno" (RFC 5681), "bbr" (version 3) or "bbr1" (version 1), which ignores losses
	// and takes more than its share of a path. If it is empty, it is "cubic". ProfileFreeBSD and
	// ProfileNet3 have "newreno" only. Over the loopback it has no effect.
	CongestionControl string

	// MSL is the maximum segment lifetime, at most a year. A connection stays in TIME_WAIT for
	// twice as long (RFC 9293, 3.4.2). If it is 0, it is 30 s.
	MSL time.Duration
}

// A Stack is a network stack with its own interfaces, routes, ports and connections. Several
// goroutines may call its methods at the same time.
type Stack struct {
	k *kern.Kernel

	mu    sync.Mutex
	links map[Link]*kern.Ifnet
	n     int
	names *resolv.Resolver

	// The client of HTTPClient, an *http.Client, and what Close does with it. Only the functions in
	// http.go name the types of net/http, so that a program that calls none of them does not get
	// net/http from its linker.
	client    any
	closeIdle func()
}

// minMemory is the least Config.Memory: the buffers into which a link reads take a quarter of it.
const minMemory = 1 << 20

// New makes a stack, which has a loopback interface with 127.0.0.0/8. Close ends it. A stack that
// is made in a testing/synctest bubble is for the goroutines of that bubble only, and one that is
// made outside is for those outside of bubbles.
func New(c Config) (*Stack, error) {
	prof, err := c.TCP.profile()
	if err != nil {
		return nil, err
	}
	if c.Memory != 0 && c.Memory < minMemory {
		return nil, fmt.Errorf("bsdnet: Config.Memory is %d; it can be 0, for 1 GiB, or at least 1 MiB", c.Memory)
	}
	if c.Backlog < 0 {
		return nil, fmt.Errorf("bsdnet: Config.Backlog is %d; it can be 0, for 4096, or more", c.Backlog)
	}
	var trace func(*kern.Trace)
	if c.Trace != nil {
		trace = func(t *kern.Trace) { c.Trace(traceEvent(t)) }
	}
	k, err := kern.New(kern.Config{
		Profile: prof, Rand: c.Rand, LoopbackMTU: c.LoopbackMTU, NoLoopback: c.NoLoopback,
		Forwarding: c.Forwarding,
		Memory:     c.Memory, Somaxconn: c.Backlog, Trace: trace,
	})
	if err != nil {
		return nil, err
	}
	s := &Stack{k: k, links: map[Link]*kern.Ifnet{}}
	if err := s.newNames(&c); err != nil {
		k.Close()
		return nil, err
	}
	return s, nil
}

// maxMSL keeps the end of TIME_WAIT within the range of the clock.
const maxMSL = 365 * 24 * time.Hour

func (c *TCPConfig) profile() (*kern.Profile, error) {
	p := kern.ProfileNamed(string(c.Profile))
	if p == nil {
		return nil, fmt.Errorf("bsdnet: TCPConfig.Profile is %q; it can be %q, %q or %q",
			c.Profile, ProfileDefault, ProfileFreeBSD, ProfileNet3)
	}
	const most = 1 << 30
	if c.ReadBuffer < 0 || c.ReadBuffer > most {
		return nil, fmt.Errorf("bsdnet: TCPConfig.ReadBuffer is %d; it can be up to 1 GiB", c.ReadBuffer)
	}
	if c.WriteBuffer < 0 || c.WriteBuffer > most {
		return nil, fmt.Errorf("bsdnet: TCPConfig.WriteBuffer is %d; it can be up to 1 GiB", c.WriteBuffer)
	}
	if c.ReadBuffer > 0 {
		p.Recvspace, p.RecvbufAuto = max(c.ReadBuffer, kern.MinSockbuf), false
	}
	if c.WriteBuffer > 0 {
		p.Sendspace, p.SendbufAuto = max(c.WriteBuffer, kern.MinSockbuf), false
	}
	p.Maxsockbuf = max(p.Maxsockbuf, c.ReadBuffer, c.WriteBuffer)
	if c.CongestionControl != "" {
		if !p.HasCC(c.CongestionControl) {
			return nil, fmt.Errorf("bsdnet: TCPConfig.CongestionControl is %q; with profile %s it can be %q",
				c.CongestionControl, p.Name, p.CCNames())
		}
		p.CC = c.CongestionControl
	}
	if c.MSL < 0 || c.MSL > maxMSL {
		return nil, fmt.Errorf("bsdnet: TCPConfig.MSL is %v; it can be 0 to %v", c.MSL, maxMSL)
	}
	if c.MSL > 0 {
		p.MSL = int64(c.MSL)
	}
	return p, nil
}

// Close resets all connections, closes all listeners and links, and ends all calls that wait with
// net.ErrClosed. It returns when no goroutine and no timer of the stack is left, except that it
// waits for the writer of a capture no longer than 200 ms.
func (s *Stack) Close() error {
	s.k.Close()
	s.mu.Lock()
	closeIdle := s.closeIdle
	s.mu.Unlock()
	if closeIdle != nil {
		closeIdle()
	}
	return nil
}
