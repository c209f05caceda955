package wireguard

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"bsdnet/internal/link"
)

// A PeerStatus is the state of a peer, as wg show prints it.
type PeerStatus struct {
	PublicKey     Key
	Endpoint      netip.AddrPort // its last UDP address; invalid if it is not known
	LastHandshake time.Time      // when it ended; the zero Time if there was none
	Received      uint64         // bytes in datagrams from the peer
	Sent          uint64         // bytes in datagrams to the peer
}

// Peers returns the status of all peers, in the configuration's order. After Close it returns nil.
func (l *Link) Peers() []PeerStatus {
	_, found := l.status()
	var list []PeerStatus
	for _, k := range l.peers {
		if s, ok := found[k]; ok {
			list = append(list, *s)
		}
	}
	return list
}

// allowed says to which peer the packets to a prefix are sent.
type allowed struct {
	prefix netip.Prefix
	peer   Key
}

// sessionEnd is the age at which a session ends: Reject-After-Time of the protocol (whitepaper,
// section 6.1). Under traffic there is a new handshake every two minutes.
const sessionEnd = 180 * time.Second

// Diagnose implements [bsdnet.DiagnosingLink]. If there was no handshake within the last three
// minutes with the peer that has the address to in its AllowedIPs, it returns an error that says
// why nothing comes from that peer. A WireGuard peer does not answer anyone it does not know, so a
// wrong key looks as if there were no peer.
func (l *Link) Diagnose(to netip.Addr) error {
	if l.state.Load() == link.Closed {
		return net.ErrClosed
	}
	to = to.Unmap().WithZone("")
	var best *allowed
	for i := range l.allow {
		// If two prefixes are equal, the device uses the last one.
		if a := &l.allow[i]; a.prefix.Contains(to) && (best == nil || a.prefix.Bits() >= best.prefix.Bits()) {
			best = a
		}
	}
	if best == nil {
		return fmt.Errorf("wireguard: no peer has %v in its AllowedIPs", to)
	}
	_, peers := l.status()
	s := peers[best.peer]
	if s == nil {
		return nil
	}
	return s.complaint(time.Now())
}

// complaint returns an error that says why nothing comes from a peer, or nil.
func (s *PeerStatus) complaint(now time.Time) error {
	age := now.Sub(s.LastHandshake)
	switch {
	case !s.LastHandshake.IsZero() && age < sessionEnd:
		return nil
	case !s.Endpoint.IsValid():
		return fmt.Errorf("wireguard: peer %v has no Endpoint, and has not called", s.PublicKey)
	case !s.LastHandshake.IsZero():
		return fmt.Errorf("wireguard: no handshake with peer %v at %v for %v: "+
			"it is gone, or cannot be reached any more", s.PublicKey, s.Endpoint, age.Round(time.Second))
	case s.Sent == 0:
		return fmt.Errorf("wireguard: no handshake with peer %v at %v: nothing could be sent there",
			s.PublicKey, s.Endpoint)
	}
	return fmt.Errorf("wireguard: no handshake with peer %v at %v, %d bytes sent, %d received: "+
		"nobody is there, or the keys do not match", s.PublicKey, s.Endpoint, s.Sent, s.Received)
}

// Port returns the UDP port on which the link listens.
func (l *Link) Port() int {
	port, _ := l.status()
	return port
}

// status asks the device, in the device's language (wireguard.com/xplatform, "Configuration
// Protocol").
func (l *Link) status() (port int, peers map[Key]*PeerStatus) {
	var buf bytes.Buffer
	peers = map[Key]*PeerStatus{}
	if l.dev.IpcGetOperation(&buf) != nil {
		return 0, peers
	}
	var s *PeerStatus
	for in := bufio.NewScanner(bytes.NewReader(buf.Bytes())); in.Scan(); {
		key, value, _ := strings.Cut(in.Text(), "=")
		switch {
		case key == "listen_port":
			port, _ = strconv.Atoi(value)
		case key == "public_key":
			s = new(PeerStatus)
			hex.Decode(s.PublicKey[:], []byte(value))
			peers[s.PublicKey] = s
		case s != nil:
			s.set(key, value)
		}
	}
	return port, peers
}

func (s *PeerStatus) set(key, value string) {
	n, _ := strconv.ParseInt(value, 10, 64)
	switch key {
	case "endpoint":
		s.Endpoint, _ = netip.ParseAddrPort(value)
	case "last_handshake_time_sec":
		if n != 0 {
			s.LastHandshake = time.Unix(n, 0)
		}
	case "last_handshake_time_nsec":
		if n != 0 {
			s.LastHandshake = s.LastHandshake.Add(time.Duration(n))
		}
	case "rx_bytes":
		s.Received = uint64(n)
	case "tx_bytes":
		s.Sent = uint64(n)
	}
}
