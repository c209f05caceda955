package link

import (
	"fmt"
	"net/netip"
	"syscall"

	"bsdnet/internal/kern/wire"
)

// CheckHost returns an error if a host cannot have the address of p in p's network (RFC 1122,
// 3.2.1.3; RFC 4291, 2.5 and 2.7), because no packet would ever arrive there. The error wraps
// syscall.EADDRNOTAVAIL and says which addresses a host can have.
func CheckHost(p netip.Prefix) error {
	a := p.Addr()
	if !a.Is4() {
		return checkHost6(a)
	}
	why := ""
	switch first, last := p.Masked().Addr(), wire.LastAddr(p); {
	case a.IsUnspecified():
		why = "no address of a host; give one such as 10.0.0.1/24 (use AddRoute for the default route, 0.0.0.0/0)"
	case a.IsLoopback():
		why = "an address of the loopback, which no packet on a link may have; give one such as 10.0.0.1/24"
	case a.IsMulticast():
		why = "a multicast address; give the host's own, such as 10.0.0.1/24"
	case a == wire.LimitedBroadcast:
		why = "the broadcast address; give the host's own, such as 10.0.0.1/24"
	case a.As4()[0] >= 240:
		why = "an address of the reserved 240.0.0.0/4, which hosts drop; give one such as 10.0.0.1/24"
	case p.Bits() >= 31: // a network of one or two addresses has neither of the following (RFC 3021)
		return nil
	case a == first:
		why = fmt.Sprintf("the address of the network %v itself; its hosts have %v to %v", p, first.Next(), last.Prev())
	case a == last:
		why = fmt.Sprintf("the broadcast address of the network %v; its hosts have %v to %v",
			p.Masked(), first.Next(), last.Prev())
	default:
		return nil
	}
	return fmt.Errorf("%w: %v is %s", syscall.EADDRNOTAVAIL, a, why)
}

// checkHost6 is CheckHost for IPv6, which has neither broadcast addresses nor addresses of networks
// that no host can have.
func checkHost6(a netip.Addr) error {
	why := ""
	switch {
	case a.IsUnspecified():
		why = "no address of a host; give one such as 2001:db8::1/64 (use AddRoute for the default route, ::/0)"
	case a.IsLoopback():
		why = "the address of the loopback, which no packet on a link may have; give one such as 2001:db8::1/64"
	case a.IsMulticast():
		why = "a multicast address; give the host's own, such as 2001:db8::1/64"
	case a.Is4In6():
		why = fmt.Sprintf("an IPv4 address in the form of IPv6, which no packet has; give %v", a.Unmap())
	default:
		return nil
	}
	return fmt.Errorf("%w: %v is %s", syscall.EADDRNOTAVAIL, a, why)
}
