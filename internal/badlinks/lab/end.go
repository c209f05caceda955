//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bsdnet"
	"bsdnet/internal/nstest"
	"bsdnet/netem"
	"bsdnet/tun"
)

// A Kind is the implementation of TCP at an end of a path.
type Kind int

// These are the kinds of ends.
const (
	Kernel Kind = iota // Linux, in a network namespace of its own
	BSD                // a bsdnet.Stack
)

// String returns "Linux" or "bsdnet".
func (k Kind) String() string {
	if k == Kernel {
		return "Linux"
	}
	return "bsdnet"
}

// These are the addresses of the two ends. They are the same in every cell, because the fate of a
// packet depends on its flow.
var (
	addrA = netip.MustParseAddrPort("10.9.0.1:40000")
	addrB = netip.MustParseAddrPort("10.9.0.2:5001")
)

// MTU is the MTU of both ends' links, in bytes.
const MTU = 1500

// An end is one end of a path.
type end struct {
	outside bsdnet.Link // the side of the device that a wire would be plugged into
	dial    func(ctx context.Context, from, to netip.AddrPort) (net.Conn, error)
	listen  func(at netip.AddrPort) (net.Listener, error)
	close   func() // ends everything except outside
}

func newEnd(k Kind, ip netip.Addr, c *Cell, seed byte) (*end, error) {
	if k == Kernel {
		return newKernel(ip, c)
	}
	return newBSD(ip, c, seed)
}

// newKernel makes a namespace with a device.
func newKernel(ip netip.Addr, c *Cell) (*end, error) {
	ns, err := nstest.Make()
	if err != nil {
		return nil, err
	}
	set := map[string]string{"net.ipv6.conf.default.disable_ipv6": "1"} // IPv6 would send packets of its own
	for name, value := range c.Path.Sysctls {
		set[name] = value
	}
	for name, value := range set {
		err := ns.Set(name, value)
		if strings.HasPrefix(name, "net.ipv6") && errors.Is(err, os.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			ns.Close()
			return nil, fmt.Errorf("sysctl %s=%s: %w", name, value, err)
		}
	}
	var dev *tun.Link
	err = ns.Do(func() (err error) {
		dev, err = tun.Open(tun.Config{MTU: MTU, NoOffload: true, Host: netip.PrefixFrom(ip, 24)})
		if err != nil {
			return err
		}
		return lengthenQueue(dev.Name())
	})
	if err != nil {
		if dev != nil {
			dev.Close()
		}
		ns.Close()
		return nil, err
	}
	return &end{
		outside: dev,
		dial: func(ctx context.Context, from, to netip.AddrPort) (conn net.Conn, err error) {
			err = ns.Do(func() error {
				d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: useCC(c.KernelCC)}
				conn, err = d.DialContext(ctx, "tcp", to.String())
				return err
			})
			return conn, err
		},
		listen: func(at netip.AddrPort) (net.Listener, error) { return ns.Listen("tcp", at.String()) },
		close:  ns.Close,
	}, nil
}

// useCC returns a function that sets a socket's congestion control. In a namespace, the sysctl of
// that name refuses one that tcp_allowed_congestion_control leaves out; root can set it by the
// socket option.
func useCC(name string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		if name == "" {
			return nil
		}
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
			err = os.NewSyscallError("setsockopt TCP_CONGESTION "+name, err)
		})
		return errors.Join(cerr, err)
	}
}

// lengthenQueue gives a device room for every window that the kernel may send. Packets are to be
// lost on the path, and not because the relay reads late. By default a TUN device holds 500
// packets.
func lengthenQueue(device string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	ifr.SetUint32(10000)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFTXQLEN, ifr); err != nil {
		return fmt.Errorf("set the length of %s's queue: %w", device, err)
	}
	return nil
}

// newBSD makes a stack on one end of a pipe.
func newBSD(ip netip.Addr, c *Cell, seed byte) (*end, error) {
	config := c.Config
	if config.Rand == nil {
		config.Rand = rand.NewChaCha8([32]byte{seed, byte(c.Seed), byte(c.Seed >> 8)})
	}
	inside, outside, err := netem.Pipe(netem.PipeConfig{MTU: MTU})
	if err != nil {
		return nil, err
	}
	s, err := bsdnet.New(config)
	if err != nil {
		return nil, errors.Join(err, inside.Close(), outside.Close())
	}
	if err := s.Attach(inside, netip.PrefixFrom(ip, 24)); err != nil {
		return nil, errors.Join(err, s.Close(), inside.Close(), outside.Close())
	}
	return &end{
		outside: outside,
		dial: func(ctx context.Context, from, to netip.AddrPort) (net.Conn, error) {
			d := bsdnet.Dialer{Stack: s, LocalAddr: net.TCPAddrFromAddrPort(from)}
			return d.DialContext(ctx, "tcp", to.String())
		},
		listen: func(at netip.AddrPort) (net.Listener, error) { return s.Listen("tcp", at.String()) },
		close:  func() { s.Close() },
	}, nil
}
