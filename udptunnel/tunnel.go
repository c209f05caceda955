package udptunnel

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"bsdnet/internal/link"
)

// The files: session.go has the formats and the keys, machine.go the protocol as a machine without a clock or a socket, hello.go its handshakes, this
// one the link around it: what it is configured with, who runs in it, and how it ends. write.go is the way of a packet out, read.go the way
// in, mtu.go what is done about packets that are too large, status.go what people are told; socket_linux.go and socket_other.go are the socket.

// Config configures [Open].
type Config struct {
	// Local is the address to receive on, "host:port". "": any address of the host, and any port.
	Local string

	// Peer is where the other end is, "host:port"; a name is looked up once, in Open. It may move later: the tunnel follows whoever shows that he
	// has the key. "": the other end makes the first move, and nothing can be sent before. At least one end needs a Peer.
	Peer string

	// Key is the secret that the two ends, and nobody else, have in common: 32 bytes from a good source, such as crypto/rand or
	// "openssl rand -base64 32". Open copies it.
	Key []byte

	// MTU is the largest IP packet in bytes, 68 to 65475. 0: what the path to the Peer carries in one datagram that is not fragmented, as the system
	// knows it when the tunnel is opened: 1440 over IPv4 and Ethernet, 1420 over IPv6. Where the system does not know, or there is no Peer: 1420.
	// Should the path turn out to carry less, TCP is told as by a router on it (RFC 1191).
	MTU int

	// Insecure sends packets as they are: neither encrypted nor authenticated. Then Peer must be given and Key must not, and MTU may be up to 65507.
	// Whoever can forge the Peer's address can send the stack any packet. It is meant for the loopback, and for networks that do all this themselves.
	Insecure bool
}

// Sizes in bytes, and how many packets wait for a first session.
const (
	maxPayload  = 65507                // over IPv4: 65535 less the headers of IP and UDP
	overIPv4    = 20 + 8               // these headers
	overIPv6    = 40 + 8               // and those over IPv6
	defaultMTU  = link.DefaultMTU - 80 // a packet with all that is around it, over IPv6 and Ethernet
	readBuffer  = 64 << 10             // the most that one read brings
	socketSpace = 7 << 20              // the socket's buffers: 5 ms at 10 Gbit/s
	heldPackets = 32
)

// Stats are the counters of a [Link].
type Stats struct {
	// Sent and Received are packets.
	Sent, Received uint64

	// Datagrams that were dropped on their way in: of no form that there is, for no session that there is (in plain mode: not from the Peer), not made
	// with the key, seen before or too old to tell, larger than the MTU.
	Malformed, Unknown, Forged, Replayed, Oversized uint64

	// Packets that were dropped on their way out: larger than the path carries, and those that had nowhere to go or that the system did not send.
	TooLarge, Unsent uint64

	// Handshakes are the sessions begun, of which there is a new one every two minutes under traffic; Roams are changes of the other end's address.
	Handshakes, Roams uint64
}

// counters is Stats, as it is counted.
type counters struct {
	sent, received, malformed, unknown, forged, replayed, oversized, tooLarge, unsent atomic.Uint64
}

// A Link is one end of a tunnel: a bsdnet.Link that carries packets in UDP datagrams, one in each, and loses what the network loses. [Open] makes one.
//
// The first packets wait for the key exchange, which takes two round trips; a peer that does not answer is tried once a second as long as there is
// something to send, and what is sent meanwhile is lost after three seconds.
type Link struct {
	// The locks, in their order: rmu, wmu, then one of mu, imu and smu. ready is called without wmu, mu, imu and smu.

	conn     *net.UDPConn
	sock     socket
	local    netip.AddrPort
	mtu      int
	overhead int            // bytes that a datagram has more than its packet
	plain    netip.AddrPort // the peer, in plain mode
	epoch    time.Time
	stats    counters
	trouble  socketTrouble

	state link.State
	ready func()
	smu   sync.Mutex // guards changes of state, and that no goroutine begins when it is closed
	wg    sync.WaitGroup
	done  chan struct{}
	wake  chan struct{} // tells the daemon that it is needed earlier

	reading atomic.Int32 // calls of Read under way
	rmu     sync.Mutex   // guards rx
	rx      receiver

	wmu sync.Mutex // guards tx, and the sending half of sessions
	tx  transmitter

	mu     sync.Mutex  // guards m and armed
	m      *machine    // nil in plain mode
	armed  int64       // when the daemon looks again
	wanted atomic.Bool // m.want, as it was last seen

	imu  sync.Mutex // guards icmp
	icmp icmpQueue
}

var _ link.DiagnosingLink = (*Link)(nil)

// Open opens the socket of a tunnel, which goes to work when the link is attached. The error says what is wrong with the configuration, or is the
// system's.
func Open(config Config) (*Link, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	network := "udp"
	var peer netip.AddrPort
	if config.Peer != "" {
		a, err := net.ResolveUDPAddr("udp", config.Peer)
		if err != nil {
			return nil, fmt.Errorf("udptunnel: Peer: %w", err)
		}
		peer = unmap(a.AddrPort())
		if !peer.IsValid() || peer.Port() == 0 || peer.Addr().IsUnspecified() || peer.Addr().IsMulticast() {
			return nil, fmt.Errorf("udptunnel: Peer %q is not the address and port of a host", config.Peer)
		}
		network = "udp6"
		if peer.Addr().Is4() {
			network = "udp4"
		}
	}
	l := &Link{epoch: time.Now(), done: make(chan struct{}), wake: make(chan struct{}, 1), armed: never}
	if config.Insecure {
		l.plain = peer
	} else {
		var err error
		if l.m, err = newMachine(config.Key, peer, func(b []byte) { rand.Read(b) }); err != nil {
			return nil, fmt.Errorf("udptunnel: Key: %w", err)
		}
		l.overhead = sealLen
	}
	l.setMTU(config.MTU, peer)
	if err := l.listen(network, config.Local); err != nil {
		return nil, fmt.Errorf("udptunnel: Local: %w", err)
	}
	l.rx.init()
	return l, nil
}

// check tells whether a configuration says what it must.
func (c *Config) check() error {
	const howTo = `32 bytes from crypto/rand, the same at both ends (in a shell: "openssl rand -base64 32")`
	most := maxPayload
	switch {
	case c.Insecure && c.Key != nil:
		return fmt.Errorf("udptunnel: Insecure is set, and so is Key: leave Insecure out to have packets encrypted, or Key to have them sent as they are")
	case c.Insecure && c.Peer == "":
		return fmt.Errorf(`udptunnel: Insecure needs a Peer ("host:port"): without a key nobody can show that he is the one; better give a Key of ` + howTo)
	case !c.Insecure && c.Key == nil:
		return fmt.Errorf("udptunnel: Key is missing: give " + howTo)
	case !c.Insecure && len(c.Key) != keyLen:
		return fmt.Errorf("udptunnel: Key has %d bytes, not %d: give "+howTo, len(c.Key), keyLen)
	case !c.Insecure && [keyLen]byte(c.Key) == [keyLen]byte{}:
		return fmt.Errorf("udptunnel: Key is all zero, which is no secret: give " + howTo)
	}
	if !c.Insecure {
		most -= sealLen
	}
	if c.MTU != 0 && (c.MTU < link.MinMTU || c.MTU > most) {
		return fmt.Errorf("udptunnel: MTU %d is not within %d..%d", c.MTU, link.MinMTU, most)
	}
	return nil
}

// listen opens the socket.
func (l *Link) listen(network, local string) error {
	if local == "" {
		local = ":0"
	}
	a, err := net.ResolveUDPAddr(network, local)
	if err != nil {
		return err
	}
	if l.conn, err = net.ListenUDP(network, a); err != nil {
		return err
	}
	l.sock.noted = l.noteICMP
	if err := l.sock.init(l.conn); err != nil {
		l.conn.Close()
		return err
	}
	l.local = unmap(l.conn.LocalAddr().(*net.UDPAddr).AddrPort())
	return nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// MTU returns the largest packet in bytes: Config.MTU, or what was found when the tunnel was opened.
func (l *Link) MTU() int { return l.mtu }

// LocalAddr returns the address and port of the socket.
func (l *Link) LocalAddr() netip.AddrPort { return l.local }

// Peer returns the address of the other end, where it was last heard of; it is not valid before that, if it was not configured.
func (l *Link) Peer() netip.AddrPort {
	if l.m == nil {
		return l.plain
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m.peer
}

// Stats returns what has been counted so far.
func (l *Link) Stats() Stats {
	c := &l.stats
	s := Stats{
		Sent: c.sent.Load(), Received: c.received.Load(), Malformed: c.malformed.Load(), Unknown: c.unknown.Load(), Forged: c.forged.Load(),
		Replayed: c.replayed.Load(), Oversized: c.oversized.Load(), TooLarge: c.tooLarge.Load(), Unsent: c.unsent.Load(),
	}
	if l.m != nil {
		l.mu.Lock()
		s.Handshakes, s.Roams = l.m.handshakes, l.m.roams
		l.mu.Unlock()
	}
	return s
}

func (l *Link) now() int64 { return int64(time.Since(l.epoch)) }

// Start implements bsdnet.Link. If the peer's address is known it asks for a session at once, so that the other end learns of this one.
func (l *Link) Start(ready func()) error {
	l.smu.Lock()
	defer l.smu.Unlock()
	if err := l.state.StartError("udptunnel", ready); err != nil {
		return err
	}
	l.ready = ready
	l.state.Store(link.Started)
	if l.m == nil {
		return nil
	}
	l.mu.Lock()
	if l.m.peer.IsValid() {
		l.m.advance(l.now())
		l.m.demand()
	}
	l.mu.Unlock()
	l.wg.Go(l.daemon)
	return nil
}

// Close implements bsdnet.Link. The other end is not told.
func (l *Link) Close() error {
	l.smu.Lock()
	was := l.state.Swap(link.Closed)
	l.smu.Unlock()
	if was == link.Closed {
		return net.ErrClosed
	}
	close(l.done)
	l.conn.Close()
	l.wg.Wait()
	l.wmu.Lock()
	l.tx.dropHeld()
	l.wmu.Unlock()
	return nil
}

// spawn runs f on a goroutine that Close waits for, unless the link is closed.
func (l *Link) spawn(f func()) {
	l.smu.Lock()
	defer l.smu.Unlock()
	if l.state.Load() != link.Closed {
		l.wg.Go(f)
	}
}

// daemon is the tunnel's clock: it does what is due. While a session is wanted and nobody is in Read, it reads in his place, so that what Write has
// begun comes to an end whether or not somebody reads.
func (l *Link) daemon() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.mu.Lock()
		l.m.poll(l.now())
		l.armed = l.m.deadline()
		l.wanted.Store(l.m.want)
		next, want := l.armed, l.m.want
		l.mu.Unlock()
		l.settle()
		wait := time.Duration(next - l.now())
		if want && l.standIn(wait) {
			continue
		}
		timer.Reset(max(wait, 0))
		select {
		case <-l.done:
			return
		case <-l.wake:
		case <-timer.C:
		}
	}
}

// rearm tells the daemon where something is due earlier than it thinks. l.mu is held.
func (l *Link) rearm() {
	l.wanted.Store(l.m.want)
	if d := l.m.deadline(); d < l.armed {
		l.armed = d
		l.rouse()
	}
}

func (l *Link) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
