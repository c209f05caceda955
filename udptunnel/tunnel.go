package udptunnel

import (
	"crypto/rand"
	"errors"
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
// told. packetconn.go has what carries the datagrams; socket_linux.go and socket_other.go are the
// system's socket, and endpoint.go the addresses.

// Config configures [Open].
type Config struct {
	// Local is the address and port to receive on, "host:port". If it is empty, or the host is, the
	// socket receives on all addresses of the host, over IPv4 and IPv6. If it is empty, or the port
	// is 0, the system chooses the port.
	Local string

	// Conn carries the tunnel's datagrams, instead of a socket that Open makes on Local: a
	// *net.UDPConn that is not connected, a UDPConn of a bsdnet stack, or any other net.PacketConn
	// that keeps datagrams apart. The Link owns Conn from the moment when Open returns without an
	// error: it sets read deadlines, and its Close closes Conn. If Open returns an error, Conn
	// still belongs to the caller.
	//
	// SetReadDeadline must work, and it and Close must end a ReadFrom that waits. WriteTo may wait;
	// it must end when Conn is closed. Open sets the options of a *net.UDPConn as those of its own
	// socket, with large buffers and without fragments, and only a *net.UDPConn is as fast. It
	// enlarges the read buffer of any other Conn that has a SetReadBuffer. The tunnel does not know
	// what the path of another Conn carries.
	Conn net.PacketConn

	// Peer is the address of the other end, "host:port". Open looks a name up once. The other end
	// may move: the tunnel sends to the address from which authentic packets arrive. If Peer is
	// empty, the other end must make contact first, and no packet can be sent before that. At least
	// one end needs a Peer.
	Peer string

	// PeerAddr is the address of the other end for the WriteTo of Conn, instead of Peer, for a Conn
	// whose addresses are not those of UDP. Two addresses are the same if they have the same
	// Network and String.
	PeerAddr net.Addr

	// Key is the secret that the two ends, and nobody else, share: 32 bytes from a good source,
	// such as crypto/rand or "openssl rand -base64 32". Open copies it.
	Key []byte

	// MTU is the size of the largest IP packet in bytes, from 68 to 65475, or to 65507 if Insecure
	// is set. IPv6 needs 1280. If MTU is 0, it is the size that fits into one unfragmented datagram
	// on the route to Peer, as the system knows it when the tunnel is opened: 1440 over IPv4 and
	// Ethernet, 1420 over IPv6; but it is at least 1280. If the system does not know, or there is
	// no Peer, it is 1420. If the path carries less, or less later, the tunnel tells the senders of
	// packets as a router would (RFC 1191, RFC 8201), and packets that they may not make smaller go
	// in fragments: IPv6 packets of up to 1280 bytes, and IPv4 packets without DF.
	MTU int

	// Insecure sends packets unencrypted and unauthenticated. Then Peer or PeerAddr must be set,
	// and Key must not. Anyone who can forge the Peer's address can send packets to the stack.
	// Insecure is for the loopback, and for networks that encrypt and authenticate by themselves.
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

	io       transport
	sock     socket // of a udpTransport
	local    endpoint
	mtu      int
	overhead int      // how many bytes longer a datagram is than its packet
	plain    endpoint // the peer, in plain mode
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
	rmu     turn         // guards rx
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

// Open opens the socket of a tunnel, or takes over Config.Conn. The handshake begins when the link
// is attached.
//
// If a field of config is missing or invalid, Open returns an error that names the field and says
// what it needs. If the system refuses the socket, the error wraps the system's: if Local is in
// use, for example, it wraps syscall.EADDRINUSE.
func Open(config Config) (*Link, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	peer, err := config.peer()
	if err != nil {
		return nil, err
	}
	l := &Link{epoch: time.Now(), done: make(chan struct{}), wake: make(chan struct{}, 1), armed: never}
	if config.Insecure {
		l.plain = peer
	} else {
		if l.m, err = newMachine(config.Key, peer, func(b []byte) { rand.Read(b) }); err != nil {
			return nil, fmt.Errorf("udptunnel: Key: %w", err)
		}
		l.overhead = sealLen
	}
	if config.Conn != nil {
		err = l.adopt(config.Conn)
	} else {
		err = l.listen(config.Local, peer)
	}
	if err != nil {
		return nil, err
	}
	l.setMTU(config.MTU, peer)
	l.rmu = newTurn()
	l.rx.init()
	return l, nil
}

// peer returns the configured address of the other end, or the zero endpoint if there is none.
func (c *Config) peer() (endpoint, error) {
	if c.PeerAddr != nil {
		e := endpointOf(c.PeerAddr)
		if !e.IsValid() || e.other == nil && !isHost(e.AddrPort) {
			return e, fmt.Errorf("udptunnel: PeerAddr %v is not the address and port of a host", c.PeerAddr)
		}
		return e, nil
	}
	if c.Peer == "" {
		return endpoint{}, nil
	}
	a, err := net.ResolveUDPAddr("udp", c.Peer)
	if err != nil {
		return endpoint{}, fmt.Errorf("udptunnel: Peer: %w", err)
	}
	e := udp(a.AddrPort())
	if !isHost(e.AddrPort) {
		return endpoint{}, fmt.Errorf("udptunnel: Peer %q is not the address and port of a host", c.Peer)
	}
	return e, nil
}

// isHost reports whether datagrams can be sent to one host at a.
func isHost(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast()
}

// check returns an error if a configuration is invalid.
func (c *Config) check() error {
	const howTo = `32 bytes from crypto/rand, the same at both ends (in a shell: "openssl rand -base64 32")`
	switch {
	case c.Insecure && c.Key != nil:
		return fmt.Errorf("udptunnel: Insecure and Key are both set: leave out Insecure to encrypt packets, " +
			"or Key to send them unencrypted")
	case c.Conn != nil && c.Local != "":
		return errors.New("udptunnel: Local and Conn are both set: leave out Local, because Conn has its address")
	case c.PeerAddr != nil && c.Conn == nil:
		return errors.New("udptunnel: PeerAddr is for Conn, and Conn is nil: give Peer instead")
	case c.PeerAddr != nil && c.Peer != "":
		return errors.New("udptunnel: Peer and PeerAddr are both set: leave one of them out")
	case c.Insecure && c.Peer == "" && c.PeerAddr == nil:
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

// listen opens the socket. Without a host in local, it is one of both families if the system has
// both, so that the peer may move from one to the other.
func (l *Link) listen(local string, peer endpoint) error {
	if local == "" {
		local = ":0"
	}
	a, err := net.ResolveUDPAddr("udp", local)
	if err != nil {
		return fmt.Errorf("udptunnel: Local: %w", err)
	}
	if peer.IsValid() && !reaches(unmap(a.AddrPort()).Addr(), peer.Addr()) {
		return fmt.Errorf("udptunnel: Local %s and Peer %v are of different families, IPv4 and IPv6: "+
			"give Local as \":port\", or an address of Peer's family", local, peer)
	}
	conn, err := net.ListenUDP("udp", a)
	if err == nil && peer.Addr().Is6() && endpointOf(conn.LocalAddr()).Addr().Is4() {
		// The system has no sockets of both families, such as OpenBSD, or no IPv6, which is the
		// next error.
		conn.Close()
		conn, err = net.ListenUDP("udp6", a)
	}
	if err != nil {
		return fmt.Errorf("udptunnel: Local: %w", err)
	}
	if err := l.useSocket(conn); err != nil {
		conn.Close()
		return fmt.Errorf("udptunnel: Local: %w", err)
	}
	return nil
}

// reaches reports whether a socket on local, which is invalid if there is no host in Config.Local,
// can be one of peer's family. A socket on :: is one of both.
func reaches(local, peer netip.Addr) bool {
	return !local.IsValid() || local == netip.IPv6Unspecified() || local.Is4() == peer.Is4()
}

// useSocket makes a socket of the system the tunnel's.
func (l *Link) useSocket(conn *net.UDPConn) error {
	l.sock.noted = func(err error, to netip.AddrPort) { l.noteICMP(err, udp(to)) }
	if err := l.sock.init(conn); err != nil {
		return err
	}
	l.io = &udpTransport{UDPConn: conn, s: &l.sock, oob: make([]byte, 128)}
	l.local = endpointOf(conn.LocalAddr())
	return nil
}

// adopt makes a net.PacketConn the tunnel's.
func (l *Link) adopt(conn net.PacketConn) error {
	if c, ok := conn.(interface{ RemoteAddr() net.Addr }); ok && endpointOf(c.RemoteAddr()).IsValid() {
		return fmt.Errorf("udptunnel: Conn is connected to %v: make it with ListenPacket or net.ListenUDP, "+
			"and give the other end's address as Peer", c.RemoteAddr())
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("udptunnel: Conn: SetReadDeadline, which the tunnel needs: %w", err)
	}
	if c, ok := conn.(*net.UDPConn); ok {
		if err := l.useSocket(c); err != nil {
			return fmt.Errorf("udptunnel: Conn: %w", err)
		}
		return nil
	}
	if c, ok := conn.(interface{ SetReadBuffer(bytes int) error }); ok {
		c.SetReadBuffer(socketSpace)
	}
	l.local = endpointOf(conn.LocalAddr())
	l.io = newPacketTransport(conn, l.failed)
	return nil
}

// MTU returns the size of the largest packet in bytes: Config.MTU or, if that is 0, the size that
// was found when the tunnel was opened.
func (l *Link) MTU() int { return l.mtu }

// LocalAddr returns the address and port of the socket. It is invalid if the addresses of
// Config.Conn are not those of UDP.
func (l *Link) LocalAddr() netip.AddrPort { return l.local.AddrPort }

// Peer returns the address of the other end, as of the last authentic packet. Before that it is the
// configured address, or invalid if there is none. It is invalid, too, if the addresses of
// Config.Conn are not those of UDP; then use [Link.PeerAddr].
func (l *Link) Peer() netip.AddrPort { return l.peer().AddrPort }

// PeerAddr returns the same address as Peer in the form that Config.Conn has: a *net.UDPAddr for
// UDP. It returns nil if the address is not known.
func (l *Link) PeerAddr() net.Addr { return l.peer().netAddr() }

func (l *Link) peer() endpoint {
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
	l.io.Close()
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
