package simnet

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"bsdnet"
	"bsdnet/internal/kern/wire"
)

// Reset resets all TCP connections between two hosts, as a firewall in between does that forgets
// them: both ends get a reset that seems to come from the other. Calls that wait return
// syscall.ECONNRESET. Listeners, and connections that have yet to be established, are not affected.
// Reset returns how many ends it has reset; each connection has two, unless one is gone already.
//
// The resets pass even if the link is cut, or the hosts are partitioned. Reset returns 2 ns later,
// so both ends have noticed then; do not call it with a mutex held that others want.
func (n *Net) Reset(a, b *Host) int {
	rest()
	count := a.resetWith(b) + b.resetWith(a)
	n.events.note("reset of %s and %s: %d ends", a.name, b.name, count)
	time.Sleep(settling)
	return count
}

// Reset is [Net.Reset] for the host and all others.
func (h *Host) Reset() int {
	rest()
	h.n.mu.Lock()
	hosts := h.n.hosts
	h.n.mu.Unlock()
	count := 0
	for _, o := range hosts {
		if o != h {
			count += h.resetWith(o) + o.resetWith(h)
		}
	}
	h.n.events.note("reset of %s: %d ends", h.name, count)
	time.Sleep(settling)
	return count
}

// settling is how long resets take to be noticed: a bubble comes to rest before the time passes.
const settling = 2 * time.Nanosecond

// rest waits for an even nanosecond, at which no packet arrives, so that the sequence numbers that
// a reset needs do not change.
func rest() {
	if time.Now().UnixNano()&1 == 1 {
		time.Sleep(1 * time.Nanosecond)
	}
}

// resetWith sends the host a reset for each connection with another.
func (h *Host) resetWith(o *Host) (count int) {
	s := h.Stack()
	if s == nil {
		return 0
	}
	h.n.mu.Lock()
	owners := map[netip.Addr]bool{}
	for _, c := range o.nics {
		for _, a := range c.addrs {
			owners[a.Addr()] = true
		}
	}
	nics := h.nics
	h.n.mu.Unlock()
	for _, c := range s.Conns() {
		if !owners[c.Remote.Addr().Unmap()] || !synchronized[c.State] {
			continue
		}
		for _, nc := range nics {
			has := func(a netip.Prefix) bool { return a.Addr() == c.Local.Addr().Unmap() }
			if nc.port != nil && slices.ContainsFunc(nc.addrs, has) && nc.port.Inject(reset(&c)) == nil {
				count++
			}
		}
	}
	return count
}

// synchronized are the states in which a connection has a peer that knows of it.
var synchronized = map[string]bool{
	"ESTABLISHED": true, "CLOSE_WAIT": true, "FIN_WAIT_1": true, "FIN_WAIT_2": true, "CLOSING": true, "LAST_ACK": true,
}

// reset returns an IP packet with the reset that a connection believes: RFC 9293, 3.10.7.4, "If the
// RST bit is set and the sequence number exactly matches the next expected sequence number
// (RCV.NXT), then TCP endpoints MUST reset the connection".
func reset(c *bsdnet.ConnInfo) []byte {
	src, dst := c.Remote.Addr().Unmap(), c.Local.Addr().Unmap()
	head := wire.IPv4MinLen
	if src.Is6() {
		head = ipv6HeaderLen
	}
	b := make([]byte, head+wire.TCPMinLen)
	th := wire.TCP{
		Sport: c.Remote.Port(), Dport: c.Local.Port(), Seq: wire.Seq(c.RecvNext), Ack: wire.Seq(c.SendNext),
		Flags: wire.RST | wire.ACK,
	}
	th.Put(b[head:])
	if src.Is4() {
		ip := wire.IPv4{Src: src, Dst: dst, Len: len(b), TTL: 64, Proto: wire.ProtoTCP}
		ip.Put(b)
	} else {
		b[0], b[6], b[7] = 0x60, wire.ProtoTCP, 64 // RFC 8200, 3
		binary.BigEndian.PutUint16(b[4:], wire.TCPMinLen)
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
	}
	sum := wire.Sum(b[head:], wire.PseudoSum(src, dst, wire.ProtoTCP, wire.TCPMinLen))
	binary.BigEndian.PutUint16(b[head+wire.TCPSumOff:], ^wire.Fold(sum))
	return b
}

const ipv6HeaderLen = 40
