package bsdnet

import (
	"net"
	"net/netip"
	"time"

	"bsdnet/internal/link"
)

// UDPConfig configures a [UDPTunnel].
type UDPConfig struct {
	// Local is the address to receive on, "host:port". "": any address of the host, and any port.
	Local string

	// Peer is where the other end is, "host:port"; a name is looked up once, in OpenUDP. It may move later: the tunnel follows whoever shows that he
	// has the key. "": the other end makes the first move, and nothing can be sent before. At least one end needs a Peer.
	Peer string

	// Key is the secret that the two ends, and nobody else, have in common: 32 bytes from a good source, such as crypto/rand or
	// "openssl rand -base64 32". OpenUDP copies it.
	Key []byte

	// MTU is the largest IP packet in bytes, 68 to 65475. 0: what the path to the Peer carries in one datagram that is not fragmented, as the system
	// knows it when the tunnel is opened: 1440 over IPv4 and Ethernet, 1420 over IPv6. Where the system does not know, or there is no Peer: 1420.
	// Should the path turn out to carry less, TCP is told as by a router on it (RFC 1191).
	MTU int

	// Insecure sends packets as they are: neither encrypted nor authenticated. Then Peer must be given and Key must not, and MTU may be up to 65507.
	// Whoever can forge the Peer's address can send the stack any packet. It is meant for the loopback, and for networks that do all this themselves.
	Insecure bool
}

// UDPStats are the counters of a [UDPTunnel].
type UDPStats struct {
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

// A UDPStatus tells how a [UDPTunnel] stands with its other end. It is for people: a tunnel goes on trying whatever it says, and nothing that arrives without
// proof of the key changes more of it than a counter, except SocketErr, as ICMP messages prove nothing.
type UDPStatus struct {
	// Peer is the address of the other end: see [UDPTunnel.Peer].
	Peer netip.AddrPort

	// Established says that there is a session, and Since is when the first of those began that followed one another without a break. Without Key there never is
	// one. An idle tunnel's session ends after three minutes, and the next packet asks for a new one.
	Established bool
	Since       time.Time

	// LastHandshake is when the two ends last agreed on a session, LastHeard when a datagram last arrived that proves the key. Zero: never.
	LastHandshake, LastHeard time.Time

	// Unanswered is how many handshakes were begun since the last that came to an end; one a second is as long as there is something to send.
	Unanswered int

	// Unverified are the datagrams that were dropped because they were not made with the key, or are not of the protocol: UDPStats.Forged and Malformed. If they
	// come where the other end's should, its key is another. Anybody can send them.
	Unverified uint64

	// SocketErr is the system's last error about a datagram to the other end, nil if there was none, and SocketErrTime its time. On Linux that is also what ICMP
	// says, such as syscall.ECONNREFUSED: nothing listens there.
	SocketErr     error
	SocketErrTime time.Time

	// Err says in a sentence why nothing comes through. It wraps SocketErr if that is the reason. nil: the other end answers, or nobody has tried.
	// net.ErrClosed: the tunnel is closed. An end with another key does not answer, so that here it looks as if nobody were there; that end counts Unverified.
	Err error
}

// A UDPTunnel is a [Link] that carries packets in UDP datagrams to another process or host, authenticated and encrypted (ChaCha20-Poly1305, with keys
// from X25519 and the Key of UDPConfig): who does not have the key can neither read nor send. Three lines on one host, and the same on another with its
// address as Peer and without one here, connect two stacks:
//
//	tun, err := bsdnet.OpenUDP(bsdnet.UDPConfig{Local: ":7000", Key: key})
//	…
//	stack.Attach(tun, netip.MustParsePrefix("10.0.0.1/24"))
//
// It loses what the network loses. The first packets wait for the key exchange, which takes two round trips; a peer that does not answer is tried once
// a second as long as there is something to send, and what is sent meanwhile is lost after three seconds. docs/udp-tunnel.md describes the protocol.
type UDPTunnel struct{ l *link.UDPTunnel }

var _ DiagnosingLink = (*UDPTunnel)(nil)

// OpenUDP opens a tunnel's socket. The error says what is wrong with the configuration, or is the system's. Attach sets the tunnel to work.
func OpenUDP(c UDPConfig) (*UDPTunnel, error) {
	l, err := link.NewUDPTunnel(link.UDPConfig(c))
	if err != nil {
		return nil, err
	}
	return &UDPTunnel{l}, nil
}

// MTU implements [Link].
func (t *UDPTunnel) MTU() int { return t.l.MTU() }

// Start implements [Link]. Where a Peer is configured it is called at once.
func (t *UDPTunnel) Start(ready func()) error { return t.l.Start(ready) }

// Read implements [Link].
func (t *UDPTunnel) Read(bufs [][]byte, sizes []int) (int, error) { return t.l.Read(bufs, sizes) }

// Write implements [Link].
func (t *UDPTunnel) Write(pkts []net.Buffers) (int, error) { return t.l.Write(pkts) }

// Close implements [Link]. The other end is not told.
func (t *UDPTunnel) Close() error { return t.l.Close() }

// LocalAddr returns the address and port of the socket.
func (t *UDPTunnel) LocalAddr() netip.AddrPort { return t.l.LocalAddr() }

// Peer returns the address of the other end, as configured or, later, where it was last heard of. It is not valid as long as there is none.
func (t *UDPTunnel) Peer() netip.AddrPort { return t.l.Peer() }

// Status returns how the tunnel stands with the other end.
func (t *UDPTunnel) Status() UDPStatus { return UDPStatus(t.l.Status()) }

// Diagnose implements [DiagnosingLink]: it returns the Err of Status.
func (t *UDPTunnel) Diagnose(to netip.Addr) error { return t.l.Diagnose(to) }

// Stats returns what has been counted so far.
func (t *UDPTunnel) Stats() UDPStats { return UDPStats(t.l.Stats()) }
