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

// The files: session.go has the formats and the keys, machine.go the protocol as a state machine
// without clock or socket, and hello.go its handshakes. This file has the link around the machine:
// its configuration, its goroutines and its end. write.go is the sending half and read.go the
// receiving half. mtu.go deals with packets that are too large, status.go with what people are
// told. socket_linux.go and socket_other.go are the socket.

// Config configures [Open].
type Config struct {
	// Local is the address and port to receive on, "host:port". If it is empty, the socket receives
	// on all addresses of the host, and the system chooses the port.
	Local string

	// Peer is the address of the other end, "host:port". Open looks a name up once. The other end
	// may move: the tunnel sends to the address from which authentic packets arrive. If Peer is
	// empty, the other end must make contact first, and no packet can be sent before that. At least
	// one end needs a Peer.
	Peer string

	// Key is the secret that the two ends, and nobody else, share: 32 bytes from a good source,
	// such as crypto/rand or "openssl rand -base64 32". Open copies it.
	Key []byte

	// MTU is the size of the largest IP packet in bytes, from 68 to 65475, or to 65507 if Insecure
	// is set. If it is 0, it is the size that fits into one unfragmented datagram on the route to
	// Peer, as the system knows it when the tunnel is opened: 1440 over IPv4 and Ethernet, 1420
	// over IPv6. If the system does not know, or there is no Peer, it is 1420. If the path carries
	// less later, the tunnel tells TCP as a router would (RFC 1191).
	MTU int

	// Insecure sends packets unencrypted and unauthenticated. Then Peer must be set, and Key must
	// not. Anyone who can forge the Peer's address can send packets to the stack. Insecure is for
	// the loopback, and for networks that encrypt and authenticate by themselves.
	Insecure bool
}

// Sizes in bytes, and how many packets wait for a session.
const (
	maxPayload  = 65507                // over IPv4: 65535 less the headers of IP and UDP
	overIPv4    = 20 + 8               // the headers of IPv4 and UDP
	overIPv6    = 40 + 8               // the headers of IPv6 and UDP
	defaultMTU  = link.DefaultMTU - 80 // the datagram then fits into Ethernet's MTU, over IPv6 too
	readBuffer  = 64 << 10             // the most that one read returns
	socketSpace = 7 << 20              // the socket's buffers: 5 ms at 10 Gbit/s
	heldPackets = 32
)

// Stats are the counters of a [Link].
type Stats struct {
	// Sent and Received count packets.
	Sent, Received uint64

	// These count datagrams that were dropped on arrival. Malformed: it has none of the protocol's
	// forms. Unknown: it refers to a session that does not exist or, if Insecure is set, does not
	// come from the Peer. Forged: it was not made with the key. Replayed: it has arrived before, or
	// is too old to tell. Oversized: its packet is larger than the MTU.
	Malformed, Unknown, Forged, Replayed, Oversized uint64

	// These count packets that were dropped instead of sent. TooLarge: the path does not carry the
	// packet's size. Unsent: there was no session, or the system did not send the datagram.
	TooLarge, Unsent uint64

	// Handshakes counts the sessions that have begun; under traffic, one begins every two minutes.
	// Roams counts changes of the other end's address.
	Handshakes, Roams uint64
}

// counters are the atomic counters behind Stats.
type counters struct {
	sent, received, malformed, unknown, forged, replayed, oversized, tooLarge, unsent atomic.Uint64
}

// A Link is one end of a tunnel: a bsdnet.Link that carries each packet in one UDP datagram, and
// loses what the network loses. [Open] makes one.
//
// The first packets wait for the key exchange, which takes two round trips. If the other end does
// not answer, the tunnel tries once per second as long as there are packets to send. It drops
// packets after they have waited for three seconds.
type Link struct {
	// The locks, in the order in which they are taken: rmu, wmu, then one of mu, imu and smu. ready
	// is called without wmu, mu, imu and smu.

	conn     *net.UDPConn
	sock     socket
	local    netip.AddrPort
	mtu      int
	overhead int            // how many bytes longer a datagram is than its packet
	plain    netip.AddrPort // the peer, in plain mode
	epoch    time.Time
	stats    counters
	trouble  socketTrouble

	state link.State
	ready func()
	smu   sync.Mutex // guards changes of state; a goroutine is started under it, if not closed
	wg    sync.WaitGroup
	done  chan struct{}
	wake  chan struct{} // tells the daemon to look at the machine now

	reading atomic.Int32 // calls of Read under way
	rmu     sync.Mutex   // guards rx
	rx      receiver

	wmu sync.Mutex // guards tx, and the sending half of sessions
	tx  transmitter

	mu     sync.Mutex  // guards m and armed
	m      *machine    // nil in plain mode
	armed  int64       // when the daemon will look at the machine
	wanted atomic.Bool // a copy of m.want

	imu  sync.Mutex // guards icmp
	icmp icmpQueue
}

var _ link.DiagnosingLink = (*Link)(nil)

// Open opens the socket of a tunnel. The handshake begins when the link is attached.
//
// If a field of config is missing or invalid, Open returns an error that names the field and says
// what it needs. If the system refuses the socket, the error wraps the system's: if Local is in
// use, for example, it wraps syscall.EADDRINUSE.
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

// check returns an error if a configuration is invalid.
func (c *Config) check() error {
	const howTo = `32 bytes from crypto/rand, the same at both ends (in a shell: "openssl rand -base64 32")`
	switch {
	case c.Insecure && c.Key != nil:
		return fmt.Errorf("udptunnel: Insecure and Key are both set: leave out Insecure to encrypt packets, " +
			"or Key to send them unencrypted")
	case c.Insecure && c.Peer == "":
		return fmt.Errorf(`udptunnel: Insecure needs a Peer ("host:port"), because without a key no sender can ` +
			"prove that it is the peer; set Peer, or better a Key of " + howTo)
	case !c.Insecure && c.Key == nil:
		return fmt.Errorf("udptunnel: Key is missing: give " + howTo)
	case !c.Insecure && len(c.Key) != keyLen:
		return fmt.Errorf("udptunnel: Key has %d bytes, not %d: give "+howTo, len(c.Key), keyLen)
	case !c.Insecure && [keyLen]byte(c.Key) == [keyLen]byte{}:
		return fmt.Errorf("udptunnel: Key is all zero, which is no secret: give " + howTo)
	}
	most := maxPayload
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

// MTU returns the size of the largest packet in bytes: Config.MTU or, if that is 0, the size that
// was found when the tunnel was opened.
func (l *Link) MTU() int { return l.mtu }

// LocalAddr returns the address and port of the socket.
func (l *Link) LocalAddr() netip.AddrPort { return l.local }

// Peer returns the address of the other end, as of the last authentic packet. Before that it is the
// configured address, or invalid if there is none.
func (l *Link) Peer() netip.AddrPort {
	if l.m == nil {
		return l.plain
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m.peer
}

// Stats returns the current counters.
func (l *Link) Stats() Stats {
	c := &l.stats
	s := Stats{
		Sent: c.sent.Load(), Received: c.received.Load(),
		Malformed: c.malformed.Load(), Unknown: c.unknown.Load(), Forged: c.forged.Load(),
		Replayed: c.replayed.Load(), Oversized: c.oversized.Load(),
		TooLarge: c.tooLarge.Load(), Unsent: c.unsent.Load(),
	}
	if l.m != nil {
		l.mu.Lock()
		s.Handshakes, s.Roams = l.m.handshakes, l.m.roams
		l.mu.Unlock()
	}
	return s
}

func (l *Link) now() int64 { return int64(time.Since(l.epoch)) }

// Start implements bsdnet.Link. If the peer's address is known, it starts a handshake at once, so
// that the other end learns this end's address.
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

// Close implements bsdnet.Link. It sends nothing to the other end.
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

// daemon is the tunnel's clock: it makes the machine do what is due. While a session is wanted and
// no goroutine is in Read, it also reads, so that a handshake that Write has started is completed
// whether or not the stack reads.
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

// rearm wakes the daemon if the machine's deadline has become earlier. l.mu is held.
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
