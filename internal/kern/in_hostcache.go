package kern

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bsdnet/internal/kern/wire"
)

// A hostcache holds what has been learned of paths: FreeBSD's tcp_hostcache, for protocols without
// connections. TCP's machines know their paths' MTUs themselves.
type hostcache struct {
	n  atomic.Int32 // entries, so that those who look need no lock while there are none
	mu sync.Mutex   // a leaf
	m  map[in6Addr]hcMetrics
}

type hcMetrics struct {
	mtu    int
	expire int64
}

// hcMax bounds the entries. An attacker can add one for each address that a socket sends to.
const hcMax = 1024

// hcExpire is how long an MTU is believed. RFC 1191, 6.3: "we recommend [...] 10 minutes".
const hcExpire = int64(10 * time.Minute)

// lookup returns the MTU of the path to an address, and until when it holds; 0 if none is known.
func (hc *hostcache) lookup(dst in6Addr, now int64) (mtu int, expire int64) {
	if hc.n.Load() == 0 {
		return 0, 0
	}
	hc.mu.Lock()
	defer hc.mu.Unlock()
	e, ok := hc.m[dst]
	if !ok || now >= e.expire {
		return 0, 0
	}
	return e.mtu, e.expire
}

// update notes a smaller MTU. It reports false if a smaller one, or this one, is known already.
func (hc *hostcache) update(dst in6Addr, mtu int, now int64) bool {
	hc.mu.Lock()
	defer hc.mu.Unlock()
	if e, ok := hc.m[dst]; ok && now < e.expire && e.mtu <= mtu {
		return false
	}
	if hc.m == nil {
		hc.m = map[in6Addr]hcMetrics{}
	}
	if len(hc.m) >= hcMax {
		for a, e := range hc.m { // any that has expired, or else any
			delete(hc.m, a)
			if now < e.expire {
				break
			}
		}
	}
	hc.m[dst] = hcMetrics{mtu, now + hcExpire}
	hc.n.Store(int32(len(hc.m)))
	return true
}

// udpMtudisc takes the MTU of a path from a router, if a socket may have sent the datagram that the
// message quotes, and the datagram was longer: RFC 1191 and RFC 8201, with the checks of RFC 5927,
// 7, as far as UDP has them. A connected socket that has IP_DONTFRAG gets EMSGSIZE, as on Linux.
func (k *Kernel) udpMtudisc(e *icmpError) {
	inp := k.udpLookup(&e.t)
	if inp == nil {
		return
	}
	iphlen, least := wire.IPv4MinLen, minPMTU
	if !e.t.faddr.is4() {
		iphlen, least = wire.IPv6Len, wire.IPv6MinMTU
	}
	size := int(binary.BigEndian.Uint16(e.quote[4:])) + iphlen // of the datagram, if it was not a chain
	mtu := e.mtu
	if mtu < 0 {
		for _, p := range pmtuPlateaus {
			if p < size {
				mtu = p
				break
			}
		}
	}
	if mtu = max(mtu, least); mtu >= size {
		return
	}
	if k.hostcache.update(e.t.faddr, mtu, k.now()) {
		k.rtgen.Add(1) // so that all senders look again
	}
	so := inp.so
	so.lock()
	if !so.dead && so.dg.opts&dgDontfrag != 0 && inp.tuple == e.t {
		so.dgerror(syscall.EMSGSIZE)
	}
	so.unlock()
}
