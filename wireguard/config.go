package wireguard

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"bsdnet"

	"bsdnet/internal/kern/wire"

	"golang.zx2c4.com/wireguard/device"
)

// DefaultMTU is the MTU, in bytes, of a link whose configuration has none: Ethernet's 1500 less 80
// for the headers of IPv6, UDP and WireGuard.
const DefaultMTU = 1420

const (
	overhead = 80
	dnsPort  = 53
	minMTU   = 68 // RFC 791, 3.2
	maxMTU   = min(device.MaxContentSize, 65535-overhead)
)

// maxKeepalive is the longest keepalive interval that other implementations of the protocol accept.
const maxKeepalive = 65535 * time.Second

// A Config configures a [Link]. [Parse] makes one from a file. A program may also make or change
// one itself.
type Config struct {
	// PrivateKey is this end's private key. It is required.
	PrivateKey Secret

	// Addresses are this end's addresses in the WireGuard network, each with the prefix of the
	// addresses that are reached directly.
	Addresses []netip.Prefix

	// ListenPort is the UDP port to listen on. If it is 0, the system chooses one.
	ListenPort int

	// MTU is the size of the largest IP packet in bytes, from 68 to 65455, or from 1280 with an
	// IPv6 Address. If it is 0, it is DefaultMTU. The datagrams on the network below are up to 80
	// bytes longer.
	MTU int

	// FwMark is the mark of the datagrams, for the system's routing and firewall. If it is 0, there
	// is none.
	FwMark uint32

	// NoRoutes says that AttachTo adds no routes. In a file this is Table = off.
	NoRoutes bool

	// DNS has the name servers, which are addresses, and the search domains. AttachTo gives them to
	// a stack that has no servers.
	DNS []string

	// Hooks has the commands of the file. Open fails while there are any.
	Hooks []Hook

	// Peers are the other ends.
	Peers []Peer

	// Logger receives the errors of the WireGuard device, for example that a datagram cannot be
	// sent. It is called from any goroutine, and never receives a secret. If it is nil, errors are
	// not logged.
	Logger *slog.Logger
}

// A Peer is another end of the WireGuard network.
type Peer struct {
	// PublicKey identifies the peer. It is required.
	PublicKey Key

	// PresharedKey is an additional secret for the handshake. If it is the zero Secret, there is
	// none.
	PresharedKey Secret

	// AllowedIPs are the addresses behind the peer. Packets to these addresses are sent to the
	// peer, and only packets from these addresses are accepted from it. If two peers have the same
	// prefix, it belongs to the later one.
	AllowedIPs []netip.Prefix

	// Endpoint is the peer's initial UDP address, "host:port" or "[IPv6 address]:port". Later, the
	// address is the one from which the last authenticated packet came. If it is empty, the peer
	// must make contact first.
	Endpoint string

	// PersistentKeepalive is the interval after which an empty packet is sent if no other packet
	// was sent to the peer: whole seconds, at most 65535 of them. If it is 0, no such packets are
	// sent.
	PersistentKeepalive time.Duration
}

// A Hook is a PreUp, PostUp, PreDown or PostDown command of a file.
type Hook struct {
	Key     string // such as "PostUp"
	Command string
	Line    int // the number of its line, from 1
}

// check returns an error if a configuration is invalid, whether it comes from a file or from a
// program. uapi looks up names later.
func (c *Config) check() error {
	if len(c.Hooks) > 0 {
		h := c.Hooks[0]
		return fmt.Errorf("%s in line %d: commands are not run here; if you do not need them, "+
			"remove the line or empty Config.Hooks", h.Key, h.Line)
	}
	switch {
	case c.PrivateKey.IsZero():
		return errors.New("PrivateKey is missing; make one with wg genkey or NewSecret")
	case c.ListenPort < 0 || c.ListenPort > 65535:
		return fmt.Errorf("ListenPort is %d; it can be 0, for any, to 65535", c.ListenPort)
	case c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU):
		return fmt.Errorf("MTU is %d; it can be %d to %d bytes", c.MTU, minMTU, maxMTU)
	}
	for _, a := range c.Addresses {
		if !a.IsValid() || a.Addr().Is4In6() || a.Addr().Zone() != "" {
			return fmt.Errorf("Address %v is not an address with its prefix length, such as 10.0.0.1/24", a)
		}
		if a.Addr().Is6() && c.mtu() < wire.IPv6MinMTU {
			return fmt.Errorf("Address %v needs an MTU of at least %d bytes (RFC 8200, 5), and MTU is %d",
				a, wire.IPv6MinMTU, c.mtu())
		}
	}
	if _, err := c.resolver(); err != nil {
		return err
	}
	own, seen := c.PrivateKey.Public(), map[Key]bool{}
	for i := range c.Peers {
		p := &c.Peers[i]
		if err := p.check(); err != nil {
			return fmt.Errorf("peer %v: %w", p.PublicKey, err)
		}
		switch {
		case p.PublicKey == own:
			return fmt.Errorf("peer %v: PublicKey belongs to this end's own PrivateKey; it should be the other end's",
				p.PublicKey)
		case seen[p.PublicKey]:
			return fmt.Errorf("peer %v: there are two peers with this PublicKey; put their AllowedIPs into one",
				p.PublicKey)
		}
		seen[p.PublicKey] = true
	}
	return nil
}

// resolver returns DNS in a stack's form. As in wg-quick, what is no address is a search domain.
func (c *Config) resolver() (dns bsdnet.DNSConfig, err error) {
	for _, s := range c.DNS {
		if err := checkDNS(s); err != nil {
			return dns, fmt.Errorf("DNS: %w", err)
		}
		if a, err := netip.ParseAddr(s); err == nil {
			dns.Servers = append(dns.Servers, netip.AddrPortFrom(a, dnsPort))
		} else {
			dns.Search = append(dns.Search, s)
		}
	}
	return dns, nil
}

func checkDNS(s string) error {
	a, err := netip.ParseAddr(s)
	if err == nil && (a.IsUnspecified() || a.IsMulticast()) || err != nil && !domain.MatchString(s) {
		return fmt.Errorf("%s; it should be a name server's address or a search domain", show(s))
	}
	return nil
}

// domain matches a search domain, of which at least one letter is no digit.
var domain = regexp.MustCompile(`^([0-9A-Za-z_-]{1,63}\.)*[0-9A-Za-z_-]*[A-Za-z_-][0-9A-Za-z_-]*\.?$`)

func (p *Peer) check() error {
	if p.PublicKey == (Key{}) {
		return errors.New("PublicKey is missing; make it from the other end's private key " +
			"with wg pubkey or Secret.Public")
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

// show quotes a value for an error text. It does not show a value that is long enough to contain a
// key, because a key may have been put in the wrong place.
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

// uapi returns the configuration in the language of the device (wireguard.com/xplatform,
// "Configuration Protocol"). It looks up the names in endpoints.
func (c *Config) uapi() (string, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "private_key=%s\nlisten_port=%d\nfwmark=%d\n",
		hex.EncodeToString(c.PrivateKey.k[:]), c.ListenPort, c.FwMark)
	for i := range c.Peers {
		p := &c.Peers[i]
		fmt.Fprintf(&b, "public_key=%s\npreshared_key=%s\n",
			hex.EncodeToString(p.PublicKey[:]), hex.EncodeToString(p.PresharedKey.k[:]))
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
