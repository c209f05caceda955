package wireguard

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// DefaultMTU is the MTU of a link whose configuration names none, in bytes: 80 bytes, for IPv6, UDP and WireGuard itself, off Ethernet's 1500.
const DefaultMTU = 1420

const (
	overhead = 80
	minMTU   = 68 // RFC 791, 3.2
	maxMTU   = min(device.MaxContentSize, 65535-overhead)
)

// maxKeepalive is the longest interval of keepalives that the protocol's other implementations take.
const maxKeepalive = 65535 * time.Second

// A Config configures a [Link]. [Parse] makes one of a file; a program may also fill it in, or change it, itself.
type Config struct {
	// PrivateKey is this end's key. Required.
	PrivateKey Secret

	// Addresses are this end's addresses in the network, each with the prefix of what is reached directly.
	Addresses []netip.Prefix

	// ListenPort is the UDP port. 0: any.
	ListenPort int

	// MTU is the largest IP packet in bytes, 68 to 65455. 0: DefaultMTU. The datagrams on the network below are up to 80 bytes longer.
	MTU int

	// FwMark is put on the datagrams, where the system can. 0: none.
	FwMark uint32

	// NoRoutes is set by Table = off: AttachTo adds no routes.
	NoRoutes bool

	// DNS are the name servers and search domains of the file. The package does nothing with them.
	DNS []string

	// Hooks are the commands in the file. Open fails while there are any.
	Hooks []Hook

	// Peers are the other ends.
	Peers []Peer

	// Logger gets the errors of the protocol's machinery, such as datagrams that cannot be sent, from any goroutine. nil: nobody. It never gets a
	// secret.
	Logger *slog.Logger
}

// A Peer is another end of the network.
type Peer struct {
	// PublicKey is who it is. Required.
	PublicKey Key

	// PresharedKey is mixed into the handshake. Zero: none.
	PresharedKey Secret

	// AllowedIPs are what is behind the peer: packets to them go to it, and from it only those from them are taken. Where two peers have the same
	// prefix the later one has it.
	AllowedIPs []netip.Prefix

	// Endpoint is where the peer is at first, "host:port" or "[IPv6 address]:port"; afterwards it is where the last authenticated packet came from.
	// "": the peer has to come by itself.
	Endpoint string

	// PersistentKeepalive is after how long without a packet to the peer an empty one is sent, in whole seconds, at most 65535 of them. 0: never.
	PersistentKeepalive time.Duration
}

// A Hook is a PreUp, PostUp, PreDown or PostDown of a file.
type Hook struct {
	Key     string // "PostUp"
	Command string
	Line    int // where it stands
}

// check reports what is wrong with a configuration, be it from a file or made by hand. Names are resolved later.
func (c *Config) check() error {
	if len(c.Hooks) > 0 {
		h := c.Hooks[0]
		return fmt.Errorf("%s in line %d: commands are not run here: do without, by removing the line or by emptying Config.Hooks", h.Key, h.Line)
	}
	switch {
	case c.PrivateKey.IsZero():
		return errors.New("PrivateKey is missing: wg genkey makes one, and so does NewSecret")
	case c.ListenPort < 0 || c.ListenPort > 65535:
		return fmt.Errorf("ListenPort is %d; it can be 0, for any, to 65535", c.ListenPort)
	case c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU):
		return fmt.Errorf("MTU is %d; it can be %d to %d bytes", c.MTU, minMTU, maxMTU)
	}
	for _, a := range c.Addresses {
		if !a.IsValid() || a.Addr().Is4In6() || a.Addr().Zone() != "" {
			return fmt.Errorf("Address %v is not an address with its prefix length, such as 10.0.0.1/24", a)
		}
	}
	own, seen := c.PrivateKey.Public(), map[Key]bool{}
	for i := range c.Peers {
		p := &c.Peers[i]
		if err := p.check(); err != nil {
			return fmt.Errorf("peer %v: %w", p.PublicKey, err)
		}
		switch {
		case p.PublicKey == own:
			return fmt.Errorf("peer %v: PublicKey belongs to this end's own PrivateKey; it should be the other end's", p.PublicKey)
		case seen[p.PublicKey]:
			return fmt.Errorf("peer %v: there are two of that PublicKey; put their AllowedIPs into one", p.PublicKey)
		}
		seen[p.PublicKey] = true
	}
	return nil
}

func (p *Peer) check() error {
	if p.PublicKey == (Key{}) {
		return errors.New("PublicKey is missing: wg pubkey makes it of the other end's private key, and so does Secret.Public")
	}
	if k := p.PersistentKeepalive; k < 0 || k > maxKeepalive || k%time.Second != 0 {
		return fmt.Errorf("PersistentKeepalive is %v; it can be 0, for none, or whole seconds up to 65535", k)
	}
	for _, a := range p.AllowedIPs {
		if !a.IsValid() || a.Addr().Is4In6() {
			return fmt.Errorf("AllowedIPs has %v, which is not a prefix such as 10.0.0.0/24", a)
		}
	}
	if p.Endpoint == "" {
		return nil
	}
	if err := checkEndpoint(p.Endpoint); err != nil {
		return fmt.Errorf("Endpoint: %w", err)
	}
	return nil
}

func checkEndpoint(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("%s; it should be host:port, 192.0.2.1:51820 or [2001:db8::1]:51820", show(s))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the port %s; it should be 1 to 65535", show(port))
	}
	return nil
}

// show quotes a value for an error. A value that is long enough to contain a key might be one, in the wrong place.
func show(s string) string {
	if len(s) > 42 {
		return "too long to show"
	}
	return strconv.Quote(s)
}

func (c *Config) mtu() int {
	if c.MTU == 0 {
		return DefaultMTU
	}
	return c.MTU
}

// uapi returns the configuration in the device's own language (wireguard.com/xplatform, "Configuration Protocol"). It resolves the endpoints.
func (c *Config) uapi() (string, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "private_key=%s\nlisten_port=%d\nfwmark=%d\n", hex.EncodeToString(c.PrivateKey.k[:]), c.ListenPort, c.FwMark)
	for i := range c.Peers {
		p := &c.Peers[i]
		fmt.Fprintf(&b, "public_key=%s\npreshared_key=%s\n", hex.EncodeToString(p.PublicKey[:]), hex.EncodeToString(p.PresharedKey.k[:]))
		if p.Endpoint != "" {
			to, err := net.ResolveUDPAddr("udp", p.Endpoint)
			if err != nil {
				return "", fmt.Errorf("peer %v: Endpoint: %w", p.PublicKey, err)
			}
			at := to.AddrPort()
			fmt.Fprintf(&b, "endpoint=%s\n", netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
		}
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", p.PersistentKeepalive/time.Second)
		for _, a := range p.AllowedIPs {
			fmt.Fprintf(&b, "allowed_ip=%s\n", a.Masked())
		}
	}
	return b.String(), nil
}
