package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
)

// TUNConfig configures a TUN device. The zero value makes a new device with a name of the kernel's choice.
type TUNConfig struct {
	// Name is the device's name, of up to 15 bytes. A device that is there, and that nobody has open, is opened, else one is made, which lasts as
	// long as it is open. A %d stands for the first free number. "": tun%d.
	Name string

	// MTU is the largest IP packet in bytes, 68 to 65535; the device is set to it. 0: the device's, 1500 for a new one.
	MTU int

	// Queues is how many queues the device has, 1 to 64, each with a goroutine that reads it; a flow stays on one. 0: 1.
	Queues int

	// NoOffload carries segments and checksums as on a wire: the kernel cuts and sums what it sends.
	NoOffload bool

	// File is an open device, one queue of it, to be used instead of Name: from a parent process, a container's runtime or a phone's VPN
	// service. The TUN has a descriptor of its own, so File may be closed. A socket that keeps packets apart, such as one of a socketpair of
	// type SOCK_DGRAM, will do: it carries a plain IP packet a read and write.
	File *os.File

	// Host is the kernel's address on the device, with the length of its network: it is set, and the device brought up. The zero Prefix leaves
	// both to others, such as ip-address(8) and ip-link(8). IPv4 only.
	Host netip.Prefix
}

// maxQueues is what a configuration may ask for; Linux itself allows 256.
const maxQueues = 64

func (c *TUNConfig) check() error {
	switch {
	case c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxPacket):
		return fmt.Errorf("link: tun: MTU %d is not within %d..%d", c.MTU, minMTU, maxPacket)
	case c.Queues < 0 || c.Queues > maxQueues:
		return fmt.Errorf("link: tun: Queues %d is not within 1..%d", c.Queues, maxQueues)
	case c.File != nil && c.Queues > 1:
		return errors.New("link: tun: File is one queue; for several, give Name instead")
	case c.File != nil && c.Name != "":
		return errors.New("link: tun: give Name or File, not both")
	case len(c.Name) > 15:
		return fmt.Errorf("link: tun: Name %q is longer than the 15 bytes of a device's name", c.Name)
	case c.Host != netip.Prefix{} && !(c.Host.IsValid() && c.Host.Addr().Is4()):
		return fmt.Errorf("link: tun: Host %v is not an IPv4 address with the length of its network", c.Host)
	}
	return nil
}
