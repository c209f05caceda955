package bsdnet

import (
	"fmt"
	"net/netip"
	"os"

	"bsdnet/internal/kern"
	"bsdnet/internal/link"
)

// TUNConfig configures [OpenTUN]. The zero value makes a new device with a name of the system's choice.
type TUNConfig struct {
	// Name is the device's name, at most 15 bytes. A device that is there, and that nobody has open, is opened; else one is made, which lasts
	// as long as it is open, and on Linux has a txqueuelen of 5000. On Linux %d stands for the first free number. "": tun%d; utun on macOS; bsdnet on Windows.
	Name string

	// MTU is the largest packet in bytes, 68 to 65535; the device is set to it. 0: the device's own, 1500 for a new one.
	MTU int

	// Queues is how many queues the device has, 1 to 64. Each is read by a goroutine of its own, and a connection stays on one. More than one: on
	// Linux only. A Link that wraps the TUN has to pass on Queues, ReadQueue and WriteQueue. 0: 1.
	Queues int

	// NoOffload carries segments and checksums as on a wire. By default, where the system can do it, the kernel and the stack hand each other up to
	// 64 KiB at once, which nobody cuts or sums: several times as fast.
	NoOffload bool

	// File is an open device, one queue of it, to be used instead of Name: from a parent process, a container's runtime or a phone's VPN
	// service. The TUN makes a descriptor of its own, so File may be closed. A socket that keeps packets apart (SOCK_DGRAM, SOCK_SEQPACKET) will do, with a
	// plain IP packet a read and write; anything else is syscall.EINVAL. On Linux only.
	File *os.File

	// Host is the kernel's address on the device, with the length of its network: "10.0.0.1/24". It is set, and the device brought up. The zero
	// Prefix leaves both to others: ip addr add, ip link set up. IPv4, on Linux only.
	Host netip.Prefix
}

// A TUN is a TUN device as a [Link]: the stack is the host at the other end of it. On Linux it is an [OffloadLink] and a [QueueLink].
type TUN struct{ *link.TUN }

// OpenTUN opens a TUN device, or makes one: on Linux with the kernel's offloads; on macOS, as root; on Windows, with wintun.dll. The stack's address is
// that of [Stack.Attach], in the network of the kernel's:
//
//	tun, err := bsdnet.OpenTUN(bsdnet.TUNConfig{Host: netip.MustParsePrefix("10.0.0.1/24")})
//	err = stack.Attach(tun, netip.MustParsePrefix("10.0.0.2/24"))
//	ln, err := stack.Listen("tcp", ":80") // curl http://10.0.0.2/
//
// Making a device, or setting it up, takes CAP_NET_ADMIN in the network namespace: errors.Is finds syscall.EPERM, and the error says how to get it.
// syscall.EBUSY: somebody has the device open. errors.ErrUnsupported: there is no driver for this system.
func OpenTUN(c TUNConfig) (*TUN, error) {
	if c.Host.IsValid() {
		if err := kern.CheckHost(c.Host); err != nil {
			return nil, fmt.Errorf("bsdnet: tun: Host: %w", err)
		}
	}
	t, err := link.OpenTUN(link.TUNConfig(c))
	if err != nil {
		return nil, err
	}
	return &TUN{t}, nil
}
