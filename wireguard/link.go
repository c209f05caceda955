package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"

	"bsdnet"
	"bsdnet/internal/link"
	"bsdnet/netem"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// A Link is an end of a WireGuard network: a [bsdnet.Link] for one stack. [Open] makes one.
type Link struct {
	pipe   *netem.Link    // the stack's end; the device has the other
	addrs  []netip.Prefix // the configuration's Addresses
	routes []netip.Prefix // the routes that AttachTo adds
	peers  []Key          // in the configuration's order
	allow  []allowed      // which peer has which addresses
	dns    bsdnet.DNSConfig

	dev      *device.Device
	label    string // the profiler's label of the device's goroutines
	tun      *pipeTUN
	up       chan struct{} // closed by Start
	written  atomic.Uint64 // how many packets the stack has written
	attached atomic.Bool
	state    link.State
}

var _ bsdnet.DiagnosingLink = (*Link)(nil)

// Open starts an end of a WireGuard network. It looks up the endpoints' names and listens on the
// UDP port. Packets flow once the link is attached. Open does not keep cfg.
//
// If cfg is invalid, Open returns an error that names the field. If the UDP port is in use, the
// error wraps syscall.EADDRINUSE. If setting FwMark needs CAP_NET_ADMIN, it wraps syscall.EPERM.
// Errors never contain secrets.
func Open(cfg *Config) (*Link, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	text, err := cfg.uapi()
	if err != nil {
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	a, b, err := netem.Pipe(netem.PipeConfig{MTU: cfg.mtu()})
	if err != nil {
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	l := &Link{pipe: a, label: newLabel(), up: make(chan struct{}), addrs: slices.Clone(cfg.Addresses)}
	l.dns, _ = cfg.resolver() // check has seen its error
	for i := range cfg.Peers {
		l.peers = append(l.peers, cfg.Peers[i].PublicKey)
		for _, p := range cfg.Peers[i].AllowedIPs {
			l.allow = append(l.allow, allowed{p.Masked(), cfg.Peers[i].PublicKey})
		}
		if !cfg.NoRoutes {
			l.routes = append(l.routes, cfg.Peers[i].AllowedIPs...)
		}
	}
	l.tun, err = newTUN(b, l.up)
	if err != nil {
		return nil, fmt.Errorf("wireguard: %w", err)
	}
	doLabelled(l.label, func() {
		l.dev = device.NewDevice(l.tun, conn.NewDefaultBind(), cfg.logger())
		if err = l.dev.IpcSet(text); err != nil {
			err = fmt.Errorf("wireguard: %w", err)
		} else if err = l.dev.Up(); err != nil {
			err = upError(cfg, err)
		}
	})
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// upError says what the system has refused. The device's error does not say whether it was the mark
// or the port.
func upError(cfg *Config, err error) error {
	if cfg.FwMark != 0 && errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("wireguard: FwMark: %w: this needs the capability CAP_NET_ADMIN; without it, "+
			"leave FwMark out", err)
	}
	return fmt.Errorf("wireguard: UDP port %d: %w", cfg.ListenPort, err)
}

// logger returns a logger for the device that passes its errors on.
func (c *Config) logger() *device.Logger {
	log := &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf}
	if to := c.Logger; to != nil {
		log.Errorf = func(format string, args ...any) { to.Error(fmt.Sprintf("wireguard: "+format, args...)) }
	}
	return log
}

// MTU implements [bsdnet.Link].
func (l *Link) MTU() int { return l.pipe.MTU() }

// Read implements [bsdnet.Link].
func (l *Link) Read(bufs [][]byte, sizes []int) (int, error) {
	if err := l.state.IOError("wireguard"); err != nil {
		return 0, err
	}
	return l.pipe.Read(bufs, sizes)
}

// Start implements [bsdnet.Link].
func (l *Link) Start(ready func()) error {
	if err := l.state.StartError("wireguard", ready); err != nil {
		return err
	}
	if err := l.pipe.Start(ready); err != nil {
		return err
	}
	close(l.up) // only once: the pipe's Start succeeds once
	if !l.state.CompareAndSwap(link.New, link.Started) {
		return net.ErrClosed // closed meanwhile
	}
	return nil
}

// Write implements [bsdnet.Link].
func (l *Link) Write(pkts []net.Buffers) (int, error) {
	if err := l.state.IOError("wireguard"); err != nil {
		return 0, err
	}
	n, err := l.pipe.Write(pkts)
	l.written.Add(uint64(n))
	return n, err
}

// Close implements [bsdnet.Link]. It closes the UDP sockets and returns when all goroutines of the
// link have ended. First it waits up to 100 ms until the last packets have been sent, such as the
// resets of a stack that closes. The peers do not learn of it: the protocol has no message for
// that.
func (l *Link) Close() error {
	if l.state.Swap(link.Closed) == link.Closed {
		return net.ErrClosed
	}
	if l.written.Load() > 0 {
		l.linger()
	}
	l.dev.Close()
	err := l.pipe.Close()
	return errors.Join(err, awaitLabelled(l.label))
}

// AttachTo attaches the link to stack as wg-quick would: with the configuration's Addresses and,
// unless NoRoutes is set, with routes to all AllowedIPs, among which 0.0.0.0/0 and ::/0 are the
// default routes. It leaves out the routes of a family in which there is no Address.
//
// If the stack has no name servers, AttachTo gives it those of the configuration's DNS, with the
// search domains; the stack's hosts stay. They also stay if the link is detached. A stack that has
// name servers keeps its own.
//
// If there is no Address, AttachTo returns an error. If the stack has one of the routes over
// another link, the error wraps syscall.EEXIST. After AttachTo the stack owns the link. If AttachTo
// returns an error, the link is closed, unless it was attached before.
func (l *Link) AttachTo(stack *bsdnet.Stack) error {
	if l.attached.Swap(true) {
		return errors.New("wireguard: the link is attached already; open another one")
	}
	if err := l.attachTo(stack); err != nil {
		l.Close()
		return fmt.Errorf("wireguard: %w", err)
	}
	return nil
}

func (l *Link) attachTo(stack *bsdnet.Stack) error {
	if len(l.addrs) == 0 {
		return errors.New("there is no Address; add one such as 10.0.0.1/24 or fd00::1/64")
	}
	if err := stack.Attach(l, l.addrs...); err != nil {
		return err
	}
	has, family := map[netip.Prefix]bool{}, map[bool]bool{}
	for _, a := range l.addrs {
		has[a.Masked()], family[a.Addr().Is4()] = true, true
	}
	for _, r := range l.routes {
		dst := r.Masked()
		if has[dst] || !family[dst.Addr().Is4()] {
			continue
		}
		has[dst] = true
		if err := stack.AddRoute(dst, l); err != nil {
			stack.Detach(l)
			return err
		}
	}
	if dns := stack.DNS(); len(dns.Servers) == 0 && len(l.dns.Servers) > 0 {
		dns.Servers, dns.Search = l.dns.Servers, append(dns.Search, l.dns.Search...)
		if err := stack.SetDNS(dns); err != nil {
			stack.Detach(l)
			return err
		}
	}
	return nil
}
