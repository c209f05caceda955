package main

import (
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"bsdnet"
	"bsdnet/tun"
	"bsdnet/udptunnel"
	"bsdnet/wireguard"
)

// linkOptions are the flags that choose the stack's link.
type linkOptions struct {
	link   string // "loopback" or "", "tun", "udp", "wireguard"
	ip     string // the stack's address
	tun    string // name of the TUN device
	host   string // the kernel's address on it
	local  string // the tunnel's own address
	peer   string // the address of the tunnel's other end
	key    string // file with the tunnel's key
	config string // WireGuard's configuration
}

func (o *linkOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.link, "link", "loopback", "attach the stack to this `link`: loopback, tun, udp or wireguard")
	f.StringVar(&o.ip, "ip", "", "the stack's `address`; the default is 10.0.0.2/24 with tun, "+
		"and with udp 10.9.0.1/24, or 10.9.0.2/24 with -peer")
	f.StringVar(&o.tun, "tun", "", "tun: the device's `name`; the default is the first free one")
	f.StringVar(&o.host, "host", "10.0.0.1/24", "tun: the kernel's `address`; \"\" if the device is set up already")
	f.StringVar(&o.local, "local", "", "udp: the `address` that the tunnel receives on; the default is any port")
	f.StringVar(&o.peer, "peer", "", "udp: the `address` of the other end; by default the tunnel waits for "+
		"a peer that has the key")
	f.StringVar(&o.key, "key", "", "udp: a `file` with 32 random bytes, in base64 or not, the same at both ends: "+
		"openssl rand -base64 32 >file")
	f.StringVar(&o.config, "config", "", "wireguard: a `file` as for wg-quick")
}

// linkFlags are the flags that only some links have.
var linkFlags = []struct{ name, links string }{
	{"ip", "tun or udp"}, {"tun", "tun"}, {"host", "tun"},
	{"local", "udp"}, {"peer", "udp"}, {"key", "udp"}, {"config", "wireguard"},
}

// check returns an error if the link does not exist, or if a flag belongs to another link.
func (o *linkOptions) check(given map[string]bool) error {
	switch o.link {
	case "loopback", "tun", "udp", "wireguard":
	default:
		return o.unknown()
	}
	for _, f := range linkFlags {
		if given[f.name] && !slices.Contains(strings.Fields(f.links), o.link) {
			return badUsage("-%s is for -link %s, and the link is %s", f.name, f.links, o.link)
		}
	}
	return nil
}

func (o *linkOptions) unknown() error {
	return badUsage("-link is %q; it can be loopback, tun, udp or wireguard", o.link)
}

// A way describes how clients reach the stack.
type way struct {
	link bsdnet.Link
	ip   netip.Addr // the stack's address on the link
	who  string     // who can reach the stack, for the user to read

	// client returns a client in this process that reaches the stack. It is nil if only other
	// processes can reach it.
	client func(*bsdnet.Stack) *http.Client
}

// reachable returns the address at which clients reach a listener's address.
func (w *way) reachable(a net.Addr) string {
	t := a.(*net.TCPAddr)
	host := t.IP.String()
	if t.IP.IsUnspecified() {
		host = w.ip.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(t.Port))
}

// attach gives the stack its link.
func (o *linkOptions) attach(stack *bsdnet.Stack) (*way, error) {
	switch o.link {
	case "", "loopback":
		return &way{ip: netip.MustParseAddr("127.0.0.1"), who: "inside the stack, without a relay",
			client: (*bsdnet.Stack).HTTPClient}, nil
	case "tun":
		return o.attachTUN(stack)
	case "udp":
		return o.attachUDP(stack)
	case "wireguard":
		return o.attachWireGuard(stack)
	}
	return nil, o.unknown()
}

// address returns the stack's address and network.
func (o *linkOptions) address(def string) (netip.Prefix, error) {
	if o.ip == "" {
		o.ip = def
	}
	p, err := netip.ParsePrefix(o.ip)
	if err != nil {
		return p, badUsage("-ip: %w; give an address with the length of its network, such as %s", err, def)
	}
	if !p.Addr().Is4() {
		return p, badUsage("-ip: the stack has IPv4 only; give an address such as %s", def)
	}
	return p, nil
}

func (o *linkOptions) attachTUN(stack *bsdnet.Stack) (*way, error) {
	ip, err := o.address("10.0.0.2/24")
	if err != nil {
		return nil, err
	}
	c := tun.Config{Name: o.tun}
	if o.host != "" {
		if c.Host, err = netip.ParsePrefix(o.host); err != nil {
			return nil, badUsage("-host: %w; give an address with the length of its network, such as 10.0.0.1/24", err)
		}
	}
	dev, err := tun.Open(c)
	if err != nil {
		return nil, err
	}
	if err := stack.Attach(dev, ip); err != nil {
		dev.Close()
		return nil, err
	}
	kernels := func(*bsdnet.Stack) *http.Client { return &http.Client{Transport: &http.Transport{}} }
	return &way{link: dev, ip: ip.Addr(), who: "for this host, over " + dev.Name(), client: kernels}, nil
}

func (o *linkOptions) attachUDP(stack *bsdnet.Stack) (*way, error) {
	def := "10.9.0.1/24"
	if o.peer != "" {
		def = "10.9.0.2/24"
	}
	ip, err := o.address(def)
	if err != nil {
		return nil, err
	}
	if o.key == "" {
		return nil, badUsage("-link udp needs -key; openssl rand -base64 32 >secret makes a key for both ends")
	}
	text, err := os.ReadFile(o.key)
	if err != nil {
		return nil, err
	}
	key, err := readKey(text)
	if err != nil {
		return nil, fmt.Errorf("-key %s: %w", o.key, err)
	}
	tunnel, err := udptunnel.Open(udptunnel.Config{Local: o.local, Peer: o.peer, Key: key})
	if err != nil {
		return nil, err
	}
	if err := stack.Attach(tunnel, ip); err != nil {
		tunnel.Close()
		return nil, err
	}
	who := fmt.Sprintf("for anyone who has the key, at %v", tunnel.LocalAddr())
	return &way{link: tunnel, ip: ip.Addr(), who: who}, nil
}

func (o *linkOptions) attachWireGuard(stack *bsdnet.Stack) (*way, error) {
	if o.config == "" {
		return nil, badUsage("-link wireguard needs -config, a file as for wg-quick")
	}
	c, err := wireguard.ParseFile(o.config)
	if err != nil {
		return nil, err
	}
	wg, err := wireguard.Open(c)
	if err != nil {
		return nil, err
	}
	if err := wg.AttachTo(stack); err != nil {
		wg.Close()
		return nil, err
	}
	w := &way{link: wg, who: "for its peers"}
	for _, a := range c.Addresses {
		if a.Addr().Is4() {
			w.ip = a.Addr()
			break
		}
	}
	return w, nil
}

// readKey returns the key in a file, which holds 32 bytes in base64 or as they are.
func readKey(text []byte) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	switch {
	case len(text) == 32:
		return text, nil // this cannot be base64, of which 32 characters are 24 bytes
	case err != nil || len(key) != 32:
		return nil, fmt.Errorf("the file has %d bytes; want 32 bytes, in base64 or as they are", len(text))
	}
	return key, nil
}
