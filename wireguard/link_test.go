package wireguard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/internal/testutil/stacktest"
)

// limit is the time limit for what should take no time.
const limit = 30 * time.Second

// await waits until f is true.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in %v it has not come to pass that %s", limit, what)
		}
	}
}

// deviceLeft returns the stacks of the devices' goroutines that exist at the moment.
func deviceLeft() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "golang.zx2c4.com/wireguard") && !strings.Contains(g, "deviceLeft") {
			left = append(left, g)
		}
	}
	return strings.Join(left, "\n\n")
}

func parseT(t testing.TB, text string) *Config {
	t.Helper()
	cfg, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return cfg
}

func openT(t testing.TB, cfg *Config) *Link {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// configs returns the configurations of two ends. The second calls the first at 127.0.0.1; callAt
// fills in the port. extra is added to both [Peer] sections.
func configs(t testing.TB, extra string) (server, client *Config) {
	t.Helper()
	s, c, psk := NewSecret(), NewSecret(), NewSecret()
	server = parseT(t, fmt.Sprintf("[Interface]\nPrivateKey=%s\nAddress=10.7.0.1/24, fd07::1/64\n"+
		"[Peer]\nPublicKey=%v\nPresharedKey=%s\nAllowedIPs=10.7.0.2, 192.168.7.0/24, fd07::2, 2001:db8:7::/48\n%s\n",
		s.Base64(), c.Public(), psk.Base64(), extra))
	client = parseT(t, fmt.Sprintf("[Interface]\nPrivateKey=%s\nAddress=10.7.0.2, fd07::2/64\n"+
		"[Peer]\nPublicKey=%v\nPresharedKey=%s\nAllowedIPs=0.0.0.0/0, ::/0\n%s\n",
		c.Base64(), s.Public(), psk.Base64(), extra))
	return server, client
}

func callAt(client *Config, port int) *Config {
	client.Peers[0].Endpoint = fmt.Sprintf("127.0.0.1:%d", port)
	return client
}

// openPair opens both ends.
func openPair(t testing.TB, extra string) (server, client *Link) {
	t.Helper()
	sc, cc := configs(t, extra)
	server = openT(t, sc)
	return server, openT(t, callAt(cc, server.Port()))
}

func attachT(t testing.TB, l *Link) *bsdnet.Stack {
	t.Helper()
	s := stacktest.New(t, bsdnet.Config{})
	if err := l.AttachTo(s); err != nil {
		t.Fatal(err)
	}
	return s
}

// bulk returns a body of n bytes that depends on seed.
func bulk(n int64, seed uint64) io.Reader {
	return io.LimitReader(testutil.SeededRand(seed), n)
}

func sum(r io.Reader) string {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return fmt.Sprintf("%d bytes, %x, %v", n, h.Sum(nil), err)
}

// serveBulk serves bulk(n, 1) at /, and answers a POST with the sum of its body.
func serveBulk(t testing.TB, ln net.Listener, n int64) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			io.WriteString(w, sum(r.Body))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(n))
		io.Copy(w, bulk(n, 1))
	})}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
}

// getBulk gets the body that serveBulk serves, and posts one of the same size.
func getBulk(t testing.TB, c *http.Client, url string, n int64) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	got := sum(resp.Body)
	resp.Body.Close()
	if want := sum(bulk(n, 1)); got != want {
		t.Errorf("GET: %s, want %s", got, want)
	}
	if resp, err = c.Post(url, "", bulk(n, 2)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := sum(bulk(n, 2)); string(text) != want || err != nil {
		t.Errorf("POST: %s, %v, want %s", text, err, want)
	}
	c.CloseIdleConnections()
}

func client(s *bsdnet.Stack) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: s.DialContext}}
}

// Two stacks use net/http to send 16 MiB each way over IPv4 and over IPv6, and both ends see the
// handshake.
func TestHTTP(t *testing.T) {
	server, cl := openPair(t, "")
	for _, p := range append(server.Peers(), cl.Peers()...) {
		if !p.LastHandshake.IsZero() || p.Sent != 0 {
			t.Errorf("before anything: %+v", p)
		}
	}
	before := time.Now()
	ss, cs := attachT(t, server), attachT(t, cl)
	if server.MTU() != 1420 {
		t.Errorf("MTU %d", server.MTU())
	}
	ln, err := ss.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	const n = 8 << 20
	serveBulk(t, ln, n)
	getBulk(t, client(cs), "http://10.7.0.1/", n)
	getBulk(t, client(cs), "http://[fd07::1]/", n)
	for i, l := range []*Link{server, cl} {
		p := l.Peers()
		if len(p) != 1 {
			t.Fatalf("%+v", p)
		}
		want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16([]*Link{cl, server}[i].Port()))
		if p[0].LastHandshake.Before(before) || p[0].Endpoint != want || p[0].Received < n || p[0].Sent < n {
			t.Errorf("%+v, endpoint should be %v", p[0], want)
		}
	}
	if server.Peers()[0].PublicKey == cl.Peers()[0].PublicKey {
		t.Error("the same peer at both ends")
	}
}

func unreachable(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// The routes are those of AllowedIPs, and packets from other addresses are dropped.
func TestAllowedIPs(t *testing.T) {
	server, cl := openPair(t, "")
	ss, cs := attachT(t, server), attachT(t, cl)
	for _, to := range []string{"10.9.9.9:80", "[2001:db8:8::1]:80"} {
		if _, err := ss.Dial("tcp", to); !unreachable(err) {
			t.Errorf("%s, beyond the server's AllowedIPs: %v", to, err)
		}
	}
	// The client has a default route, and the server has no host at 192.168.7.9. Packets from that
	// address get a reset only if there is a route back to it.
	ln, err := ss.Listen("tcp", "10.7.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := cs.Dial("tcp", "10.7.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := ss.DialContext(ctx, "tcp", "192.168.7.9:80")
		done <- err
	}()
	sent := func() uint64 { return server.Peers()[0].Sent }
	was := sent()
	await(t, "the SYN to 192.168.7.9 leaves by the tunnel", func() bool { return sent() > was })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Without an address of a family there are no routes of that family.
func TestOneFamily(t *testing.T) {
	_, cc := configs(t, "")
	for _, c := range []struct{ addr, route string }{{"10.7.0.2/32", "0.0.0.0/0"}, {"fd07::2/128", "::/0"}} {
		cc.Addresses = prefixes(c.addr)
		l := openT(t, callAt(cc, 9))
		s := attachT(t, l)
		var got []string
		for _, r := range s.Routes() {
			if r.Link == bsdnet.Link(l) && r.Dst.String() != c.addr {
				got = append(got, r.Dst.String())
			}
		}
		if len(got) != 1 || got[0] != c.route {
			t.Errorf("%s: routes %v; want %s", c.addr, got, c.route)
		}
		l.Close()
	}
}

func TestNoRoutes(t *testing.T) {
	sc, _ := configs(t, "")
	sc.NoRoutes = true
	s := attachT(t, openT(t, sc))
	if _, err := s.Dial("tcp", "192.168.7.9:80"); !unreachable(err) {
		t.Errorf("Table = off: %v", err)
	}
}

// The errors of Open.
func TestRefused(t *testing.T) {
	sc, _ := configs(t, "")
	change := func(f func(c *Config)) *Config {
		c := *sc
		c.Peers = append([]Peer(nil), sc.Peers...)
		f(&c)
		return &c
	}
	for _, c := range []struct {
		cfg  *Config
		want string
	}{
		{&Config{}, "PrivateKey is missing"},
		{parseT(t, head+"\nPostUp = iptables -F"), "PostUp in line 4: commands are not run here"},
		{change(func(c *Config) { c.MTU = 67 }), "MTU is 67; it can be 68 to 65455 bytes"},
		{change(func(c *Config) { c.MTU = 65456 }), "MTU is 65456"},
		{change(func(c *Config) { c.MTU = 1279 }), "Address fd07::1/64 needs an MTU of at least 1280"},
		{change(func(c *Config) { c.ListenPort = 65536 }), "ListenPort is 65536; it can be 0, for any, to 65535"},
		{change(func(c *Config) { c.Addresses = []netip.Prefix{{}} }), "Address invalid Prefix is not"},
		{change(func(c *Config) { c.Peers[0].PublicKey = Key{} }), "PublicKey is missing"},
		{change(func(c *Config) { c.Peers[0].PublicKey = c.PrivateKey.Public() }), "this end's own"},
		{change(func(c *Config) { c.Peers = append(c.Peers, c.Peers[0]) }), "there are two"},
		{change(func(c *Config) { c.Peers[0].AllowedIPs = []netip.Prefix{{}} }), "AllowedIPs has invalid Prefix"},
		{change(func(c *Config) { c.Peers[0].PersistentKeepalive = time.Millisecond }),
			"PersistentKeepalive is 1ms; it can be"},
		{change(func(c *Config) { c.Peers[0].Endpoint = "here" }), `Endpoint: "here"; it should be host:port`},
		{change(func(c *Config) { c.Peers[0].Endpoint = "does.not.exist.invalid:1" }),
			"Endpoint: lookup does.not.exist.invalid"},
	} {
		l, err := Open(c.cfg)
		if l != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; want %s", err, c.want)
		}
	}
}

// The errors of AttachTo.
func TestAttachToRefused(t *testing.T) {
	sc, _ := configs(t, "")
	change := func(addr string) *Config {
		c := *sc
		c.Addresses = prefixes(addr)
		return &c
	}
	s, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	none := *sc
	none.Addresses = nil
	if err := openT(t, &none).AttachTo(s); err == nil || !strings.Contains(err.Error(), "there is no Address") {
		t.Error(err)
	}
	l := openT(t, sc)
	if err := l.AttachTo(s); err != nil {
		t.Fatal(err)
	}
	if err := l.AttachTo(s); err == nil || !strings.Contains(err.Error(), "attached already") {
		t.Error(err)
	}
	if len(l.Peers()) != 1 {
		t.Error("a second AttachTo has closed the link")
	}
	other := openT(t, change("10.8.0.1/24"))
	if err := other.AttachTo(s); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a route over two links: %v", err)
	}
	if err := other.Close(); err != net.ErrClosed {
		t.Errorf("after an error of AttachTo, Close: %v", err)
	}
	s.Close()
	if left := deviceLeft(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// If the port is in use, Open says so and leaves nothing behind.
func TestPortInUse(t *testing.T) {
	c, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sc, _ := configs(t, "")
	sc.ListenPort = c.LocalAddr().(*net.UDPAddr).Port
	l, err := Open(sc)
	want := fmt.Sprintf("UDP port %d", sc.ListenPort)
	if l != nil || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
	if left := deviceLeft(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// A mark needs a capability, which the error names.
func TestMark(t *testing.T) {
	sc, _ := configs(t, "")
	sc.FwMark = 0xca6c
	err := upError(sc, syscall.EPERM)
	if l, openErr := Open(sc); openErr == nil {
		l.Close()
	} else {
		err = openErr // without the right to it
	}
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Error(err)
	}
}

// The Logger receives the device's errors, but no secrets.
func TestLogger(t *testing.T) {
	var mu sync.Mutex
	var text strings.Builder
	_, cc := configs(t, "PersistentKeepalive = 1")
	cc.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &text}, nil))
	l := openT(t, cc) // a peer without an Endpoint cannot be greeted
	logged := func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
	await(t, "the failure to send is logged", func() bool { return strings.Contains(logged(), "no known endpoint") })
	l.Close()
	if s := logged(); strings.Contains(s, cc.PrivateKey.Base64()) || !strings.Contains(s, "level=ERROR") {
		t.Error(s)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

// The error of a failed dial says which peer is silent, or that there is none. After a handshake it
// says nothing.
func TestDiagnose(t *testing.T) {
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	sc, cc := configs(t, "")
	l := openT(t, callAt(cc, silent.LocalAddr().(*net.UDPAddr).Port))
	s := attachT(t, l)
	_, err = s.DialTimeout("tcp", "10.7.0.1:80", 100*time.Millisecond)
	want := fmt.Sprintf("i/o timeout (wireguard: no handshake with peer %v at %v, "+
		"148 bytes sent, 0 received: nobody is there", cc.Peers[0].PublicKey, silent.LocalAddr())
	if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want %q", err, want)
	}
	server := openT(t, sc)
	for to, want := range map[string]string{
		"10.7.0.2": "has no Endpoint, and has not called",
		"10.7.0.3": "no peer has 10.7.0.3 in its AllowedIPs",

		"fd07::2":         "has no Endpoint, and has not called",
		"2001:db8:7::9%x": "has no Endpoint, and has not called",
		"::ffff:10.7.0.2": "has no Endpoint, and has not called",
		"fd07::3":         "no peer has fd07::3 in its AllowedIPs",
	} {
		if err := server.Diagnose(netip.MustParseAddr(to)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	a, b := openPair(t, "")
	sa, sb := attachT(t, a), attachT(t, b)
	ln, err := sa.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := sb.Dial("tcp", "10.7.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, d := range []struct {
		l  *Link
		to string
	}{{a, "10.7.0.2"}, {b, "10.7.0.1"}, {a, "fd07::2"}, {b, "fd07::1"}} {
		if err := d.l.Diagnose(netip.MustParseAddr(d.to)); err != nil {
			t.Error(err)
		}
	}
	b.Close()
	if err := b.Diagnose(netip.MustParseAddr("10.7.0.1")); err != net.ErrClosed {
		t.Errorf("closed: %v", err)
	}
}

// A peer that has gone, and a peer to which nothing could be sent, are distinguished from one that
// never was there.
func TestComplaint(t *testing.T) {
	now := time.Now()
	at := netip.MustParseAddrPort("192.0.2.1:51820")
	for _, c := range []struct {
		s    PeerStatus
		want string // "": nothing
	}{
		{PeerStatus{Endpoint: at, LastHandshake: now.Add(-sessionEnd + 1)}, ""},
		{PeerStatus{LastHandshake: now}, ""},
		{PeerStatus{Endpoint: at, LastHandshake: now.Add(-sessionEnd), Sent: 1, Received: 1},
			"at 192.0.2.1:51820 for 3m0s: it is gone"},
		{PeerStatus{Endpoint: at}, "nothing could be sent there"},
		{PeerStatus{Endpoint: at, Sent: 148, Received: 92}, "148 bytes sent, 92 received"},
		{PeerStatus{}, "has no Endpoint"},
	} {
		err := c.s.complaint(now)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v; want %q", c.s, err, c.want)
		}
	}
}

// TestAttachDNS tests that AttachTo gives the file's servers and search domains to a stack that has
// no servers, and leaves those of another alone.
func TestAttachDNS(t *testing.T) {
	server := netip.MustParseAddrPort("192.0.2.53:53")
	hosts := map[string][]netip.Addr{"db": {netip.MustParseAddr("192.0.2.1")}}
	for _, k := range []struct {
		lines string
		dns   bsdnet.DNSConfig
		want  string
	}{
		{"", bsdnet.DNSConfig{}, "[] []"},
		{"DNS=10.7.0.1, fd07::1\nDNS=corp.example", bsdnet.DNSConfig{}, "[10.7.0.1:53 [fd07::1]:53] [corp.example.]"},
		{"DNS=10.7.0.1, corp.example", bsdnet.DNSConfig{Search: []string{"a.example"}, Hosts: hosts},
			"[10.7.0.1:53] [a.example. corp.example.]"},
		{"DNS=10.7.0.1, corp.example", bsdnet.DNSConfig{Servers: []netip.AddrPort{server}}, "[192.0.2.53:53] []"},
		{"DNS=corp.example", bsdnet.DNSConfig{}, "[] []"},
	} {
		stack := stacktest.New(t, bsdnet.Config{DNS: k.dns})
		cfg := parseT(t, "[Interface]\nPrivateKey="+NewSecret().Base64()+"\nAddress=10.7.0.2/24\n"+k.lines+"\n")
		if err := openT(t, cfg).AttachTo(stack); err != nil {
			t.Fatal(err)
		}
		dns := stack.DNS()
		if got := fmt.Sprint(dns.Servers, " ", dns.Search); got != k.want || len(dns.Hosts) != len(k.dns.Hosts) {
			t.Errorf("%q, %v: %s and %d hosts, want %s", k.lines, k.dns, got, len(dns.Hosts), k.want)
		}
	}
}
