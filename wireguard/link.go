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
	addrs  []netip.Prefix // the configuration's own IPv4 addresses
	routes []netip.Prefix // what its AllowedIPs ask for
	peers  []Key          // in its order
	allow  []allowed      // which peer has which addresses

	dev      *device.Device
	label    string // on the device's goroutines
	tun      *pipeTUN
	up       chan struct{} // closed by Start
	written  atomic.Uint64 // packets
	attached atomic.Bool
	state    link.State
}

var _ bsdnet.DiagnosingLink = (*Link)(nil)

// Open starts an end of a WireGuard network: it resolves the endpoints and listens on the UDP port. Packets flow from when the link is attached. cfg
// is not kept. The error says what is wrong with the configuration, or what the system refuses, and contains no secrets.
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
	l := &Link{pipe: a, label: newLabel(), up: make(chan struct{}), addrs: only4(cfg.Addresses)}
	for i := range cfg.Peers {
		l.peers = append(l.peers, cfg.Peers[i].PublicKey)
		for _, p := range cfg.Peers[i].AllowedIPs {
			l.allow = append(l.allow, allowed{p.Masked(), cfg.Peers[i].PublicKey})
		}
		if !cfg.NoRoutes {
			l.routes = append(l.routes, only4(cfg.Peers[i].AllowedIPs)...)
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

// upError says what the system has refused. The device tells the mark from the port only by the error.
func upError(cfg *Config, err error) error {
	if cfg.FwMark != 0 && errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("wireguard: FwMark: %w: it takes the capability CAP_NET_ADMIN; without it leave FwMark out", err)
	}
	return fmt.Errorf("wireguard: UDP port %d: %w", cfg.ListenPort, err)
}

// logger passes the device's errors on.
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
	close(l.up) // there is one Start of the pipe without an error
	if !l.state.CompareAndSwap(link.New, link.Started) {
		return net.ErrClosed // meanwhile
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

// Close ends the link and its UDP sockets, and returns when nothing of them runs any more. What was written last, such as the resets of a stack that
// closes, gets a moment to leave. Peers are not told; the protocol has no word for it.
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

// AttachTo attaches the link to stack as wg-quick would: with the configuration's addresses, and with routes to all AllowedIPs, 0.0.0.0/0 being the
// default route, unless there is NoRoutes. Only what is IPv4 counts. A route that the link has already is no error; one over another link is
// (syscall.EEXIST). The stack owns the link from then on; where AttachTo returns an error, the link has been closed.
func (l *Link) AttachTo(stack *bsdnet.Stack) error {
	if l.attached.Swap(true) {
		return errors.New("wireguard: the link is attached already")
	}
	if err := l.attachTo(stack); err != nil {
		l.Close()
		return fmt.Errorf("wireguard: %w", err)
	}
	return nil
}

func (l *Link) attachTo(stack *bsdnet.Stack) error {
	if len(l.addrs) == 0 {
		return errors.New("there is no IPv4 Address, and the stack has no IPv6; there should be one such as 10.0.0.1/24")
	}
	if err := stack.Attach(l, l.addrs...); err != nil {
		return err
	}
	has := map[netip.Prefix]bool{}
	for _, a := range l.addrs {
		has[a.Masked()] = true
	}
	for _, r := range l.routes {
		dst := r.Masked()
		if has[dst] {
			continue
		}
		has[dst] = true
		if err := stack.AddRoute(dst, l); err != nil {
			stack.Detach(l)
			return err
		}
	}
	return nil
}

// only4 returns the IPv4 ones of list.
func only4(list []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return !p.Addr().Is4() })
}
