// Package tun connects a stack to the system's own TCP/IP over a TUN device, of which the stack is the other end: it is a host that the system sees in
// a network of its own.
//
//	dev, err := tun.Open(tun.Config{Host: netip.MustParsePrefix("10.0.0.1/24")}) // the system's address
//	err = stack.Attach(dev, netip.MustParsePrefix("10.0.0.2/24"))                // the stack's
//	ln, err := stack.Listen("tcp", ":80")                                        // curl http://10.0.0.2/
//
// There are drivers for Linux, macOS and Windows.
package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"bsdnet/internal/link"
)

// Config configures [Open]. The zero Config makes a new device with a name of the system's choice.
type Config struct {
	// Name is the device's name, at most 15 bytes. A device that is there, and that nobody has open, is opened; else one is made, which lasts
	// as long as it is open, and on Linux has a txqueuelen of 5000. On Linux %d stands for the first free number. "": tun%d; utun on macOS; bsdnet on Windows.
	Name string

	// MTU is the largest packet in bytes, 68 to 65535; the device is set to it. 0: the device's own, 1500 for a new one.
	MTU int

	// Queues is how many queues the device has, 1 to 64. Each is read by a goroutine of its own, and a connection stays on one. More than one: on
	// Linux only. A link that wraps this one has to pass on Queues, ReadQueue and WriteQueue. 0: 1.
	Queues int

	// NoOffload carries segments and checksums as on a wire. By default, where the system can do it, the kernel and the stack hand each other up to
	// 64 KiB at once, which nobody cuts or sums: several times as fast.
	NoOffload bool

	// File is an open device, one queue of it, to be used instead of Name: from a parent process, a container's runtime or a phone's VPN
	// service. The Link makes a descriptor of its own, so File may be closed. A socket that keeps packets apart (SOCK_DGRAM, SOCK_SEQPACKET) will do, with a
	// plain IP packet a read and write; anything else is syscall.EINVAL. On Linux only.
	File *os.File

	// Host is the kernel's address on the device, with the length of its network: "10.0.0.1/24". It is set, and the device brought up. The zero
	// Prefix leaves both to others: ip addr add, ip link set up. IPv4, on Linux only.
	Host netip.Prefix
}

// Open opens a TUN device, or makes one: on Linux with the kernel's offloads; on macOS, as root; on Windows, with wintun.dll. The addresses that the
// stack has on it are those that it is attached with, in the network of the system's.
//
// Making a device, or setting it up, takes CAP_NET_ADMIN in the network namespace: errors.Is finds syscall.EPERM, and the error says how to get it. It
// is syscall.EBUSY if somebody has the device open, syscall.EADDRNOTAVAIL if no host can have the address in Host, and errors.ErrUnsupported if there is
// no driver for this system.
func Open(c Config) (*Link, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return open(&c)
}

// maxQueues is what a configuration may ask for; Linux itself allows 256.
const maxQueues = 64

func (c *Config) check() error {
	switch {
	case c.MTU != 0 && (c.MTU < link.MinMTU || c.MTU > link.MaxPacket):
		return fmt.Errorf("tun: MTU %d is not within %d..%d", c.MTU, link.MinMTU, link.MaxPacket)
	case c.Queues < 0 || c.Queues > maxQueues:
		return fmt.Errorf("tun: Queues %d is not within 1..%d", c.Queues, maxQueues)
	case c.File != nil && c.Queues > 1:
		return errors.New("tun: File is one queue; for several, give Name instead")
	case c.File != nil && c.Name != "":
		return errors.New("tun: give Name or File, not both")
	case len(c.Name) > 15:
		return fmt.Errorf("tun: Name %q is longer than the 15 bytes of a device's name", c.Name)
	case c.Host != netip.Prefix{} && !(c.Host.IsValid() && c.Host.Addr().Is4()):
		return fmt.Errorf("tun: Host %v is not an IPv4 address with the length of its network", c.Host)
	}
	if c.Host.IsValid() {
		if err := link.CheckHost(c.Host); err != nil {
			return fmt.Errorf("tun: Host: %w", err)
		}
	}
	return nil
}
