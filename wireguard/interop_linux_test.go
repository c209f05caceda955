//go:build linux

package wireguard

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bsdnet"
	"bsdnet/internal/nstest"
)

// A host is the kernel of a network namespace that runs wireguard-go: 10.8.0.1 and fd08::1, on port
// 51820. A cable connects it to the test program, which has no other network.
type host struct {
	*nstest.NS
	public   Key
	us, them string // the cable's addresses, to be put before a port
}

// newHost starts a host whose peer has the key theirPeer, with extra in the [Peer] section.
func newHost(t *testing.T, name string, ipv6 bool, theirPeer Key, extra func(us string) string) *host {
	t.Helper()
	nstest.Need(t, "ip", "wg", "wireguard-go", "curl", "ping", "/dev/net/tun")
	h := &host{NS: nstest.New(t), us: "192.0.2.1", them: "192.0.2.2"}
	nets := []string{"192.0.2.1/24", "192.0.2.2/24"}
	if ipv6 {
		if !hasIPv6() {
			nstest.Skip(t, "no IPv6: there is no /proc/net/if_inet6")
		}
		h.us, h.them = "[2001:db8::1]", "[2001:db8::2]"
		nets = []string{"2001:db8::1/64", "2001:db8::2/64"}
	}
	ours, theirs := "to-"+name, "to-test"
	own(t, "ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", h.Path())
	t.Cleanup(func() { own(t, "ip", "link", "del", ours) })
	addr := func(dev, ip string) []string {
		args := []string{"ip", "addr", "add", ip, "dev", dev}
		if ipv6 {
			args = append(args, "nodad")
		}
		return args
	}
	own(t, addr(ours, nets[0])...)
	own(t, "ip", "link", "set", ours, "up")
	h.Run(t, addr(theirs, nets[1])...)
	h.Run(t, "ip", "link", "set", theirs, "up")

	private := NewSecret()
	h.public = private.Public()
	conf := filepath.Join(t.TempDir(), "wg.conf")
	text := fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = 51820\n"+
		"[Peer]\nPublicKey = %v\nAllowedIPs = 10.8.0.2/32, fd08::2/128\n%s\n", private.Base64(), theirPeer, extra(h.us))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out := h.Background(t, "env", "WG_PROCESS_FOREGROUND=1", "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1",
		"LOG_LEVEL=verbose", "wireguard-go", "-f", name)
	// wg itself removes a socket that does not listen yet.
	await(t, "wireguard-go listens", func() bool { return strings.Contains(out.String(), "UAPI listener started") })
	h.Run(t, "wg", "setconf", name, conf)
	h.Run(t, "ip", "addr", "add", "10.8.0.1/24", "dev", name)
	h.Run(t, "ip", "link", "set", name, "mtu", "1420", "up")
	if hasIPv6() {
		h.Run(t, "ip", "addr", "add", "fd08::1/64", "dev", name, "nodad")
	}
	shown := parseT(t, h.Run(t, "wg", "showconf", name))
	if shown.PrivateKey.Public() != h.public || shown.ListenPort != 51820 ||
		len(shown.Peers) != 1 || shown.Peers[0].PublicKey != theirPeer {
		t.Errorf("wg showconf, read by Parse: %+v", shown)
	}
	return h
}

// hasIPv6 reports whether the kernel has IPv6.
func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// inner are the addresses of the two families inside the network: the host's and the stack's, to be
// put before a port.
func inner() [][2]string {
	list := [][2]string{{"10.8.0.1", "10.8.0.2"}}
	if hasIPv6() {
		list = append(list, [2]string{"[fd08::1]", "[fd08::2]"})
	}
	return list
}

// own runs a program in the test program's own namespace.
func own(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// The other end is Debian's wireguard-go with the TCP of its kernel. Once this end dials, over
// IPv4, and once the other end does, over IPv6; TCP uses both families each time.
func TestInterop(t *testing.T) {
	private, psk := NewSecret(), NewSecret()
	ours := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.8.0.2/24, fd08::2/64\n", private.Base64())
	theirPeer := func(h *host) string {
		return fmt.Sprintf("[Peer]\nPublicKey = %v\nPresharedKey = %s\nAllowedIPs = 10.8.0.0/24, fd08::/64\n",
			h.public, psk.Base64())
	}
	t.Run("WeCall", func(t *testing.T) {
		h := newHost(t, "wg0", false, private.Public(), func(string) string { return "PresharedKey = " + psk.Base64() })
		l := openT(t, parseT(t, ours+theirPeer(h)+"Endpoint = "+h.them+":51820\n"))
		s := attachT(t, l)
		for _, at := range inner() {
			h.serves(t, s, at[0])
		}
		h.calls(t, s)
		if p := l.Peers()[0]; p.LastHandshake.IsZero() {
			t.Errorf("no handshake: %+v", p)
		}
	})
	t.Run("TheyCall", func(t *testing.T) {
		h := newHost(t, "wg1", true, private.Public(), func(us string) string {
			return fmt.Sprintf("PresharedKey = %s\nEndpoint = %s:41820\n", psk.Base64(), us)
		})
		l := openT(t, parseT(t, ours+"ListenPort = 41820\n"+theirPeer(h)))
		s := attachT(t, l)
		h.calls(t, s)
		for _, at := range inner() {
			h.serves(t, s, at[0])
		}
		if p := l.Peers()[0]; p.Endpoint.String() != h.them+":51820" {
			t.Errorf("%+v; should be at %s", p, h.them)
		}
	})
}

const interopBulk = 4 << 20

// calls makes the host's kernel connect to a server on our stack, with ping, curl and Go's client.
func (h *host) calls(t *testing.T, s *bsdnet.Stack) {
	t.Helper()
	ln, err := s.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	serveBulk(t, ln, interopBulk)
	for _, at := range inner() {
		h.callsAt(t, at[1])
	}
}

// callsAt is calls for one of the stack's addresses.
func (h *host) callsAt(t *testing.T, at string) {
	t.Helper()
	bare, url := strings.Trim(at, "[]"), "http://"+at+"/"
	for _, size := range []string{"56", "1372", "1392", "8000"} { // 1392 fills the MTU over IPv4, 1372 over IPv6
		out := h.Run(t, "ping", "-c", "2", "-i", "0.2", "-s", size, bare)
		if !strings.Contains(out, " 0% packet loss") {
			t.Errorf("ping -s %s: %s", size, out)
		}
	}
	to := filepath.Join(t.TempDir(), "body")
	h.Run(t, "curl", "-sS", "-f", "-o", to, "-g", url)
	f, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, want := sum(f), sum(bulk(interopBulk, 1)); got != want {
		t.Errorf("curl: %s, want %s", got, want)
	}
	out := h.Run(t, "curl", "-sS", "-f", "-H", "Expect:", "--data-binary", "@"+to, "-g", url)
	if want := sum(bulk(interopBulk, 1)); out != want {
		t.Errorf("curl --data-binary: %s, want %s", out, want)
	}
	getBulk(t, &http.Client{Transport: &http.Transport{DialContext: h.DialContext}}, url, interopBulk)
}

// serves makes our stack connect to a server on the host's kernel, at one of the host's addresses.
func (h *host) serves(t *testing.T, s *bsdnet.Stack, at string) {
	t.Helper()
	ln, err := h.Listen("tcp", at+":80")
	if err != nil {
		t.Fatal(err)
	}
	serveBulk(t, ln, interopBulk)
	getBulk(t, client(s), "http://"+at+"/", interopBulk)
	if _, err := s.Dial("tcp", at+":81"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a port without a listener: %v", err)
	}
	echo, err := h.Listen("tcp", at+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		if c, err := echo.Accept(); err == nil {
			io.Copy(c, c)
			c.(*net.TCPConn).CloseWrite()
		}
	}()
	c, err := s.Dial("tcp", at+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "there and back")
	c.(*bsdnet.TCPConn).CloseWrite()
	if text, err := io.ReadAll(c); string(text) != "there and back" || err != nil {
		t.Errorf("half-closed: %q, %v", text, err)
	}
}
