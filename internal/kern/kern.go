package kern

import (
	"crypto/rand"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
)

// Config says how a Kernel is made. The zero Config is valid.
type Config struct {
	Profile     *tcp.Profile // nil: tcp.Default(). The kernel keeps its own copy.
	Rand        io.Reader    // secrets are drawn from it once; nil: crypto/rand
	LoopbackMTU int          // bytes; 0: 65535, at which segments are never cut
	NoLoopback  bool         // no lo0
	Forwarding  bool         // net.inet.ip.forwarding and net.inet6.ip6.forwarding are 1 from the beginning
	Memory      int64        // the most bytes that buffers and connections take; 0: 1 GiB
	Somaxconn   int          // kern.ipc.somaxconn, 0: 4096
	Trace       func(*Trace) // is called with each event on a connection, under its lock; may be nil
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

// ProfileNamed returns a new profile of that name: "Default" (or ""), "FreeBSD" or "Net3". It
// returns nil for any other name.
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

// A Kernel is one stack. It holds what the network part of a BSD kernel keeps in global variables.
type Kernel struct {
	prof    tcp.Profile
	pool    mbuf.Pool
	drainAt atomic.Int64 // when tcpDrain next looks
	t0      time.Time
	home    uint64 // the bubble that the stack was made in; 0: outside of bubbles
	parity  int64  // an instant is even on the clock of the day if its last bit is this one's
	clock   clock
	seed    secrets
	tcpEnv  *tcp.Env
	trace   func(*Trace)

	somaxconn int
	memory    int64

	ipforwarding  atomic.Bool // net.inet.ip.forwarding
	ip6forwarding atomic.Bool // net.inet6.ip6.forwarding
	forwarded     atomic.Bool // there are queues on which ipForward has put packets

	socketID  atomic.Uint32
	twMax     int
	icmpLimit limiter
	rstLimit  limiter
	ipIDs     [1024]atomic.Uint32 // counters of identifications; a keyed hash chooses a packet's
	ip6IDs    [1024]atomic.Uint32 // of IPv6 fragments

	pcbs      pcbTable
	ports     portTable
	udb       pcbTable  // UDP's connected sockets
	udpPorts  portTable // all of UDP's sockets
	icmpIDs   portTable // ping sockets, by the identifiers of their requests
	raw       rawTable
	pings     pingTable
	syncache  syncache
	tw        twList
	reass     ipReass
	routes    rtable
	hostcache hostcache
	rtgen     atomic.Uint32 // counts changes of routes and addresses, for those who keep a route
	sockets   socketList

	ifMu  sync.Mutex
	ifs   atomic.Pointer[[]*Ifnet] // copy on write
	ifNum uint16                   // the last index of an interface; guarded by ifMu
	lo0   *Ifnet

	// Stats are the counters of netstat -s.
	Stats struct {
		TCP  tcp.Stats
		UDP  UDPStats
		IP   IPStats
		ICMP ICMPStats

		IP6   IP6Stats
		ICMP6 ICMP6Stats
	}

	workers sync.WaitGroup // goroutines of the stack
	closed  atomic.Bool
	closeMu sync.Mutex

	closeOnce sync.Once

	// chain, if a test has set it, is called by functions in which the book's call trees end.
	chain func(at string)
}

// chainAt tells the test of call chains, if one runs, that a function of the book's has been
// called.
func (k *Kernel) chainAt(fn string) {
	if k.chain != nil {
		k.chain(fn)
	}
}

// New makes a stack, with its loopback.
func New(c Config) (*Kernel, error) {
	k := &Kernel{t0: time.Now(), home: bubble(), memory: c.Memory, somaxconn: c.Somaxconn}
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
	k.pool.SetLimit(k.memory / 16 * 13) // the rest lets each connection make some progress
	k.tcpEnv = tcp.NewEnv(&k.prof, &k.pool, &k.Stats.TCP)
	if k.trace = c.Trace; k.trace != nil {
		k.tcpEnv.SetTraced()
	}
	k.twMax = min(1<<16, int(k.memory/16/twMem))
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
	k.udb.init(k.seed.hash)
	k.udpPorts.init(k)
	k.udpPorts.dgram = true
	k.icmpIDs.init(k)
	k.icmpIDs.dgram = true
	k.icmpLimit.init(k.seed.hash, 200, 50)
	k.rstLimit.init(k.seed.hash, 1000, 500)
	k.ipforwarding.Store(c.Forwarding)
	k.ip6forwarding.Store(c.Forwarding)
	ifs := []*Ifnet{}
	k.ifs.Store(&ifs)
	if !c.NoLoopback {
		if err := k.loopattach(c.LoopbackMTU); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Pool returns the pool that counts the stack's buffers.
func (k *Kernel) Pool() *mbuf.Pool { return &k.pool }

// Profile returns a copy of the profile, with the values that SetSysctl has set.
func (k *Kernel) Profile() tcp.Profile { return k.prof }

// Somaxconn returns the largest backlog of a listener: kern.ipc.somaxconn.
func (k *Kernel) Somaxconn() int { return k.somaxconn }

// goWorker starts a goroutine that Close waits for. It reports false if the stack is closed.
func (k *Kernel) goWorker(f func()) bool {
	k.closeMu.Lock()
	defer k.closeMu.Unlock()
	if k.closed.Load() {
		return false
	}
	k.workers.Go(f)
	return true
}

// Close resets all connections, ends all calls that wait, and returns when no goroutine and no
// timer of the stack is left.
func (k *Kernel) Close() { k.closeOnce.Do(k.close) }

func (k *Kernel) close() {
	k.closeMu.Lock()
	k.closed.Store(true) // under the lock, so that no worker starts unseen
	k.closeMu.Unlock()
	k.sockets.abortAll(k)
	k.pings.flush()
	for _, ifp := range *k.ifs.Load() {
		ifp.flush() // the resets
	}
	k.syncache.flush()
	for _, ifp := range *k.ifs.Load() {
		ifp.detach()
	}
	k.clock.close()
	k.workers.Wait()
	k.reass.flush() // a receive goroutine may have added fragments until now
	for _, ifp := range *k.ifs.Load() {
		ifp.purge()
		if b := ifp.tap.Load(); b != nil {
			b.settle(bpfClose)
		}
	}
	k.tw.flush()
}
