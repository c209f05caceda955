package link

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// The files of the UDP tunnel: udp_session.go has the formats and the keys, udp_hello.go the protocol as a machine without a clock or a socket, this
// one the link around it: what it is configured with, who runs in it, and how it ends. udp_write.go is the way of a packet out, udp_read.go the way
// in, udp_mtu.go what is done about packets that are too large, udp_status.go what people are told; udp_linux.go and udp_other.go are the socket.

// UDPConfig configures a UDP tunnel.
type UDPConfig struct {
	// Local is the address to receive on, "host:port". "": any address and any port.
	Local string

	// Peer is where the other end is, "host:port"; it is looked up once. "": whoever shows that he has the key.
	Peer string

	// Key is the secret of both ends, 32 bytes from a good source of randomness.
	Key []byte

	// MTU is the largest IP packet in bytes, 68 to 65475, in plain mode to 65507. 0: what fits the path to the peer unfragmented, as the system
	// knows it, and 1420 where it does not know or the peer has no address yet.
	MTU int

	// Insecure sends packets as they are, without a key, to a Peer that must be given, and takes all that seems to come from there.
	Insecure bool
}

// Sizes in bytes, and how many packets wait for a first session.
const (
	maxUDPPayload  = 65507           // over IPv4: 65535 less the headers of IP and UDP
	udpOverIPv4    = 20 + 8          // these headers
	udpOverIPv6    = 40 + 8          // and those over IPv6
	defaultUDPMTU  = defaultMTU - 80 // a packet with all that is around it, over IPv6 and Ethernet
	udpReadBuffer  = 64 << 10        // the most that one read brings
	udpSocketSpace = 7 << 20         // the socket's buffers: 5 ms at 10 Gbit/s
	heldPackets    = batchLen
)

// UDPStats are the counters of a [UDPTunnel].
type UDPStats struct {
	Sent, Received uint64 // packets

	// Datagrams that were dropped on their way in.
	Malformed uint64 // of no form that there is
	Unknown   uint64 // for no session that there is, or in plain mode not from the peer
	Forged    uint64 // not made with the key
	Replayed  uint64 // seen before, or too old to tell
	Oversized uint64 // larger than the reader's buffers

	// Packets that were dropped on their way out.
	TooLarge uint64 // for the path
	Unsent   uint64 // for want of a peer, or because the system would not send them

	Handshakes uint64 // sessions begun
	Roams      uint64 // changes of the peer's address
}

// udpCounters is UDPStats, as it is counted.
type udpCounters struct {
	sent, received, malformed, unknown, forged, replayed, oversized, tooLarge, unsent atomic.Uint64
}

// UDPTunnel carries packets in UDP datagrams, one in each, encrypted and authenticated, between two processes that have a key in common. It is a
// [Link] that loses what the network loses. docs/udp-tunnel.md describes its protocol.
//
// Its locks, in their order: rmu, wmu, then one of mu, imu and smu. ready is called without wmu, mu, imu and smu.
type UDPTunnel struct {
	conn     *net.UDPConn
	sock     udpSocket
	local    netip.AddrPort
	mtu      int
	overhead int            // bytes that a datagram has more than its packet
	plain    netip.AddrPort // the peer, in plain mode
	epoch    time.Time
	stats    udpCounters
	trouble  socketTrouble

	state atomic.Int32
	ready func()
	smu   sync.Mutex // guards changes of state, and that no goroutine begins when it is closed
	wg    sync.WaitGroup
	done  chan struct{}
	wake  chan struct{} // tells the daemon that it is needed earlier

	reading atomic.Int32 // calls of Read under way
	rmu     sync.Mutex   // guards rx
	rx      udpReceive

	wmu sync.Mutex // guards tx, and the sending half of sessions
	tx  udpTransmit

	mu     sync.Mutex  // guards m and armed
	m      *udpMachine // nil in plain mode
	armed  int64       // when the daemon looks again
	wanted atomic.Bool // m.want, as it was last seen

	imu  sync.Mutex // guards icmp
	icmp icmpQueue
}

var _ Link = (*UDPTunnel)(nil)

// NewUDPTunnel opens the socket of a tunnel. It reports an error for a configuration that is not safe or not possible, and the system's.
func NewUDPTunnel(config UDPConfig) (*UDPTunnel, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	network := "udp"
	var peer netip.AddrPort
	if config.Peer != "" {
		a, err := net.ResolveUDPAddr("udp", config.Peer)
		if err != nil {
			return nil, fmt.Errorf("link: udp: Peer: %w", err)
		}
		peer = unmap(a.AddrPort())
		if !peer.IsValid() || peer.Port() == 0 || peer.Addr().IsUnspecified() || peer.Addr().IsMulticast() {
			return nil, fmt.Errorf("link: udp: Peer %q is not the address and port of a host", config.Peer)
		}
		network = "udp6"
		if peer.Addr().Is4() {
			network = "udp4"
		}
	}
	l := &UDPTunnel{epoch: time.Now(), done: make(chan struct{}), wake: make(chan struct{}, 1), armed: udpNever}
	if config.Insecure {
		l.plain = peer
	} else {
		var err error
		if l.m, err = newUDPMachine(config.Key, peer, func(b []byte) { rand.Read(b) }); err != nil {
			return nil, fmt.Errorf("link: udp: Key: %w", err)
		}
		l.overhead = udpSealLen
	}
	l.setMTU(config.MTU, peer)
	if err := l.listen(network, config.Local); err != nil {
		return nil, fmt.Errorf("link: udp: Local: %w", err)
	}
	l.rx.init()
	return l, nil
}

// check tells whether a configuration says what it must.
func (c *UDPConfig) check() error {
	const howTo = `32 bytes from crypto/rand, the same at both ends (in a shell: "openssl rand -base64 32")`
	most := maxUDPPayload
	switch {
	case c.Insecure && c.Key != nil:
		return fmt.Errorf("link: udp: Insecure is set, and so is Key: leave Insecure out to have packets encrypted, or Key to have them sent as they are")
	case c.Insecure && c.Peer == "":
		return fmt.Errorf(`link: udp: Insecure needs a Peer ("host:port"): without a key nobody can show that he is the one; better give a Key of ` + howTo)
	case !c.Insecure && c.Key == nil:
		return fmt.Errorf("link: udp: Key is missing: give " + howTo)
	case !c.Insecure && len(c.Key) != udpKeyLen:
		return fmt.Errorf("link: udp: Key has %d bytes, not %d: give "+howTo, len(c.Key), udpKeyLen)
	case !c.Insecure && [udpKeyLen]byte(c.Key) == [udpKeyLen]byte{}:
		return fmt.Errorf("link: udp: Key is all zero, which is no secret: give " + howTo)
	}
	if !c.Insecure {
		most -= udpSealLen
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > most) {
		return fmt.Errorf("link: udp: MTU %d is not within %d..%d", c.MTU, minMTU, most)
	}
	return nil
}

// listen opens the socket.
func (l *UDPTunnel) listen(network, local string) error {
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

// MTU returns the largest packet in bytes: UDPConfig.MTU, or what was found when the tunnel was opened.
func (l *UDPTunnel) MTU() int { return l.mtu }

// LocalAddr returns the address and port of the socket.
func (l *UDPTunnel) LocalAddr() netip.AddrPort { return l.local }

// Peer returns the address of the other end, where it was last heard of; it is not valid before that, if it was not configured.
func (l *UDPTunnel) Peer() netip.AddrPort {
	if l.m == nil {
		return l.plain
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m.peer
}

// Stats returns what has been counted so far.
func (l *UDPTunnel) Stats() UDPStats {
	c := &l.stats
	s := UDPStats{
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

func (l *UDPTunnel) now() int64 { return int64(time.Since(l.epoch)) }

// Start implements [Link]. Where the peer's address is known it asks for a session at once, so that the other end learns of this one.
func (l *UDPTunnel) Start(ready func()) error {
	if ready == nil {
		return errNoReady
	}
	l.smu.Lock()
	defer l.smu.Unlock()
	switch l.state.Load() {
	case stateStarted:
		return errStarted
	case stateClosed:
		return net.ErrClosed
	}
	l.ready = ready
	l.state.Store(stateStarted)
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

// Close implements [Link]. The other end is not told.
func (l *UDPTunnel) Close() error {
	l.smu.Lock()
	was := l.state.Swap(stateClosed)
	l.smu.Unlock()
	if was == stateClosed {
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
func (l *UDPTunnel) spawn(f func()) {
	l.smu.Lock()
	defer l.smu.Unlock()
	if l.state.Load() != stateClosed {
		l.wg.Go(f)
	}
}

// daemon is the tunnel's clock: it does what is due. While a session is wanted and nobody is in Read, it reads in his place, so that what Write has
// begun comes to an end whether or not somebody reads.
func (l *UDPTunnel) daemon() {
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
func (l *UDPTunnel) rearm() {
	l.wanted.Store(l.m.want)
	if d := l.m.deadline(); d < l.armed {
		l.armed = d
		l.rouse()
	}
}

func (l *UDPTunnel) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
