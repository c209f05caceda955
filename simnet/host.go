package simnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// A Host is a host of a [Net]: a TCP/IP stack with a name. [Net.Host] makes one.
type Host struct {
	n      *Net
	name   string
	router bool
	number int // the order of hosts
	client *http.Client

	mu    sync.Mutex
	stack *bsdnet.Stack // nil after Crash
	boots int

	// Net.mu guards these.
	nics   []*nic
	routes map[netip.Prefix]*nic // those that the stack has been given

	// Only functions given to Net.apply change these.
	down, severed bool
}

// A nic is a host's end of a link.
type nic struct {
	host  *Host
	link  *Link
	sw    *netem.Switch
	name  string
	addrs []netip.Prefix
	port  *netem.Port // of the present stack, or nil
	at    *domain
}

// Name returns the host's name, which the other hosts can dial.
func (h *Host) Name() string { return h.name }

func (h *Host) network() *Net { return h.n }

// errDown is wrapped by the errors of calls on a host that has crashed.
var errDown = errors.New("the host has crashed, and has not been restarted")

func (h *Host) downError(op, network string) error {
	return &net.OpError{Op: op, Net: network, Err: fmt.Errorf("simnet: %s: %w", h.name, errDown)}
}

// Stack returns the host's stack, for all that a Host has no method for: Ping, LookupHost, a Dialer
// with options, Conns, Stats, Attach of a link that leads out of the network. It resolves the names
// of hosts too. It is nil between Crash and Restart, and another after Restart.
func (h *Host) Stack() *bsdnet.Stack {
	h.n.settle()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stack
}

// Addr returns the host's address on its first link, of the family that names stand for. It is the
// zero Addr if the host has no link yet.
func (h *Host) Addr() netip.Addr {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if len(h.nics) == 0 {
		return netip.Addr{}
	}
	return h.n.addr(h.nics[0])
}

// Addrs returns all addresses of the host, of IPv4 and IPv6, in the order of its links.
func (h *Host) Addrs() (list []netip.Addr) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	for _, c := range h.nics {
		for _, a := range c.addrs {
			list = append(list, a.Addr())
		}
	}
	return list
}

// addr returns the address that a host's name stands for, if c is the way to the host.
func (n *Net) addr(c *nic) netip.Addr {
	if n.config.IPv6 {
		return c.addrs[1].Addr()
	}
	return c.addrs[0].Addr()
}

// Listen listens on the host, as net.Listen does. An address such as ":80" stands for all addresses
// of the host.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	s := h.Stack()
	if s == nil {
		return nil, h.downError("listen", network)
	}
	return s.Listen(network, address)
}

// Dial connects from the host to an address, as net.Dial does. The address may have the name of a
// host of the network, such as "server:80". A name stands for one address: the host's on the link
// that is the fewest hops away, or on the first of such links.
//
// A dial to a host that does not answer fails after 75 s, as TCP gives up then, unless a context or
// a timeout ends it sooner; a dial to a port at which nobody listens fails at once, with
// syscall.ECONNREFUSED.
func (h *Host) Dial(network, address string) (net.Conn, error) {
	return h.DialContext(context.Background(), network, address)
}

// DialTimeout is Dial with a time limit, as net.DialTimeout.
func (h *Host) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return h.DialContext(ctx, network, address)
}

// DialContext is Dial with a context, as net.Dialer.DialContext. It can be given to libraries that
// take a function that dials, for example as http.Transport.DialContext.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	s := h.Stack()
	if s == nil {
		return nil, h.downError("dial", network)
	}
	return s.DialContext(ctx, network, address)
}

// ListenPacket opens a socket for datagrams on the host, as net.ListenPacket does.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	s := h.Stack()
	if s == nil {
		return nil, h.downError("listen", network)
	}
	return s.ListenPacket(network, address)
}

// lookup returns the address that a name stands for, as seen from h. It is the Config.Hosts of the
// host's stack.
func (h *Host) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	to, ok := n.nodes[name].(*Host)
	switch {
	case !ok && n.config.Stack.Hosts != nil:
		n.mu.Unlock()
		defer n.mu.Lock()
		return n.config.Stack.Hosts(ctx, name)
	case !ok && len(n.config.Stack.DNS.Servers)+len(n.config.Stack.DNS.Hosts) > 0:
		return nil, nil
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: name, Server: "simnet", IsNotFound: true}
	case to == h && n.config.IPv6:
		return []netip.Addr{netip.IPv6Loopback()}, nil
	case to == h:
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	}
	c := h.nearest(to)
	if c == nil {
		return nil, &net.DNSError{
			Err: "no links lead from " + h.name + " to that host", Name: name, Server: "simnet", IsNotFound: true,
		}
	}
	return []netip.Addr{n.addr(c)}, nil
}

// boot makes a stack and attaches it to the host's links. Net.mu is held.
func (h *Host) boot() error {
	c := h.n.config.Stack
	c.Rand = h.n.secrets(h.name, h.boots)
	c.Forwarding = h.router
	c.NoLoopback = false
	c.Hosts = h.lookup
	user := c.Trace
	c.Trace = func(e *bsdnet.TraceEvent) {
		if e.Kind == bsdnet.TraceState {
			h.n.events.state(h, e)
		}
		if user != nil {
			user(e)
		}
	}
	s, err := bsdnet.New(c)
	if err != nil {
		return err
	}
	h.routes = map[netip.Prefix]*nic{}
	for _, c := range h.nics {
		if err := h.plug(s, c); err != nil {
			s.Close()
			return err
		}
	}
	h.boots++
	h.mu.Lock()
	h.stack = s
	h.mu.Unlock()
	return nil
}

// plug attaches a stack to a link. Net.mu is held.
func (h *Host) plug(s *bsdnet.Stack, c *nic) error {
	port, err := c.sw.NewPort(netem.PortConfig{Name: c.name, Addrs: c.addrs})
	if err != nil {
		return err
	}
	port.Script(netem.Write, c.sends)
	port.Script(netem.Read, c.receives)
	port.Gate(c.arrives)
	if err := s.Attach(port, c.addrs...); err != nil {
		return err
	}
	c.port = port
	if c.link.main == c {
		c.link.restore()
	}
	h.n.stale = true
	return nil
}

// shut closes the stack.
func (h *Host) shut() {
	h.mu.Lock()
	s := h.stack
	h.stack = nil
	h.mu.Unlock()
	if s != nil {
		s.Close()
	}
	h.client.CloseIdleConnections()
}

// Crash ends the host without a word, as a power failure does: the other hosts get neither a FIN
// nor a reset, and what they send from now on is lost. What the host has sent before still arrives.
// On the host itself, calls that wait return net.ErrClosed, as do later calls on its listeners and
// connections: the goroutines that play the host's programs should end then. Crash does nothing if
// the host has crashed already.
func (h *Host) Crash() {
	if h.Stack() == nil {
		return
	}
	h.n.apply(func() { h.down = true })
	h.n.events.note("%s crashes", h.name)
	h.shut()
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	for _, c := range h.nics {
		c.port = nil
	}
}

// Restart gives a host that has crashed a new stack with the same addresses and links, and without
// listeners and connections. To segments of connections from before the crash it answers with a
// reset. Start the host's programs again after Restart. Restart does nothing if the host has not
// crashed.
func (h *Host) Restart() {
	h.n.t.Helper()
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.mu.Lock()
	up := h.stack != nil
	h.mu.Unlock()
	if up || h.n.closed {
		return
	}
	h.n.apply(func() { h.down = false })
	if err := h.boot(); err != nil {
		h.n.t.Errorf("simnet: restart of %s: %v", h.name, err)
		return
	}
	h.n.events.note("%s restarts", h.name)
}

// Cut disconnects the host: all packets that it sends, or that would arrive at it, are lost until
// Heal. Its loopback goes on working.
func (h *Host) Cut() {
	h.n.apply(func() { h.severed = true })
	h.n.events.note("%s is cut off", h.name)
}

// Heal ends the effect of [Host.Cut].
func (h *Host) Heal() {
	h.n.apply(func() { h.severed = false })
	h.n.events.note("%s is connected again", h.name)
}
