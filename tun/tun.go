// Package tun connects a stack to the operating system's own TCP/IP over a TUN device. The system
// sees the stack as another host, in a network that the device leads to.
//
//	// The system's addresses are 10.0.0.1 and fd00::1, and the stack's are 10.0.0.2 and fd00::2.
//	dev, err := tun.Open(tun.Config{
//		Host: netip.MustParsePrefix("10.0.0.1/24"), Host6: netip.MustParsePrefix("fd00::1/64"),
//	})
//	err = stack.Attach(dev, netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64"))
//	ln, err := stack.Listen("tcp", ":80") // curl http://10.0.0.2/ or http://[fd00::2]/
//
// There are drivers for Linux, macOS and Windows.
package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link"
)

// Config configures [Open]. The zero Config makes a new device whose name the system chooses.
type Config struct {
	// Name is the device's name, at most 15 bytes long. If there is a device of that name that no
	// program has open, Open opens it. Otherwise Open makes one, which exists until the Link is
	// closed; on Linux its txqueuelen is 5000. On Linux %d in a name stands for the first free
	// number. If Name is empty, it is tun%d on Linux, utun on macOS, and bsdnet on Windows.
	Name string

	// MTU is the size of the largest packet in bytes, from 68 to 65535; IPv6 needs 1280. Open sets
	// the device's MTU to it. If it is 0, the device's own MTU is used, which is 1500 for a new
	// device.
	MTU int

	// Queues is the number of the device's queues, from 1 to 64; more than 1 needs Linux. If it is
	// 0, it is 1. The stack reads each queue on its own goroutine, and the packets of one
	// connection stay on one queue. A link that wraps this one must implement bsdnet.QueueLink too.
	Queues int

	// NoOffload makes the device carry single packets with their checksums, as a wire does. By
	// default, if the system supports it, the kernel and the stack exchange up to 64 KiB at once
	// without cutting them into packets or computing checksums, which is several times as fast.
	NoOffload bool

	// File is the descriptor of an open device, with one queue, to be used instead of Name. It may
	// come from a parent process, a container's runtime or a phone's VPN service. The Link
	// duplicates the descriptor, so File may be closed. File may also be a socket that keeps
	// packets apart (SOCK_DGRAM or SOCK_SEQPACKET) and carries one plain IP packet per read and
	// write. If it is anything else, Open's error wraps syscall.EINVAL. File needs Linux.
	File *os.File

	// Host is the kernel's IPv4 address on the device, with the prefix length of its network, such
	// as 10.0.0.1/24. Open sets the address and brings the device up. If Host is the zero Prefix,
	// Open does not set it: use ip addr add and ip link set up. Host needs Linux.
	Host netip.Prefix

	// Host6 is the kernel's IPv6 address on the device, with the prefix length of its network, such
	// as fd00::1/64. It works as Host does, and both may be set. The address can be used at once,
	// because Open makes the kernel leave out duplicate address detection.
	Host6 netip.Prefix
}

// Open opens a TUN device, or makes one. On Linux it uses the kernel's offloads (see NoOffload). On
// macOS it needs root, and on Windows wintun.dll and an elevated process. The stack's addresses on
// the device are those that are given to Attach; they should be in the network of the system's
// address on the device.
//
// If the program may not make or configure the device, the error wraps syscall.EPERM or
// syscall.EACCES; on Linux that takes CAP_NET_ADMIN in the network namespace, and the error says
// how to get it. If another program has the device open, the error wraps syscall.EBUSY. If no host
// can have the address in Host or Host6, it wraps syscall.EADDRNOTAVAIL. If there is no driver for
// the system, it wraps errors.ErrUnsupported.
func Open(c Config) (*Link, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return open(&c)
}

// maxQueues is the largest number of queues in a Config. Linux itself allows 256.
const maxQueues = 64

func (c *Config) check() error {
	switch {
	case c.MTU != 0 && (c.MTU < link.MinMTU || c.MTU > link.MaxPacket):
		return fmt.Errorf("tun: MTU %d is not within %d..%d", c.MTU, link.MinMTU, link.MaxPacket)
	case c.Queues < 0 || c.Queues > maxQueues:
		return fmt.Errorf("tun: Queues %d is not within 1..%d", c.Queues, maxQueues)
	case c.File != nil && c.Queues > 1:
		return errors.New("tun: File is one queue; for several Queues, give Name instead of File")
	case c.File != nil && c.Name != "":
		return errors.New("tun: give Name or File, not both")
	case len(c.Name) > 15:
		return fmt.Errorf("tun: Name %q is longer than the 15 bytes of a device's name", c.Name)
	case c.Host != netip.Prefix{} && !(c.Host.IsValid() && c.Host.Addr().Is4()):
		return fmt.Errorf("tun: Host %v is not an IPv4 address with the length of its network", c.Host)
	case c.Host6 != netip.Prefix{} && !(c.Host6.IsValid() && c.Host6.Addr().Is6() && !c.Host6.Addr().Is4In6()):
		return fmt.Errorf("tun: Host6 %v is not an IPv6 address with the length of its network", c.Host6)
	case c.Host6.IsValid() && c.MTU != 0 && c.MTU < wire.IPv6MinMTU:
		return fmt.Errorf("tun: Host6 %v needs an MTU of at least %d (RFC 8200, 5), and MTU is %d",
			c.Host6, wire.IPv6MinMTU, c.MTU)
	}
	if c.Host.IsValid() {
		if err := link.CheckHost(c.Host); err != nil {
			return fmt.Errorf("tun: Host: %w", err)
		}
	}
	if c.Host6.IsValid() {
		if err := link.CheckHost(c.Host6); err != nil {
			return fmt.Errorf("tun: Host6: %w", err)
		}
	}
	return nil
}
