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
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"bsdnet/internal/kern"
	"bsdnet/internal/resolv"
)

// A Link carries IP packets between a stack and the world. Anyone may write one: its methods use
// standard types only, and package [bsdnet/linktest] tests whether they do what is said here.
//
// The stack calls MTU and then Start once, in Attach; from then on Read from one goroutine, and
// Write from any. Close may come at any time, also without a Start, and while Read and Write are
// under way. Read and Write before Start return an error.
type Link interface {
	// MTU returns the largest IP packet, in bytes with its headers, that the link carries: 68 to
	// 65535, and always the same.
	MTU() int

	// Start makes the link ready to carry packets. It returns an error if ready is nil or the link
	// has been started before, and net.ErrClosed after Close. After an error only Close is called.
	//
	// When a Write has taken less than it was given, the link calls ready as soon as it can take
	// more: from any goroutine, but not from within Write, and not with a lock held that Write
	// takes. The call may come before that Write has returned, it may come without need, and one
	// that is under way when Close is called may end after it. ready returns at once and does not
	// call the link.
	Start(ready func()) error

	// Read waits for packets and copies up to len(bufs) of them, each whole, packet i into bufs[i]
	// and its length into sizes[i]. It returns how many there are: at least one, unless there is an
	// error or bufs is empty. It does not wait for more packets than are there. The stack's buffers
	// have room for MTU bytes; a packet that is longer than its buffer is dropped, never cut.
	// Packets of one flow are read in the order in which they have arrived.
	//
	// An error ends the link: net.ErrClosed after Close. If Read or Write returns a count or a
	// length that breaks these rules, the link is broken: see [Stack.LinkErr].
	Read(bufs [][]byte, sizes []int) (n int, err error)

	// Write takes packets, each in one or more pieces, and returns how many it has taken, from the
	// first on. A packet is taken if it is sent or dropped: a link may drop any packet, as networks
	// do, and drops empty packets and those longer than the MTU. Write never waits: if n <
	// len(pkts) without an error, the link is full, and calls ready later. The packets are lent:
	// the link must not change them or the slices that list them, nor keep them after Write has
	// returned. Packets of one flow that are written one after another stay in their order, unless
	// the link is there to disorder them.
	//
	// After Close, Write returns 0 and net.ErrClosed. With any other error the packets from n on
	// could not be sent: the stack drops them, and goes on writing.
	Write(pkts []net.Buffers) (n int, err error)

	// Close ends Read and Write, also those that wait, with net.ErrClosed, and returns when no
	// goroutine and no timer of the link is left. A second Close does nothing and returns
	// net.ErrClosed.
	Close() error
}

// An OffloadLink is a [Link] with the offloads of a network card: it carries large segments whole
// and without their checksums, and its other end cuts them and fills the checksums in, or has no
// need to. The Link of package tun is one. Wrappers that look at packets, such as those of package
// netem, are no OffloadLinks, and get packets as they are on a wire.
type OffloadLink interface {
	Link

	// Offload is called at most once, before Start. If it returns true each packet, in Read and in
	// Write, begins with a virtio-net header of 10 bytes from then on (struct virtio_net_hdr, OASIS
	// virtio 1.2, 5.1.6, little endian, without num_buffers), which tells the size of its segments
	// and where a checksum is to be filled in; behind it there may be 65535 bytes, whatever the
	// MTU.
	Offload() bool
}

// A UDPOffloadLink is an [OffloadLink] that also cuts chains of UDP datagrams, over IPv4 and IPv6.
// The Link of package tun is one.
type UDPOffloadLink interface {
	OffloadLink

	// OffloadUDP is called at most once, after Offload has returned true and before Start. If it
	// returns true, a packet in Read and in Write may also be a chain of datagrams, all of which
	// except the last have the same length: VIRTIO_NET_HDR_GSO_UDP_L4. A packet that is written has
	// at most 64 of them.
	OffloadUDP() bool
}

// A QueueLink is a [Link] of several queues, each of which the stack reads on a goroutine of its
// own, so that connections spread over processors. What is written on a queue should come back on
// the same. The Link of package tun is one.
type QueueLink interface {
	Link

	// Queues returns the number of queues, which is always the same. If it is 1, the stack calls
	// Read and Write; otherwise it calls ReadQueue and WriteQueue instead.
	Queues() int

	// ReadQueue and WriteQueue are Read and Write of queue q, 0 to Queues()-1.
	ReadQueue(q int, bufs [][]byte, sizes []int) (int, error)
	WriteQueue(q int, pkts []net.Buffers) (int, error)
}

// A DiagnosingLink is a [Link] that may know why nothing comes through. The Links of packages
// udptunnel and wireguard are DiagnosingLinks; the link that netem.Impair returns asks the one that
// it wraps.
type DiagnosingLink interface {
	Link

	// Diagnose is asked when a dial, or a connection, to an address that the link leads to has
	// timed out. What it returns becomes part of the error's text: "dial tcp 10.0.0.1:80: i/o
	// timeout (udptunnel: no answer from 192.0.2.1:7000: connection refused)". errors.Is and the
	// error's Timeout give the same answers with that text as without. Diagnose returns nil if the
	// link knows nothing. It does not wait, and is called from any goroutine.
	Diagnose(to netip.Addr) error
}

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

// Attach connects the stack to link, and starts it. Each prefix is one of the stack's addresses on
// the link, with the length of its network, to which Attach adds a route. From then on the stack
// owns the link, and closes it. The link must be comparable, for example a pointer, as the other
// methods find it by its value.
//
// If Attach fails, the link stays open, unless the error is net.ErrClosed: then the stack has been
// closed, and the link with it. If the stack already has the address, the error wraps
// syscall.EADDRINUSE, except that each link may have the same IPv6 link-local address; if no host
// can have it, such as the network's own address in 10.0.0.0/24, syscall.EADDRNOTAVAIL; if it is
// IPv6 and the link's MTU is less than 1280 bytes (RFC 8200, 5), syscall.EINVAL.
//
// Several links may be in one network. Dials use the first link that works, and a connection stays
// with the link that has its local address.
func (s *Stack) Attach(link Link, prefixes ...netip.Prefix) error {
	if link == nil {
		return errors.New("bsdnet: attach: the link is nil")
	}
	if v := reflect.ValueOf(link); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Errorf("bsdnet: attach: the link is a nil %T", link)
	}
	if errno := s.k.Here(); errno != 0 {
		return sysError("attach", errno)
	}
	if !reflect.ValueOf(link).Comparable() { // Detach could not find it
		return fmt.Errorf("bsdnet: attach: the link is a %T, which cannot be compared; pass a pointer to one", link)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[link] != nil {
		return errors.New("bsdnet: attach: the link is attached already")
	}
	ifp, err := s.k.Attach(fmt.Sprintf("if%d", s.n), link, prefixes)
	if err != nil {
		return err
	}
	s.n++
	s.links[link] = ifp
	return nil
}

// LinkErr returns the error that has ended a link: the error of its Read, or one that says how it
// has broken the contract of [Link]. It returns nil while the link works. After such an error,
// dials over the link fail with syscall.ENETDOWN. Connections over it wait until they time out;
// they continue if the link is detached, and another is attached that has their address.
func (s *Stack) LinkErr(link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return ifp.Err()
}

// ifnet returns the interface of a link, or nil if it is not attached.
func (s *Stack) ifnet(link Link) *kern.Ifnet {
	if !reflect.ValueOf(link).Comparable() {
		return nil // Attach has refused it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[link]
}

// Detach removes a link from the stack and closes it. Connections over it wait until they time out,
// and continue if another link is attached that has their address.
func (s *Stack) Detach(link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	if errno := s.k.Here(); errno != 0 {
		return sysError("detach", errno)
	}
	s.mu.Lock()
	mine := s.links[link] == ifp
	if mine {
		delete(s.links, link)
	}
	s.mu.Unlock()
	if !mine { // another goroutine has detached it
		return errNotAttached
	}
	return s.k.Detach(ifp)
}

var errNotAttached = errors.New("bsdnet: the link is not attached to this stack")

// AddRoute adds a route to dst over link, in addition to the routes to the link's own networks. Of
// the routes to an address the one with the longest prefix is used; 0.0.0.0/0 and ::/0 are the
// default routes of IPv4 and IPv6. If there already is a route to dst, the error wraps
// syscall.EEXIST. An IPv6 link-local address is reached over the link that its zone names, never
// over a route.
func (s *Stack) AddRoute(dst netip.Prefix, link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return s.k.AddRoute(dst, ifp)
}

// DelRoute removes a route over link: one that [Stack.AddRoute] has added, or one to a network of
// the link's own. Connections that use the route go on to use it. If there is no such route, the
// error wraps syscall.ESRCH.
func (s *Stack) DelRoute(dst netip.Prefix, link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return s.k.DelRoute(dst, ifp)
}

// A Route names the link for packets to the addresses of a prefix, except those of a longer prefix
// to which there is a route as well.
type Route struct {
	Dst  netip.Prefix
	Link Link // nil for the loopback

	// Src is the local address of connections that are dialed over the route. If it is not valid,
	// the link has no address, and the route is not used.
	Src netip.Addr
}

// Routes returns all routes, including those to the links' own networks and those of the loopback,
// sorted by family, by address and then by length. Of several routes to one prefix the stack uses
// the first over a link that works.
func (s *Stack) Routes() []Route {
	list := s.k.Routes()
	routes := make([]Route, len(list))
	for i, r := range list {
		l, _ := r.Ifp.Link().(Link)
		routes[i] = Route{Dst: r.Dst, Link: l, Src: r.Src}
	}
	return routes
}

// Links returns the attached links, in the order of their attachment. [Stack.Stats] has the
// counters of each.
func (s *Stack) Links() []Link {
	var links []Link
	for _, ifp := range s.k.Ifs() {
		if l, ok := ifp.Link().(Link); ok {
			links = append(links, l)
		}
	}
	return links
}

// A CaptureFilter chooses packets for a capture; the *bpf.VM of golang.org/x/net/bpf implements it.
// Run gets a packet that begins with its IP header, and must not keep it. It returns how many bytes
// the capture takes; the capture skips the packet if that is 0 or if there is an error. Calls come
// from several goroutines, one after the other. Run must not call the stack.
type CaptureFilter interface {
	Run(packet []byte) (int, error)
}

// Capture writes to w the packets on a link, or on the loopback if link is nil, as a pcap file with
// nanosecond times, which tcpdump and Wireshark read. If there are filters, it writes the packets
// that all of them accept. A link has one capture at a time; another call replaces it.
//
// A goroutine writes to w, one packet with each call. If w is slower than the link, up to 4 MiB
// wait, and further packets are left out and counted in InterfaceStats.CaptureDrops; the link is
// not slowed down. stop ends the capture, waits until w has taken all that waits, and returns the
// first error of w. If w takes nothing for two seconds, stop returns an error.
func (s *Stack) Capture(link Link, w io.Writer, filters ...CaptureFilter) (stop func() error, err error) {
	ifp := s.ifnet(link)
	if link == nil {
		ifp = s.k.Lo0()
	}
	if ifp == nil {
		return nil, errNotAttached
	}
	if errno := s.k.Here(); errno != 0 {
		return nil, sysError("capture", errno)
	}
	var list []kern.Filter
	for _, f := range filters {
		list = append(list, f)
	}
	return ifp.Capture(w, list...)
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

var firstUse struct {
	sync.Once
	s   *Stack
	err error
}

// defaultStack returns the default stack, and makes it if this is its first use.
func defaultStack() (*Stack, error) {
	firstUse.Do(func() { firstUse.s, firstUse.err = New(Config{}) })
	return firstUse.s, firstUse.err
}

// Listen is [Stack.Listen] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func Listen(network, address string) (net.Listener, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.Listen(network, address)
}

// Dial is [Stack.Dial] on the default stack. In a testing/synctest bubble use a stack made there,
// by [New].
func Dial(network, address string) (net.Conn, error) {
	return DialContext(context.Background(), network, address)
}

// DialContext is [Stack.DialContext] on the default stack. In a testing/synctest bubble use a stack
// made there, by [New].
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.DialContext(ctx, network, address)
}

// DialTimeout is [Stack.DialTimeout] on the default stack. In a testing/synctest bubble use a stack
// made there, by [New].
func DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return (&Dialer{Timeout: timeout}).Dial(network, address)
}

// ListenPacket is [Stack.ListenPacket] on the default stack. In a testing/synctest bubble use a
// stack made there, by [New].
func ListenPacket(network, address string) (net.PacketConn, error) {
	return new(ListenConfig).ListenPacket(context.Background(), network, address)
}

// ListenUDP is [Stack.ListenUDP] on the default stack. In a testing/synctest bubble use a stack
// made there, by [New].
func ListenUDP(network string, laddr *net.UDPAddr) (*UDPConn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenUDP(network, laddr)
}

// ListenMulticastUDP is [Stack.ListenMulticastUDP] on the default stack. In a testing/synctest
// bubble use a stack made there, by [New].
func ListenMulticastUDP(network string, ifi *net.Interface, gaddr *net.UDPAddr) (*UDPConn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenMulticastUDP(network, ifi, gaddr)
}

// DialUDP is [Stack.DialUDP] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func DialUDP(network string, laddr, raddr *net.UDPAddr) (*UDPConn, error) {
	return new(Dialer).dialUDP(context.Background(), network, laddr, raddr)
}

// ListenIP is [Stack.ListenIP] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func ListenIP(network string, laddr *net.IPAddr) (*IPConn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenIP(network, laddr)
}

// DialIP is [Stack.DialIP] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func DialIP(network string, laddr, raddr *net.IPAddr) (*IPConn, error) {
	return new(Dialer).dialIP(context.Background(), network, laddr, raddr)
}

// DialTCP is [Stack.DialTCP] on the default stack. In a testing/synctest bubble use a stack made
// there, by [New].
func DialTCP(network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	return new(Dialer).dialTCP(context.Background(), network, laddr, raddr)
}

// ListenTCP is [Stack.ListenTCP] on the default stack. In a testing/synctest bubble use a stack
// made there, by [New].
func ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenTCP(network, laddr)
}
