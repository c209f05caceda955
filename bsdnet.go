// Package bsdnet is a TCP/IP stack in user space, in the shape of 4.4BSD, behind net.Listener and net.Conn. Replace net.Listen by
// bsdnet.Listen, and an unmodified net/http server runs on it:
//
//	ln, err := bsdnet.Listen("tcp", "127.0.0.1:80")
//	…
//	go http.Serve(ln, handler)
//	resp, err := bsdnet.HTTPClient().Get("http://127.0.0.1/")
//
// The package-level functions use a default stack, which has a loopback and nothing else. A [Stack] of one's own comes from [New]; [Stack.Attach]
// gives it links to the world or to other stacks:
//
//	a, b, _ := bsdnet.Pipe(bsdnet.PipeConfig{MTU: 1500})
//	s1, _ := bsdnet.New(bsdnet.Config{})
//	s2, _ := bsdnet.New(bsdnet.Config{})
//	s1.Attach(a, netip.MustParsePrefix("10.0.0.1/24"))
//	s2.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))
//	ln, err := s1.Listen("tcp", ":80")
//	conn, err := s2.Dial("tcp", "10.0.0.1:80")
//
// [OpenTUN] makes a link to the kernel, [OpenUDP] an encrypted one to another process or host, package wireguard one to a WireGuard network;
// [Impair] makes any of them as bad as wanted; a [Link] of one's own is five methods.
//
// The errors of listeners, dials and connections are package net's: every one but io.EOF is a *net.OpError around a *os.SyscallError with the
// syscall.Errno, net.ErrClosed, os.ErrDeadlineExceeded, a context's error or what is wrong with an address, so errors.Is and errors.As work as they do
// there.
//
// # In a testing/synctest bubble
//
// A stack takes all time from package time, starts its goroutines in New and Attach, and has ended them all when Close returns; nothing in it
// waits outside of channels, sync.Cond and timers. Make it in the bubble, by New: the default stack belongs to the program. With Config.Rand and
// the seeds of [Impair] fixed a run repeats exactly, as far as the program itself does.
//
// # Limits
//
// IPv4 and TCP. Names are resolved by a [Dialer] that has a Resolver; otherwise there is localhost alone, which is 127.0.0.1. There are no users: a port below 1024 is like any other.
package bsdnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"bsdnet/internal/kern"
)

// A Link carries IP packets between a stack and the world. Anyone may write one: its methods use standard types only.
//
// The stack calls MTU and then Start once, in Attach; from then on Read from one goroutine, and Write from any.
type Link interface {
	// MTU returns the largest IP packet, in bytes, that the link carries: 68 to 65535, and always the same.
	MTU() int

	// Start is called before Read and Write. When a Write has taken less than it was given, the link calls ready, from any goroutine but not from
	// within Write, as soon as it can take more. ready returns at once and does not call the link.
	Start(ready func()) error

	// Read waits for packets and copies up to len(bufs) of them, each whole, packet i into bufs[i] and its length into sizes[i]. It returns how
	// many there are: at least one, unless there is an error. Each buffer has room for MTU bytes; a longer packet is dropped. An error ends the
	// link: net.ErrClosed after Close. If a count or a length is not as said here, in Read or in Write, the link is broken: see [Stack.LinkErr].
	Read(bufs [][]byte, sizes []int) (n int, err error)

	// Write takes packets, each in one or more pieces, and returns how many it has taken: sent, or dropped as networks do. It never waits; where
	// n < len(pkts) without an error the link is full, and calls ready later. The packets are lent: they must not be changed, nor kept when Write
	// has returned. With an error, all packets are lost.
	Write(pkts []net.Buffers) (n int, err error)

	// Close ends Read and Write with net.ErrClosed, and returns when nothing of the link runs any more.
	Close() error
}

// An OffloadLink is a [Link] that passes on what a network card would do: it carries chains of segments whole, with their checksums left out, to
// somebody who cuts and sums them, or need not. [TUN] is one. Wrappers that look at packets, such as [Impair], are not, and get them as on a wire.
type OffloadLink interface {
	Link

	// Offload is called once, before Start. Where it returns true each packet, in Read and in Write, begins with a virtio-net header of 10 bytes from
	// then on (struct virtio_net_hdr, OASIS virtio 1.2, 5.1.6, little endian, without num_buffers), which tells the size of its segments and where a
	// checksum is to be filled in; behind it there may be 65535 bytes, whatever the MTU.
	Offload() bool
}

// A QueueLink is a [Link] of several queues, each of which the stack reads on a goroutine of its own, so that connections spread over processors.
// What is written on a queue should come back on the same. [TUN] is one.
type QueueLink interface {
	Link

	// Queues returns how many there are, always the same. With one, only Read and Write are called; else never.
	Queues() int

	// ReadQueue and WriteQueue are Read and Write of queue q, 0 to Queues()-1.
	ReadQueue(q int, bufs [][]byte, sizes []int) (int, error)
	WriteQueue(q int, pkts []net.Buffers) (int, error)
}

// Config configures a [Stack]. The zero Config is ready to use.
type Config struct {
	// Rand is where the stack's secrets come from, once, in New: initial sequence numbers, ports and the like follow from them. A fixed source
	// makes a run repeatable, and the stack predictable to an attacker. nil: crypto/rand.
	Rand io.Reader

	// Memory is the most that all buffers together may hold, in bytes. From 13 sixteenths of it on buffers take less and do not grow, and new
	// connections are refused. 0: 1 GiB. New refuses less than 0.
	Memory int64

	// Backlog is how many connections may wait to be accepted by one listener. 0: 4096. New refuses less than 0.
	Backlog int

	// LoopbackMTU is the MTU of the loopback interface in bytes, 68 to 65535. 0: 65535.
	LoopbackMTU int

	// NoLoopback leaves the loopback interface out: only the links that are attached lead anywhere.
	NoLoopback bool

	// Trace is told what happens on the stack's connections, on whatever goroutine it happens there, and so possibly on several at once. It is
	// called with the connection locked: it must return soon, and must not call the stack or anything of it, or it waits forever. The event
	// is lent and must not be kept when Trace has returned. Package [bsdnet/qlog] writes events to a file, and bsdnet/cmd/tcpplot draws it.
	// nil: nobody is told, which costs nothing.
	Trace func(*TraceEvent)

	// TCP are the defaults of TCP.
	TCP TCPConfig
}

// A Profile is a set of values for TCP. Its own text is its name.
type Profile string

// The profiles.
const (
	ProfileDefault Profile = "Default" // FreeBSD's answers, with a sender like Linux's, and Linux's and Go's defaults
	ProfileFreeBSD Profile = "FreeBSD" // FreeBSD's answers and defaults
	ProfileNet3    Profile = "Net3"    // 4.4BSD-Lite2, which TCP/IP Illustrated, Volume 2 describes
)

// TCPConfig are a stack's defaults for TCP. A zero field takes the default that it names.
type TCPConfig struct {
	// Profile is the set of values that the other fields change. "": ProfileDefault.
	Profile Profile

	// ReadBuffer and WriteBuffer are the sizes of a connection's buffers, in bytes. 0: in Default they begin with 256 KiB and grow with what the
	// connection carries in a round trip, up to 8 MiB and 4 MiB, except over the loopback; in the others they are what the originals had, and stay so. A
	// size that is given here, at most 1 GiB, stays as well; less than 1 KiB counts as that.
	ReadBuffer, WriteBuffer int

	// CongestionControl is the algorithm that decides how fast a connection sends: "cubic" (RFC 9438), "newreno" (RFC 5681), "bbr" (version 3) or "bbr1",
	// which takes no notice of loss and is unfair to others. "": "cubic". The profiles "FreeBSD" and "Net3" have "newreno" alone. Over the loopback there
	// is nothing to decide.
	CongestionControl string

	// MSL is the maximum segment lifetime, at most a year; TIME_WAIT lasts for two of them (RFC 9293, 3.4.2). 0: 30 s.
	MSL time.Duration
}

// A Stack is a network of its own: interfaces, routes, ports and connections. Its methods may be called from any goroutine.
type Stack struct {
	k *kern.Kernel

	mu    sync.Mutex
	links map[Link]*kern.Ifnet
	n     int

	clientOnce sync.Once
	client     *http.Client
}

// New makes a stack with a loopback interface: 127.0.0.0/8. Close ends it.
func New(c Config) (*Stack, error) {
	prof, err := c.TCP.profile()
	if err != nil {
		return nil, err
	}
	if c.Memory < 0 {
		return nil, fmt.Errorf("bsdnet: Config.Memory is %d; it can be 0, for 1 GiB, or more", c.Memory)
	}
	if c.Backlog < 0 {
		return nil, fmt.Errorf("bsdnet: Config.Backlog is %d; it can be 0, for 4096, or more", c.Backlog)
	}
	var trace func(*kern.Trace)
	if c.Trace != nil {
		trace = func(t *kern.Trace) { c.Trace(traceEvent(t)) }
	}
	k, err := kern.New(kern.Config{
		Profile: prof, Rand: c.Rand, LoopbackMTU: c.LoopbackMTU, NoLoopback: c.NoLoopback, Memory: c.Memory, Somaxconn: c.Backlog, Trace: trace,
	})
	if err != nil {
		return nil, err
	}
	return &Stack{k: k, links: map[Link]*kern.Ifnet{}}, nil
}

// maxMSL keeps the end of TIME_WAIT within the clock.
const maxMSL = 365 * 24 * time.Hour

func (c *TCPConfig) profile() (*kern.Profile, error) {
	p := kern.ProfileNamed(string(c.Profile))
	if p == nil {
		return nil, fmt.Errorf("bsdnet: TCPConfig.Profile is %q; it can be %q, %q or %q", c.Profile, ProfileDefault, ProfileFreeBSD, ProfileNet3)
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
			return nil, fmt.Errorf("bsdnet: TCPConfig.CongestionControl is %q; with profile %s it can be %q", c.CongestionControl, p.Name, p.CCNames())
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

// Attach connects the stack to link, which it starts, under the given addresses, each with the prefix of its network, to which a route is made. The
// stack owns the link from then on, and closes it. If it returns an error the link has not been closed, unless the error is net.ErrClosed: the stack has
// been closed, and so is the link. A link must be comparable, such as a pointer, as it is its own name in the other methods.
//
// If an address is IPv6, the error wraps syscall.EAFNOSUPPORT; if the stack has it already, syscall.EADDRINUSE; if no host can have it, such as the
// address of the network itself in 10.0.0.0/24, syscall.EADDRNOTAVAIL.
//
// Several links may be in one network. The first that works carries what is dialed, and connections stay with the link that has their address.
func (s *Stack) Attach(link Link, prefixes ...netip.Prefix) error {
	if link == nil {
		return errors.New("bsdnet: attach: the link is nil")
	}
	if !reflect.ValueOf(link).Comparable() { // it could not be told from another in Detach
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

// LinkErr returns the error that has ended a link, and nil while it works: what its Read has returned, or how it has broken the contract of [Link]. From then on dials over it fail with syscall.ENETDOWN; connections wait, as for
// any bad network, and go on should another link be attached with the address of the first, once that has been detached.
func (s *Stack) LinkErr(link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return ifp.Err()
}

// ifnet returns the interface of a link, or nil.
func (s *Stack) ifnet(link Link) *kern.Ifnet {
	if !reflect.ValueOf(link).Comparable() {
		return nil // Attach has refused it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[link]
}

// Detach takes a link off the stack and closes it. Connections over it stay, and wait until they time out: they go on should a link with their address
// be attached meanwhile.
func (s *Stack) Detach(link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	s.mu.Lock()
	mine := s.links[link] == ifp
	if mine {
		delete(s.links, link)
	}
	s.mu.Unlock()
	if !mine { // somebody else has been faster
		return errNotAttached
	}
	return s.k.Detach(ifp)
}

var errNotAttached = errors.New("bsdnet: the link is not attached to this stack")

// AddRoute sends packets for dst over link, in addition to the routes to the link's own networks. The longest prefix counts; 0.0.0.0/0 is the
// default route. syscall.EEXIST: there is a route to dst. syscall.EAFNOSUPPORT: dst is IPv6.
func (s *Stack) AddRoute(dst netip.Prefix, link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return s.k.AddRoute(dst, ifp)
}

// DelRoute removes a route over link: one that [Stack.AddRoute] has made, or the one to a network of the link's own. Connections that use
// it stay on it. If there is no such route, the error wraps syscall.ESRCH.
func (s *Stack) DelRoute(dst netip.Prefix, link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return s.k.DelRoute(dst, ifp)
}

// A Route says over which link packets leave for the addresses of a prefix, if there is no route to a longer one.
type Route struct {
	Dst  netip.Prefix
	Link Link       // nil: the loopback
	Src  netip.Addr // the local address of connections that are dialed over it; not valid: the link has none, and the route is not used
}

// Routes returns all routes, those to the links' own networks and the loopback's included, by address and then by length. Of several to one
// prefix the first over a link that works is used.
func (s *Stack) Routes() []Route {
	list := s.k.Routes()
	routes := make([]Route, len(list))
	for i, r := range list {
		l, _ := r.Ifp.Link().(Link)
		routes[i] = Route{Dst: r.Dst, Link: l, Src: r.Src}
	}
	return routes
}

// Links returns the links that are attached, in the order of their attachment. [Stack.Stats] tells more of each.
func (s *Stack) Links() []Link {
	var links []Link
	for _, ifp := range s.k.Ifs() {
		if l, ok := ifp.Link().(Link); ok {
			links = append(links, l)
		}
	}
	return links
}

// A CaptureFilter says how many bytes of a packet, which begins with its IP header and is lent, a capture takes; with 0 or an error it takes no notice of
// the packet. A *bpf.VM of golang.org/x/net/bpf is one. Run is called on whatever goroutine the packet passes, one at a time, and must not call the stack.
type CaptureFilter interface {
	Run(packet []byte) (int, error)
}

// Capture writes all packets on a link, or with a nil link on the loopback, to w, as a pcap file with nanosecond times that tcpdump and Wireshark
// read, until stop is called; stop returns the first error of w. With filters, it writes what all of them take. A link has one capture at a time: another
// takes its place.
//
// A goroutine writes to w, a packet with each call. If w takes less than passes the link, up to 4 MiB wait for it, and packets are dropped and
// counted (InterfaceStats.CaptureDrops); the link goes on. stop waits until w has taken all, but returns an error if it takes nothing for two seconds.
func (s *Stack) Capture(link Link, w io.Writer, filters ...CaptureFilter) (stop func() error, err error) {
	ifp := s.ifnet(link)
	if link == nil {
		ifp = s.k.Lo0()
	}
	if ifp == nil {
		return nil, errNotAttached
	}
	var list []kern.Filter
	for _, f := range filters {
		list = append(list, f)
	}
	return ifp.Capture(w, list...)
}

// Close resets all connections, closes all listeners and links, wakes everyone who waits with net.ErrClosed, and returns when no goroutine and no
// timer of the stack is left. It waits 200 ms at most for a capture's writer, which nobody can end but its owner. The connections of the client
// that [Stack.HTTPClient] returns end with the others.
func (s *Stack) Close() error {
	s.k.Close()
	s.HTTPClient().CloseIdleConnections()
	return nil
}

var defaultStack = sync.OnceValues(func() (*Stack, error) { return New(Config{}) })

// Listen is [Stack.Listen] on the default stack. In a testing/synctest bubble use a stack made there, by [New].
func Listen(network, address string) (net.Listener, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.Listen(network, address)
}

// Dial is [Stack.Dial] on the default stack. In a testing/synctest bubble use a stack made there, by [New].
func Dial(network, address string) (net.Conn, error) {
	return DialContext(context.Background(), network, address)
}

// DialContext is [Stack.DialContext] on the default stack. In a testing/synctest bubble use a stack made there, by [New].
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.DialContext(ctx, network, address)
}

// DialTimeout is [Stack.DialTimeout] on the default stack. In a testing/synctest bubble use a stack made there, by [New].
func DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return (&Dialer{Timeout: timeout}).Dial(network, address)
}

// DialTCP is [Stack.DialTCP] on the default stack. In a testing/synctest bubble use a stack made there, by [New].
func DialTCP(network string, laddr, raddr *net.TCPAddr) (*TCPConn, error) {
	return new(Dialer).dialTCP(context.Background(), network, laddr, raddr)
}

// ListenTCP is [Stack.ListenTCP] on the default stack. In a testing/synctest bubble use a stack made there, by [New].
func ListenTCP(network string, laddr *net.TCPAddr) (*TCPListener, error) {
	s, err := defaultStack()
	if err != nil {
		return nil, err
	}
	return s.ListenTCP(network, laddr)
}
