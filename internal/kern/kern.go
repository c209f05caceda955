package kern

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
)

// Config is what a Kernel is made from. The zero Config is good.
type Config struct {
	Profile     *tcp.Profile // nil: tcp.Default(). The kernel keeps its own copy.
	Rand        io.Reader    // secrets are drawn from it once; nil: crypto/rand
	LoopbackMTU int          // bytes; 0: 65535, at which segments are never cut
	NoLoopback  bool         // no lo0
	Memory      int64        // bytes of buffers at most, 0: 1 GiB
	Somaxconn   int          // kern.ipc.somaxconn, 0: 4096
	Trace       func(*Trace) // is told what happens on connections, under their lock; nil: nobody is
}

// MaxWindow is the largest window of TCP, in bytes (RFC 7323, 2.3).
const MaxWindow = 65535 << 14

// Profile is [tcp.Profile], and Counter [tcp.Counter].
type (
	Profile = tcp.Profile
	Counter = tcp.Counter
)

// Bits of tcp.Info.Options.
const (
	OptTimestamps = tcp.OptTimestamps
	OptSACK       = tcp.OptSACK
	OptWscale     = tcp.OptWscale
	OptECN        = tcp.OptECN
)

// ProfileNamed returns a new profile of that name, "Default" (or "") "FreeBSD" or "Net3", nil where there is none.
func ProfileNamed(name string) *Profile {
	switch name {
	case "", "Default":
		return tcp.Default()
	case "FreeBSD":
		return tcp.FreeBSD()
	case "Net3":
		return tcp.Net3()
	}
	return nil
}

// A Kernel is one stack: what a BSD kernel's network part keeps in globals.
type Kernel struct {
	prof    tcp.Profile
	pool    mbuf.Pool
	drainAt atomic.Int64 // when tcpDrain next looks
	t0      time.Time
	parity  int64 // an instant is even on the clock of the day where it is as odd as this
	clock   clock
	seed    secrets
	tcpEnv  *tcp.Env
	trace   func(*Trace)

	somaxconn int
	memory    int64
	socketID  atomic.Uint32
	twMax     int
	icmpLimit limiter
	rstLimit  limiter
	ipIDs     [1024]atomic.Uint32 // counters of identifications, shared by destinations that a keyed hash brings together

	pcbs     pcbTable
	ports    portTable
	syncache syncache
	tw       twList
	reass    ipReass
	routes   rtable
	sockets  socketList

	ifMu sync.Mutex
	ifs  atomic.Pointer[[]*Ifnet] // copy on write
	lo0  *Ifnet

	// Stats are the counters of netstat -s.
	Stats struct {
		TCP  tcp.Stats
		IP   IPStats
		ICMP ICMPStats
	}

	workers sync.WaitGroup // goroutines of the stack
	closed  atomic.Bool
	closeMu sync.Mutex

	closeOnce sync.Once

	// chain, where a test has set it, is called at places that the book's call trees end in.
	chain func(at string)
}

// chainAt tells the chain test, where one runs, that a function of the book's has been reached.
func (k *Kernel) chainAt(fn string) {
	if k.chain != nil {
		k.chain(fn)
	}
}

// epoch is the stack's time when it begins: not 0, so that no time is mistaken for "never".
const epoch = int64(time.Second)

// New makes a stack, with its loopback.
func New(c Config) (*Kernel, error) {
	k := &Kernel{t0: time.Now(), memory: c.Memory, somaxconn: c.Somaxconn}
	k.parity = k.t0.UnixNano() + epoch
	if c.Profile == nil {
		c.Profile = tcp.Default()
	}
	k.prof = *c.Profile
	if k.memory <= 0 {
		k.memory = 1 << 30
	}
	if k.somaxconn <= 0 {
		k.somaxconn = 4096
	}
	k.pool.SetLimit(k.memory / 16 * 13) // the rest is for what cannot be refused: each connection makes some progress
	k.tcpEnv = tcp.NewEnv(&k.prof, &k.pool, &k.Stats.TCP)
	if k.trace = c.Trace; k.trace != nil {
		k.tcpEnv.SetTraced()
	}
	k.twMax = 1 << 16
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if err := k.seed.init(c.Rand); err != nil {
		return nil, fmt.Errorf("bsdnet: reading the secrets from Config.Rand: %w", err)
	}
	k.clock.init(k)
	k.pcbs.init(k.seed.hash)
	k.syncache.init(k)
	k.tw.init(k)
	k.reass.init(k)
	k.ports.init(k)
	k.icmpLimit.init(k.seed.hash, 200, 50)
	k.rstLimit.init(k.seed.hash, 1000, 500)
	ifs := []*Ifnet{}
	k.ifs.Store(&ifs)
	if !c.NoLoopback {
		if err := k.loopattach(c.LoopbackMTU); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// now is the stack's time, in nanoseconds.
func (k *Kernel) now() int64 { return int64(time.Since(k.t0)) + epoch }

// Pool returns the count of the stack's buffers.
func (k *Kernel) Pool() *mbuf.Pool { return &k.pool }

// Profile returns a copy of the values in force.
func (k *Kernel) Profile() tcp.Profile { return k.prof }

// Somaxconn returns the largest backlog of a listener: kern.ipc.somaxconn.
func (k *Kernel) Somaxconn() int { return k.somaxconn }

// goWorker starts a goroutine that Close waits for. It reports false where the stack is closed.
func (k *Kernel) goWorker(f func()) bool {
	k.closeMu.Lock()
	defer k.closeMu.Unlock()
	if k.closed.Load() {
		return false
	}
	k.workers.Go(f)
	return true
}

// Close resets what is open, wakes everyone who waits, and returns when no goroutine and no timer of the stack is left.
func (k *Kernel) Close() { k.closeOnce.Do(k.close) }

func (k *Kernel) close() {
	k.closeMu.Lock()
	k.closed.Store(true) // under the lock, so that no worker starts unseen
	k.closeMu.Unlock()
	k.sockets.abortAll(k)
	for _, ifp := range *k.ifs.Load() {
		ifp.flush() // the resets
	}
	k.syncache.flush()
	for _, ifp := range *k.ifs.Load() {
		ifp.detach()
	}
	k.clock.close()
	k.workers.Wait()
	k.reass.flush() // a receive goroutine may have been at it
	for _, ifp := range *k.ifs.Load() {
		ifp.purge()
		if b := ifp.tap.Load(); b != nil {
			b.settle(bpfClose)
		}
	}
	k.tw.flush()
}

// secrets are a stack's keys, one for each purpose, so that what one lets out tells nothing of another (CVE-2024-10026).
type secrets struct {
	iss, ts, port, cookie, ipid cipher.Block
	hash                        [2]uint64
}

func (s *secrets) init(r io.Reader) error {
	var b [5*16 + 16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	for i, c := range []*cipher.Block{&s.iss, &s.ts, &s.port, &s.cookie, &s.ipid} {
		at := 16 * i
		if i == 4 {
			at += 16 // behind the key of the hash
		}
		blk, err := aes.NewCipher(b[at : at+16])
		if err != nil {
			return err
		}
		*c = blk
	}
	s.hash[0] = binary.LittleEndian.Uint64(b[64:])
	s.hash[1] = binary.LittleEndian.Uint64(b[72:])
	return nil
}

// A prfScratch is what prf works in: through the interface of a cipher it would be garbage each time.
type prfScratch struct {
	msg [48]byte
	x   [16]byte
}

var prfScratches = sync.Pool{New: func() any { return new(prfScratch) }}

// prf is a keyed hash of a connection's addresses and a number: CBC-MAC with AES over a message of fixed length.
func prf(key cipher.Block, t *tuple, extra uint64) uint64 {
	s := prfScratches.Get().(*prfScratch)
	defer prfScratches.Put(s)
	b := &s.msg
	copy(b[0:], t.laddr[:])
	copy(b[16:], t.faddr[:])
	binary.BigEndian.PutUint16(b[32:], t.lport)
	binary.BigEndian.PutUint16(b[34:], t.fport)
	binary.BigEndian.PutUint64(b[40:], extra)
	s.x = [16]byte{}
	for i := 0; i < len(b); i += 16 {
		for j := range s.x {
			s.x[j] ^= b[i+j]
		}
		key.Encrypt(s.x[:], s.x[:])
	}
	return binary.BigEndian.Uint64(s.x[:])
}

// iss chooses an initial sequence number: RFC 6528, 3: a clock of 4 µs plus a keyed hash of the addresses.
func (k *Kernel) iss(t *tuple, now int64) tcp.Seq {
	return tcp.Seq(uint32(now/4000) + uint32(prf(k.seed.iss, t, 0)))
}

// tsOffset is where a connection's timestamps begin: RFC 7323, 7.1. It depends on all of the addresses.
func (k *Kernel) tsOffset(t *tuple) uint32 { return uint32(prf(k.seed.ts, t, 0)) }

// An in6Addr is an address as struct in6_addr has it, IPv4's mapped (RFC 4291, 2.5.5.2): what tables hold, as it has 16 bytes to compare and to hash, and
// a netip.Addr 24. The zero in6Addr is no address.
type in6Addr [16]byte

// in6 returns a as an in6Addr, the zero Addr as zero.
func in6(a netip.Addr) in6Addr { return a.As16() }

// addr is the way back.
func (a *in6Addr) addr() netip.Addr {
	switch {
	case a.is4():
		return netip.AddrFrom4([4]byte(a[12:]))
	case *a == in6Addr{}:
		return netip.Addr{}
	}
	return netip.AddrFrom16(*a)
}

func (a *in6Addr) is4() bool {
	return binary.LittleEndian.Uint64(a[:]) == 0 && binary.LittleEndian.Uint32(a[8:]) == 0xffff0000
}

// unspecified reports whether a is no address, or 0.0.0.0, which stands for any.
func (a *in6Addr) unspecified() bool {
	return *a == in6Addr{} || a.is4() && binary.LittleEndian.Uint32(a[12:]) == 0
}

// A tuple names a connection.
type tuple struct {
	laddr, faddr in6Addr
	lport, fport uint16
}

// local and remote are its ends.
func (t *tuple) local() netip.AddrPort  { return netip.AddrPortFrom(t.laddr.addr(), t.lport) }
func (t *tuple) remote() netip.AddrPort { return netip.AddrPortFrom(t.faddr.addr(), t.fport) }

// hash is a keyed hash for tables: an attacker who chooses addresses must not be able to choose a bucket.
func (t *tuple) hash(key [2]uint64) uint64 {
	l, f := &t.laddr, &t.faddr
	le := binary.LittleEndian
	h := key[0]
	mix := func(a, b uint64) {
		hi, lo := bits.Mul64(a^h, b^key[1])
		h = hi ^ lo
	}
	if l.is4() {
		mix(uint64(le.Uint32(l[12:]))<<32|uint64(le.Uint32(f[12:])), uint64(t.lport)<<32|uint64(t.fport))
	} else {
		mix(le.Uint64(l[:]), le.Uint64(l[8:]))
		mix(le.Uint64(f[:]), le.Uint64(f[8:]))
		mix(uint64(t.lport)<<32|uint64(t.fport), 0x9e3779b97f4a7c15)
	}
	mix(0xd6e8feb86659fd93, 0x9e3779b97f4a7c15) // h itself is in every mix: once more would make it 0
	return h
}

// flow is a hash that is the same for both directions, so that a conversation over the loopback stays on one queue.
func (t *tuple) flow(key [2]uint64) uint32 {
	r := tuple{t.faddr, t.laddr, t.fport, t.lport}
	h := t.hash(key) ^ r.hash(key)
	return uint32(h ^ h>>32)
}

// A bucket limits a rate: a token bucket.
type bucket struct {
	mu          sync.Mutex
	rate, burst int64 // a second; at once
	tokens      int64 // in 1e-9
	last        int64
	noise       uint64 // where the random numbers have got to; 0: there are none
}

// take reports whether one more is allowed at now.
func (b *bucket) take(now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	const unit = int64(time.Second)
	b.tokens = min(b.tokens+min(now-b.last, unit)*b.rate, b.burst*unit)
	b.last = now
	if b.noise != 0 && b.tokens == b.burst*unit {
		b.noise += 0x9e3779b97f4a7c15
		hi, lo := bits.Mul64(b.noise, 0xd6e8feb86659fd93)
		b.tokens -= int64((hi^lo)%uint64(b.burst/2)) * unit
	}
	if b.tokens < unit {
		return false
	}
	b.tokens -= unit
	return true
}

// A limiter limits the rate of answers, to each source and in all. Were there one bucket for all,
// somebody who sends in the name of another, and counts the answers to segments of his own, would
// learn whether those of the other were answered, and so whether a connection stands
// (CVE-2016-5696). Each source has a bucket, of a table in which a keyed hash finds it; all together
// have one of four times as much, from which a random number of tokens is missing each time it has
// been full.
type limiter struct {
	key     [2]uint64
	all     bucket
	sources [256]bucket
}

func (l *limiter) init(key [2]uint64, rate, burst int64) {
	l.key = key
	l.all = bucket{rate: 4 * rate, burst: 4 * burst, noise: key[1] | 1}
	for i := range l.sources {
		l.sources[i] = bucket{rate: rate, burst: burst}
	}
}

// take reports whether one more answer to src is allowed at now.
func (l *limiter) take(src in6Addr, now int64) bool {
	t := tuple{laddr: in6Addr{10: 0xff, 11: 0xff}, faddr: src}
	return l.sources[t.hash(l.key)>>8%uint64(len(l.sources))].take(now) && l.all.take(now)
}

// wall is the time of day.
func (k *Kernel) wall() time.Time { return k.t0.Add(time.Since(k.t0)) }

// wallAt is the time of day at an instant of the stack's time.
func (k *Kernel) wallAt(t int64) time.Time { return k.t0.Add(time.Duration(t - epoch)) }
