package main

import (
	stdbytes "bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/internal/testutil/dnstest"
	"bsdnet/wireguard"
)

// fetched checks the output of -get.
func fetched(t *testing.T, out []byte, url, conn string) {
	t.Helper()
	for _, want := range []string{
		`^GET ` + regexp.QuoteMeta(url) + `\nHTTP/1\.1 200 OK\n`,
		`<h1>Served by net/http over bsdnet</h1>`,
		`(?m)^ESTABLISHED ` + conn + `, RTT `,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("the output does not match %s:\n%s", want, out)
		}
	}
}

// TestUDP runs both ends of a tunnel, as two terminals would.
func TestUDP(t *testing.T) {
	key := filepath.Join(t.TempDir(), "secret")
	text := base64.StdEncoding.EncodeToString(stdbytes.Repeat([]byte("k"), 32))
	if err := os.WriteFile(key, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var served stdbytes.Buffer
	server := options{addr: ":80", linkOptions: linkOptions{link: "udp", key: key, local: "127.0.0.1:0"}}
	site, url := startSite(t, server, &served)
	if url != "http://10.9.0.1/" {
		t.Errorf("served on %s", url)
	}
	at := regexp.MustCompile(`at (127\.0\.0\.1:\d+)`).FindStringSubmatch(served.String())
	if at == nil {
		t.Fatalf("the tunnel's address is not printed:\n%s", served.String())
	}
	var out stdbytes.Buffer
	client := options{get: url, linkOptions: linkOptions{link: "udp", key: key, peer: at[1]}}
	if err := run(t.Context(), client, &out); err != nil {
		t.Fatal(err)
	}
	fetched(t, out.Bytes(), url, `10\.9\.0\.2:\d+ -> 10\.9\.0\.1:80`)
	lists(t, out.Bytes(), url, "http://[fd00::1]/")
	if want := "serving on http://10.9.0.1/ and http://[fd00::1]/ for anyone who has the key, at "; !strings.Contains(
		served.String(), want) {
		t.Errorf("%s\nwant %q", served.String(), want)
	}
	out.Reset()
	client.get = "http://[fd00::1]/"
	if err := run(t.Context(), client, &out); err != nil {
		t.Fatal(err)
	}
	fetched(t, out.Bytes(), client.get, `\[fd00::2\]:\d+ -> \[fd00::1\]:80`)

	serveNames(t, site.stack, "10.9.0.1")
	out.Reset()
	client.get, client.dns = "http://web.example/", "10.9.0.1"
	if err := run(t.Context(), client, &out); err != nil {
		t.Fatal(err)
	}
	fetched(t, out.Bytes(), client.get, `10\.9\.0\.2:\d+ -> 10\.9\.0\.1:80`)
}

// lists checks that a page names the addresses at which it is.
func lists(t *testing.T, page []byte, urls ...string) {
	t.Helper()
	if want := "<dd>" + strings.Join(urls, ", ") + "</dd>"; !strings.Contains(string(page), want) {
		t.Errorf("%s\nwant %q", page, want)
	}
}

// serveNames runs a name server on port 53 of a stack, which knows that web.example is at addr.
func serveNames(t *testing.T, stack *bsdnet.Stack, addr string) {
	t.Helper()
	c, err := stack.ListenPacket("udp", addr+":53")
	if err != nil {
		t.Fatal(err)
	}
	names := dnstest.Server{Addrs: map[string][]string{"web.example.": {addr}}}
	names.Serve(t, c, nil)
}

// TestWireGuard does the same over WireGuard.
func TestWireGuard(t *testing.T) {
	dir := t.TempDir()
	free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	free.Close()
	a, b := wireguard.NewSecret(), wireguard.NewSecret()
	for name, text := range map[string]string{
		"a.conf": fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.8.0.1/24, fd08::1/64\nListenPort = %d\n"+
			"[Peer]\nPublicKey = %s\nAllowedIPs = 10.8.0.2/32, fd08::2/128\n",
			a.Base64(), port, b.Public()),
		"b.conf": fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.8.0.2/24, fd08::2/64\nDNS = 10.8.0.1\n"+
			"[Peer]\nPublicKey = %s\nAllowedIPs = 10.8.0.0/24, fd08::/64\nEndpoint = 127.0.0.1:%d\n",
			b.Base64(), a.Public(), port),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	over := func(name string) linkOptions {
		return linkOptions{link: "wireguard", config: filepath.Join(dir, name)}
	}
	site, url := startSite(t, options{addr: ":8000", linkOptions: over("a.conf")}, io.Discard)
	var out stdbytes.Buffer
	if err := run(t.Context(), options{get: url, linkOptions: over("b.conf")}, &out); err != nil {
		t.Fatal(err)
	}
	fetched(t, out.Bytes(), "http://10.8.0.1:8000/", `10\.8\.0\.2:\d+ -> 10\.8\.0\.1:8000`)
	lists(t, out.Bytes(), url, "http://[fd08::1]:8000/")
	out.Reset()
	if err := run(t.Context(), options{get: "http://[fd08::1]:8000/", linkOptions: over("b.conf")}, &out); err != nil {
		t.Fatal(err)
	}
	fetched(t, out.Bytes(), "http://[fd08::1]:8000/", `\[fd08::2\]:\d+ -> \[fd08::1\]:8000`)

	serveNames(t, site.stack, "10.8.0.1") // the DNS line of b.conf names it
	out.Reset()
	byName := options{get: "http://web.example:8000/", linkOptions: over("b.conf")}
	if err := run(t.Context(), byName, &out); err != nil {
		t.Fatal(err)
	}
	fetched(t, out.Bytes(), byName.get, `10\.8\.0\.2:\d+ -> 10\.8\.0\.1:8000`)
}

// TestUsage tests that the command exits with status 2 and a reason if the command line makes no
// sense, and with status 1 if it fails.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		line   string
		status int
		want   string
	}{
		{"-h", 0, "-link link"},
		{"-nonsense", 2, "nonsense"},
		{"more", 2, `unexpected argument "more"`},
		{"-link ether", 2, `-link is "ether"`},
		{"-link=", 2, `-link is ""`},
		{"-link udp", 2, "-link udp needs -key"},
		{"-link wireguard", 2, "-link wireguard needs -config"},
		{"-link tun -ip 10.0.0.2", 2, "-ip: "},
		{"-link tun -ip fd00::2/64,", 2, "-ip: "},
		{"-link tun -host 10.0.0.1/24,10.0.1.1/24", 2, "-host: 10.0.0.1/24 and 10.0.1.1/24 are of one family"},
		{"-link tun -host 10.0.0.1", 2, "-host: "},
		{"-key secret", 2, "-key is for -link udp, and the link is loopback"},
		{"-link tun -key secret", 2, "-key is for -link udp, and the link is tun"},
		{"-link udp -key secret -tun tun0", 2, "-tun is for -link tun, and the link is udp"},
		{"-link wireguard -config c -peer a:1", 2, "-peer is for -link udp"},
		{"-link wireguard -config c -ip 10.0.0.1/24", 2, "-ip is for -link tun or udp"},
		{"-get http://127.0.0.1/", 2, "-get: "},
		{"-link udp -key secret -get http://10.9.0.1/ -relay :0", 2, "-relay is for serving"},
		{"-link udp -key secret -get http://10.9.0.1/ -addr :1", 2, "-addr is for serving"},
		{"-link udp -key secret -dns 10.9.0.1", 2, "-dns is for -get"},
		{"-link udp -key secret -get http://a.test/ -dns 10.9.0.1,a.test", 2, `-dns: "a.test" is not an address`},
		{"-link udp -key /no/such/file", 1, "/no/such/file"},
		{"-link wireguard -config /no/such/file", 1, "/no/such/file"},
		{"-addr 192.0.2.1:80", 1, "192.0.2.1"},
	} {
		var out, errs stdbytes.Buffer
		status := command(strings.Fields(c.line), &out, &errs)
		if status != c.status || !strings.Contains(errs.String(), c.want) || out.Len() > 0 {
			t.Errorf("http %s: status %d, want %d\n%s%swant %q", c.line, status, c.status, &out, &errs, c.want)
		}
		if lines := strings.Count(errs.String(), "\n"); c.status != 0 && lines > 2 {
			t.Errorf("http %s: the reason is one of %d lines", c.line, lines)
		}
	}
}

// TestReadKey tests that a key is 32 bytes, in base64 or not.
func TestReadKey(t *testing.T) {
	raw := stdbytes.Repeat([]byte{0xfe}, 32)
	coded := base64.StdEncoding.EncodeToString(raw)
	for _, text := range []string{string(raw), coded, coded + "\n"} {
		if key, err := readKey([]byte(text)); !stdbytes.Equal(key, raw) || err != nil {
			t.Errorf("%q: %x, %v", text, key, err)
		}
	}
	for _, text := range []string{"", "\n", "short", base64.StdEncoding.EncodeToString(raw[1:]), string(raw) + "x"} {
		if key, err := readKey([]byte(text)); err == nil || !strings.Contains(err.Error(), "32") {
			t.Errorf("%q: %x, %v", text, key, err)
		}
	}
}

// TestCwnd tests that a window that limits nothing is not shown as a number.
func TestCwnd(t *testing.T) {
	for _, c := range []struct {
		c    conn
		want string
	}{
		{conn{Cwnd: 16 << 20, SendBuffer: 256 << 10}, "no limit"},
		{conn{Cwnd: 256 << 10, SendBuffer: 256 << 10}, "no limit"},
		{conn{Cwnd: 14600, SendBuffer: 256 << 10}, "14.3 KiB"},
	} {
		if got := cwnd(c.c); got != c.want {
			t.Errorf("%+v: %q, want %q", c.c, got, c.want)
		}
	}
}

// TestLinkErrors tests that an error names the flag that is wrong.
func TestLinkErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good")
	text := base64.StdEncoding.EncodeToString(stdbytes.Repeat([]byte("k"), 32))
	if err := os.WriteFile(good, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, l := range map[string]linkOptions{
		`-link is "ether"`:             {link: "ether"},
		"-ip: ":                        {link: "tun", ip: "10.0.0.2"},
		"-host: ":                      {link: "tun", host: "10.0.0.1"},
		"-link udp needs -key":         {link: "udp"},
		"-key ":                        {link: "udp", key: bad},
		"-link wireguard needs -confi": {link: "wireguard"},
		bad:                            {link: "wireguard", config: bad},
		"-once: ":                      {link: "udp", key: good},
	} {
		err := run(t.Context(), options{addr: ":80", once: true, linkOptions: l}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want an error with %q", l, err, want)
		}
	}
}

// TestReason tests that the error of a fetch that nobody answers has the reason that the link
// knows.
func TestReason(t *testing.T) {
	dir := t.TempDir()
	key, config := filepath.Join(dir, "secret"), filepath.Join(dir, "wg.conf")
	if err := os.WriteFile(key, stdbytes.Repeat([]byte("k"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) // it never answers
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	at := nobody.LocalAddr().String()
	text := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.8.0.2/24\n"+
		"[Peer]\nPublicKey = %s\nAllowedIPs = 10.8.0.0/24\nEndpoint = %s\n",
		wireguard.NewSecret().Base64(), wireguard.NewSecret().Public(), at)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		link linkOptions
		url  string
		want string
	}{
		{linkOptions{link: "udp", key: key, peer: at}, "http://10.9.0.1/",
			`dial tcp 10.9.0.1:80: i/o timeout (udptunnel: no answer from ` + at + ` to 1 handshake: `},
		{linkOptions{link: "wireguard", config: config}, "http://10.8.0.1/",
			`i/o timeout (wireguard: no handshake with peer `},
	} {
		err := run(t.Context(), options{get: c.url, linkOptions: c.link, dialLimit: 100 * time.Millisecond}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("-link %s: %v; want %q", c.link.link, err, c.want)
		}
	}
}
