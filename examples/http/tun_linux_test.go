//go:build linux

package main

import (
	stdbytes "bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"bsdnet/internal/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// TestTUN has the kernel fetch the page over a TUN device, by net/http and by curl.
func TestTUN(t *testing.T) {
	nstest.Need(t, "/dev/net/tun", "curl")
	l := linkOptions{link: "tun", host: defaultHost, tun: "bsd0"}
	var out stdbytes.Buffer
	if err := run(t.Context(), options{addr: ":80", once: true, linkOptions: l}, &out); err != nil {
		t.Fatal(err)
	}
	fetched(t, out.Bytes(), "http://10.0.0.2/", `10\.0\.0\.2:80 -> 10\.0\.0\.1:\d+`)

	site, url := startSite(t, options{addr: ":8080", linkOptions: l}, new(stdbytes.Buffer))
	if url != "http://10.0.0.2:8080/" {
		t.Errorf("served on %s", url)
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil && len(site.urls) != 2 {
		t.Errorf("served on %v", site.urls)
	}
	for _, url := range site.urls {
		page, err := exec.Command("curl", "-fsSg", "--max-time", "60", url).CombinedOutput()
		if err != nil || !strings.Contains(string(page), "<h1>Served by net/http over bsdnet</h1>") {
			t.Errorf("curl %s: %v\n%s", url, err, page)
		}
		lists(t, page, site.urls...)
	}
}

// TestTUNWithoutIPv6 serves over IPv4 if the kernel's IPv6 is switched off.
func TestTUNWithoutIPv6(t *testing.T) {
	nstest.Need(t, "/dev/net/tun")
	const off = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
	if err := os.WriteFile(off, []byte("1"), 0); err != nil {
		nstest.Skip(t, "%v", err)
	}
	defer os.WriteFile(off, []byte("0"), 0)
	l := linkOptions{link: "tun", host: defaultHost, tun: "bsd1"}
	var out stdbytes.Buffer
	if err := run(t.Context(), options{addr: ":80", once: true, linkOptions: l}, &out); err != nil {
		t.Fatal(err)
	}
	lists(t, out.Bytes(), "http://10.0.0.2/")
	l.host = "fd00::1/64"
	if err := run(t.Context(), options{addr: ":80", once: true, linkOptions: l}, &out); err == nil {
		t.Error("an address that was asked for is left out")
	}
}
