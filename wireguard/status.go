package wireguard

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A PeerStatus is how a link stands with a peer: what wg show tells.
type PeerStatus struct {
	PublicKey     Key
	Endpoint      netip.AddrPort // where it was last; invalid: not known
	LastHandshake time.Time      // zero: there has been none
	Received      uint64         // bytes in datagrams from the peer
	Sent          uint64         // bytes in datagrams to the peer
}

// Peers returns the status of all peers, in the configuration's order; none after Close.
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

// Port returns the UDP port on which the link listens.
func (l *Link) Port() int {
	port, _ := l.status()
	return port
}

// status asks the device, in its own language (wireguard.com/xplatform, "Configuration Protocol").
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
