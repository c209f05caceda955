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
	ip     string // the stack's addresses
	tun    string // name of the TUN device
	host   string // the kernel's addresses on it
	local  string // the tunnel's own address
	peer   string // the address of the tunnel's other end
	key    string // file with the tunnel's key
	config string // WireGuard's configuration
}

func (o *linkOptions) flags(f *flag.FlagSet) {
	f.StringVar(&o.link, "link", "loopback", "attach the stack to this `link`: loopback, tun, udp or wireguard")
	f.StringVar(&o.ip, "ip", "", "the stack's `addresses`, separated by commas; the default is 10.0.0.2/24,fd00::2/64 "+
		"with tun, and with udp 10.9.0.1/24,fd00::1/64, or 10.9.0.2/24,fd00::2/64 with -peer")
	f.StringVar(&o.tun, "tun", "", "tun: the device's `name`; the default is the first free one")
	f.StringVar(&o.host, "host", defaultHost, "tun: the kernel's `addresses`, one of each family; "+
		"\"\" if the device is set up already")
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

// defaultHost are the kernel's addresses on a TUN device.
const defaultHost = "10.0.0.1/24,fd00::1/64"

// A way describes how clients reach the stack.
type way struct {
	link bsdnet.Link
	ips  []netip.Addr // the stack's addresses on the link; at least one
	who  string       // who can reach the stack, for the user to read

	// client returns a client in this process that reaches the stack. It is nil if only other
	// processes can reach it.
	client func(*bsdnet.Stack) *http.Client
}

// reachable returns the addresses at which clients reach a listener's address. A listener on ::
// takes both families, as in package net.
func (w *way) reachable(a net.Addr) (list []string) {
	t := a.(*net.TCPAddr)
	port := strconv.Itoa(t.Port)
	for _, ip := range w.ips {
		if t.IP.IsUnspecified() && (t.IP.To4() == nil || ip.Is4()) {
			list = append(list, net.JoinHostPort(ip.String(), port))
		}
	}
	if list == nil {
		list = []string{net.JoinHostPort(t.IP.String(), port)}
	}
	return list
}

// addrs returns the addresses of prefixes.
func addrs(prefixes []netip.Prefix) (list []netip.Addr) {
	for _, p := range prefixes {
		list = append(list, p.Addr())
	}
	return list
}

// attach gives the stack its link.
func (o *linkOptions) attach(stack *bsdnet.Stack) (*way, error) {
	switch o.link {
	case "", "loopback":
		return &way{ips: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()},
			who: "inside the stack, without a relay", client: (*bsdnet.Stack).HTTPClient}, nil
	case "tun":
		return o.attachTUN(stack)
	case "udp":
		return o.attachUDP(stack)
	case "wireguard":
		return o.attachWireGuard(stack)
	}
	return nil, o.unknown()
}

// addresses returns the stack's addresses, with their networks.
func (o *linkOptions) addresses(def string) ([]netip.Prefix, error) {
	if o.ip == "" {
		return parseAddresses("-ip", def)
	}
	return parseAddresses("-ip", o.ip)
}

// parseAddresses parses the value of a flag.
func parseAddresses(name, value string) (list []netip.Prefix, err error) {
	for s := range strings.SplitSeq(value, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, badUsage("%s: %w; give addresses with the lengths of their networks, such as %s",
				name, err, defaultHost)
		}
		list = append(list, p)
	}
	return list, nil
}

func (o *linkOptions) attachTUN(stack *bsdnet.Stack) (*way, error) {
	ips, err := o.addresses("10.0.0.2/24,fd00::2/64")
	if err != nil {
		return nil, err
	}
	c := tun.Config{Name: o.tun}
	if o.host != "" {
		hosts, err := parseAddresses("-host", o.host)
		if err != nil {
			return nil, err
		}
		for _, p := range hosts {
			to := &c.Host
			if p.Addr().Is6() {
				to = &c.Host6
			}
			if to.IsValid() {
				return nil, badUsage("-host: %v and %v are of one family; give one address of each", *to, p)
			}
			*to = p
		}
	}
	dev, err := tun.Open(c)
	if err != nil && o.ip == "" && o.host == defaultHost {
		// The kernel's IPv6 may be switched off, as in many containers.
		c.Host6 = netip.Prefix{}
		if only4, err4 := tun.Open(c); err4 == nil {
			dev, ips, err = only4, ips[:1], nil
		}
	}
	if err != nil {
		return nil, err
	}
	if err := stack.Attach(dev, ips...); err != nil {
		dev.Close()
		return nil, err
	}
	kernels := func(*bsdnet.Stack) *http.Client { return &http.Client{Transport: &http.Transport{}} }
	return &way{link: dev, ips: addrs(ips), who: "for this host, over " + dev.Name(), client: kernels}, nil
}

func (o *linkOptions) attachUDP(stack *bsdnet.Stack) (*way, error) {
	def := "10.9.0.1/24,fd00::1/64"
	if o.peer != "" {
		def = "10.9.0.2/24,fd00::2/64"
	}
	ips, err := o.addresses(def)
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
	if err := stack.Attach(tunnel, ips...); err != nil {
		tunnel.Close()
		return nil, err
	}
	who := fmt.Sprintf("for anyone who has the key, at %v", tunnel.LocalAddr())
	return &way{link: tunnel, ips: addrs(ips), who: who}, nil
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
	return &way{link: wg, ips: addrs(c.Addresses), who: "for its peers"}, nil
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
