package kern

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link"
)

// The methods of a link are declared in package link: those of bsdnet.Link, OffloadLink and
// QueueLink, whose comments are the contract.
type (
	// Link is bsdnet.Link.
	Link = link.Link

	offloader   = link.OffloadLink
	usoLink     = link.UDPOffloadLink
	multiqueuer = link.QueueLink
)

// An Ifnet is a network interface: BSD's struct ifnet.
type Ifnet struct {
	k        *Kernel
	Name     string
	index    uint16 // from 1 on, never used again: if_index
	mtu      int
	loopback bool
	prefixes []netip.Prefix // addresses with their networks; constant
	link     Link           // nil: the loopback
	mq       multiqueuer    // the link, if it has several queues
	vnet     bool           // its packets begin with a virtio-net header
	uso      bool           // so does the link cut chains of UDP
	queues   []ifqueue      // one, or several by flow
	down     atomic.Bool
	readers  sync.WaitGroup // the receive goroutines
	lastErr  atomic.Pointer[error]
	tap      atomic.Pointer[bpf]
	multi    inMulti
	Stats    IfStats
}

// IfStats are an interface's counters: struct if_data. The queues of the loopback count its
// packets, under the locks that they hold anyway: see Counts.
type IfStats struct {
	Ipackets, Opackets, Ibytes, Obytes, Odrops, Ierrors, Oerrors atomic.Uint64
}

// IfCounts are the values of an interface's counters.
type IfCounts struct {
	Ipackets, Opackets uint64 // a packet that a link with offloads takes or brings whole counts once
	Ibytes, Obytes     uint64 // bytes of IP packets
	Odrops             uint64 // packets that found no room on the queue, or the interface down
	Ierrors, Oerrors   uint64 // input that is no packet; packets lost with the link
	Bpfrecv, Bpfdrop   uint64 // the capture's: packets taken, and dropped because its writer took too little
}

// Counts returns the interface's counters.
func (ifp *Ifnet) Counts() IfCounts {
	s := &ifp.Stats
	c := IfCounts{
		Ipackets: s.Ipackets.Load(), Opackets: s.Opackets.Load(), Ibytes: s.Ibytes.Load(), Obytes: s.Obytes.Load(),
		Odrops: s.Odrops.Load(), Ierrors: s.Ierrors.Load(), Oerrors: s.Oerrors.Load(),
	}
	c.Bpfrecv, c.Bpfdrop = ifp.bpfCounts()
	if ifp.loopback {
		for i := range ifp.queues {
			q := &ifp.queues[i]
			q.mu.Lock()
			c.Opackets += q.packets
			c.Obytes += q.sent
			q.mu.Unlock()
		}
		c.Ipackets, c.Ibytes = c.Opackets, c.Obytes
	}
	return c
}

// Link returns the interface's link; nil for the loopback.
func (ifp *Ifnet) Link() Link { return ifp.link }

// Up reports whether the interface works: its link has been neither closed nor ended by an error.
func (ifp *Ifnet) Up() bool { return !ifp.down.Load() }

// MTU returns the length of the largest packet, in bytes.
func (ifp *Ifnet) MTU() int { return ifp.mtu }

// Prefixes returns the interface's addresses.
func (ifp *Ifnet) Prefixes() []netip.Prefix { return ifp.prefixes }

// Err returns the error that has ended the link's Read, or nil.
func (ifp *Ifnet) Err() error {
	if p := ifp.lastErr.Load(); p != nil {
		return *p
	}
	return nil
}

// owns reports whether a is one of the interface's addresses. The loopback has all addresses of its
// prefixes (RFC 1122, 3.2.1.3). If a has a zone, it must be this interface.
func (ifp *Ifnet) owns(a netip.Addr) bool {
	if z := a.Zone(); z != "" {
		if z != ifp.Name {
			return false
		}
		a = a.WithZone("")
	}
	for _, p := range ifp.prefixes {
		if p.Addr() == a || ifp.loopback && p.Contains(a) {
			return true
		}
	}
	return false
}

// addrFor returns the interface's address for packets to dst, not valid if it has none: of IPv4 one
// in the network of dst, or else the first; of IPv6 what in6Selectsrc chooses.
func (ifp *Ifnet) addrFor(dst netip.Addr) netip.Addr {
	var first netip.Addr
	if dst.Is6() {
		return ifp.in6Selectsrc(dst)
	}
	for _, p := range ifp.prefixes {
		if p.Contains(dst) {
			return p.Addr()
		}
		if !first.IsValid() && p.Addr().Is4() {
			first = p.Addr()
		}
	}
	return first
}

// broadcast reports whether a is a broadcast address of the interface's networks, or the limited
// one: BSD's in_broadcast.
func (ifp *Ifnet) broadcast(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	if a == wire.LimitedBroadcast {
		return true
	}
	if ifp.loopback {
		return false
	}
	for _, p := range ifp.prefixes {
		if p.Addr().Is4() && p.Bits() < 31 && p.Contains(a) && (a == wire.LastAddr(p) || a == p.Masked().Addr()) {
			return true
		}
	}
	return false
}

// MinMTU is the smallest MTU of a link (RFC 791).
const MinMTU = 68

// maxQueues is how many queues a link may have, as each costs a goroutine and the buffers that it
// reads into. Linux allows a TUN device 256.
const maxQueues = 256

// Attach makes an interface of a link, with addresses and a route to each of their networks: BSD's
// if_attach and in_ifinit.
func (k *Kernel) Attach(name string, link Link, prefixes []netip.Prefix) (*Ifnet, error) {
	mtu := link.MTU()
	if mtu < MinMTU || mtu > 65535 {
		return nil, fmt.Errorf("bsdnet: attach %s: the link's MTU of %d is not between %d and 65535", name, mtu, MinMTU)
	}
	ifp := &Ifnet{k: k, Name: name, mtu: mtu, link: link, prefixes: prefixes, queues: make([]ifqueue, 1)}
	if mq, ok := link.(multiqueuer); ok {
		switch n := mq.Queues(); {
		case n > maxQueues:
			return nil, fmt.Errorf(
				"bsdnet: attach %s: the link's Queues returns %d; a link has at most %d", name, n, maxQueues)
		case n > 1:
			ifp.mq, ifp.queues = mq, make([]ifqueue, n)
		}
	}
	k.ifMu.Lock()
	err := k.checkIf(ifp)
	k.ifMu.Unlock()
	if err != nil {
		return nil, err // the link has not been asked for offloads yet, which it could not take back
	}
	if o, ok := link.(offloader); ok {
		ifp.vnet = o.Offload()
	}
	if o, ok := link.(usoLink); ok && ifp.vnet {
		ifp.uso = o.OffloadUDP()
	}
	for i := range ifp.queues {
		ifp.queues[i].init(ifp, i)
	}
	if err := k.addIf(ifp); err != nil {
		return nil, err
	}
	if err := link.Start(ifp.ready); err != nil {
		k.dropIf(ifp)
		return nil, fmt.Errorf("bsdnet: attach %s: %w", name, err)
	}
	for i := range ifp.queues {
		ifp.readers.Add(1)
		if !k.goWorker(func() { ifp.receive(&ifp.queues[i]) }) {
			ifp.readers.Done()
			k.dropIf(ifp)
			link.Close()
			return nil, net.ErrClosed
		}
	}
	return ifp, nil
}

// addIf enters an interface and its routes.
func (k *Kernel) addIf(ifp *Ifnet) error {
	k.ifMu.Lock()
	defer k.ifMu.Unlock()
	if err := k.checkIf(ifp); err != nil {
		return err
	}
	for _, p := range ifp.prefixes {
		k.routes.rtadd(rtentry{dst: p, ifp: ifp, src: p.Addr()}) // the first of a network gets the route
	}
	k.ifNum++
	ifp.index = k.ifNum
	ifs := append(slices.Clone(*k.ifs.Load()), ifp)
	k.ifs.Store(&ifs)
	k.rtgen.Add(1)
	return nil
}

// checkIf returns an error that says why an interface cannot be entered. ifMu is held.
func (k *Kernel) checkIf(ifp *Ifnet) error {
	for _, p := range ifp.prefixes {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return fmt.Errorf(
				"bsdnet: attach %s: %v is not an address with its prefix length, such as 10.0.0.1/24", ifp.Name, p)
		}
		if !ifp.loopback {
			if err := link.CheckHost(p); err != nil {
				return fmt.Errorf("bsdnet: attach %s: %w", ifp.Name, err)
			}
		}
		if p.Addr().Is6() && ifp.mtu < wire.IPv6MinMTU {
			return fmt.Errorf(
				"bsdnet: attach %s: %w: %v: IPv6 needs an MTU of at least %d bytes (RFC 8200, 5), and the link's is %d",
				ifp.Name, syscall.EINVAL, p, wire.IPv6MinMTU, ifp.mtu)
		}
		// Each link may have the same link-local address (RFC 4007, 6).
		if other := k.ifaWithAddr(p.Addr()); other != nil && !needsZone(p.Addr()) {
			return fmt.Errorf(
				"bsdnet: attach %s: %w: %v belongs to %s", ifp.Name, syscall.EADDRINUSE, p.Addr(), other.Name)
		}
	}
	if k.ifByName(ifp.Name) != nil {
		return fmt.Errorf("bsdnet: attach %s: %w: there is an interface of that name", ifp.Name, syscall.EEXIST)
	}
	return nil
}

func (k *Kernel) dropIf(ifp *Ifnet) {
	k.ifMu.Lock()
	defer k.ifMu.Unlock()
	k.routes.rtdelif(ifp)
	var ifs []*Ifnet
	for _, o := range *k.ifs.Load() {
		if o != ifp {
			ifs = append(ifs, o)
		}
	}
	k.ifs.Store(&ifs)
	k.rtgen.Add(1)
}

// ifByIndex returns the interface with an index, or nil: BSD's ifnet_byindex.
func (k *Kernel) ifByIndex(i uint16) *Ifnet {
	for _, ifp := range *k.ifs.Load() {
		if ifp.index == i {
			return ifp
		}
	}
	return nil
}

// Detach takes an interface off the stack, closes its link and waits for its goroutines.
func (k *Kernel) Detach(ifp *Ifnet) error {
	k.dropIf(ifp)
	err := ifp.detach()
	ifp.readers.Wait()
	ifp.purge()
	return err
}

// AddRoute sends packets for dst out of ifp.
func (k *Kernel) AddRoute(dst netip.Prefix, ifp *Ifnet) error {
	if err := checkRoute(dst); err != nil {
		return err
	}
	k.ifMu.Lock()
	defer k.ifMu.Unlock()
	if !slices.Contains(*k.ifs.Load(), ifp) {
		return fmt.Errorf("bsdnet: route to %v: %w: %s has been detached", dst, syscall.ENXIO, ifp.Name)
	}
	if err := k.routes.rtadd(rtentry{dst: dst, ifp: ifp}); err != nil {
		return fmt.Errorf("bsdnet: route to %v: %w", dst, err)
	}
	k.rtgen.Add(1)
	return nil
}

// DelRoute removes the route to dst out of ifp.
func (k *Kernel) DelRoute(dst netip.Prefix, ifp *Ifnet) error {
	if err := checkRoute(dst); err != nil {
		return err
	}
	k.ifMu.Lock()
	defer k.ifMu.Unlock()
	if err := k.routes.rtdelete(dst, ifp); err != nil {
		return fmt.Errorf("bsdnet: route to %v over %s: %w", dst, ifp.Name, err)
	}
	k.rtgen.Add(1)
	return nil
}

// checkRoute returns an error that says why there can be no route to dst.
func checkRoute(dst netip.Prefix) error {
	if !dst.IsValid() {
		return fmt.Errorf("bsdnet: route: %w: not a valid prefix, such as 10.0.0.0/24", syscall.EINVAL)
	}
	if dst.Addr().Is4In6() {
		return fmt.Errorf("bsdnet: route to %v: %w: give an IPv4 prefix as one, such as 10.0.0.0/24",
			dst, syscall.EINVAL)
	}
	return nil
}

// A Route is a line of "netstat -r".
type Route struct {
	Dst netip.Prefix
	Ifp *Ifnet
	Src netip.Addr // the source address of packets; not valid: there is none, and the route is not used
}

// Routes returns all routes, sorted by family, by address and then by length; the routes to one
// prefix are in the order of their use.
func (k *Kernel) Routes() []Route {
	list := k.routes.list()
	routes := make([]Route, len(list))
	for i, e := range list {
		src := e.src
		if !src.IsValid() || src.Is6() {
			src = e.ifp.addrFor(e.dst.Addr())
		}
		routes[i] = Route{Dst: e.dst, Ifp: e.ifp, Src: src}
	}
	return routes
}

// ifByName returns the interface of a name, or nil: BSD's ifunit.
func (k *Kernel) ifByName(name string) *Ifnet {
	for _, ifp := range *k.ifs.Load() {
		if ifp.Name == name {
			return ifp
		}
	}
	return nil
}

// Ifs returns the interfaces.
func (k *Kernel) Ifs() []*Ifnet { return *k.ifs.Load() }

// Lo0 returns the loopback, or nil.
func (k *Kernel) Lo0() *Ifnet { return k.lo0 }

func (ifp *Ifnet) detach() error {
	ifp.down.Store(true)
	if ifp.link == nil {
		return nil
	}
	return ifp.link.Close()
}

// flushTime is how long a link that is full, or a goroutine that is sending, may hold up the last
// packets of a stack that closes.
const flushTime = 100 * time.Millisecond

// flush sends the packets that the queues hold.
func (ifp *Ifnet) flush() {
	if ifp.link == nil {
		return
	}
	for end := ifp.k.now() + int64(flushTime); ; time.Sleep(time.Millisecond) {
		left := false
		for i := range ifp.queues {
			q := &ifp.queues[i]
			q.drain(1<<30, false)
			q.mu.Lock()
			left = left || q.n > 0 || q.draining
			q.mu.Unlock()
		}
		if !left || ifp.k.now() >= end {
			return
		}
	}
}

// purge frees the packets that the queues hold.
func (ifp *Ifnet) purge() {
	for i := range ifp.queues {
		ifp.queues[i].purge()
	}
}

// ready schedules a drain. A link calls it when it has room again.
func (ifp *Ifnet) ready() {
	for i := range ifp.queues {
		q := &ifp.queues[i]
		q.mu.Lock()
		q.oactive = false
		work := q.n > 0 && !q.draining
		q.mu.Unlock()
		if work {
			q.background()
		}
	}
}

// Inject processes one packet as if it had arrived on the interface. When Inject returns, all that
// follows from the packet has been done. Tests use it in place of a link.
func (ifp *Ifnet) Inject(pkt []byte) {
	m := ifp.k.pool.Getcl(len(pkt))
	if m.Append(pkt) < len(pkt) {
		mbuf.Free(m)
		return
	}
	m.Pkt.Len, m.Pkt.Arrived = len(pkt), ifp.k.now()
	ifp.bpfMtap(m)
	ifp.k.ipintr(ifp, m)
	ifp.k.ipForwardStart()
}

// output puts a packet on the queue of its flow. The caller starts the drainer once it has left all
// locks. so is the socket that is charged, or nil.
func (ifp *Ifnet) output(m *mbuf.Mbuf, so *Socket) (*ifqueue, syscall.Errno) {
	if ifp.loopback {
		return ifp.looutput(m, so)
	}
	q := &ifp.queues[m.Pkt.Flow%uint32(len(ifp.queues))]
	return q, q.enqueue(m, so)
}
