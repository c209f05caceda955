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
	l := linkOptions{link: "tun", host: "10.0.0.1/24", tun: "bsd0"}
	var out stdbytes.Buffer
	if err := run(t.Context(), options{addr: ":80", once: true, linkOptions: l}, &out); err != nil {
		t.Fatal(err)
	}
	fetched(t, out.Bytes(), "http://10.0.0.2/", `10\.0\.0\.2:80 -> 10\.0\.0\.1:\d+`)

	_, url := startSite(t, options{addr: ":8080", linkOptions: l}, new(stdbytes.Buffer))
	page, err := exec.Command("curl", "-fsS", "--max-time", "60", url).CombinedOutput()
	if err != nil || url != "http://10.0.0.2:8080/" ||
		!strings.Contains(string(page), "<h1>Served by net/http over bsdnet</h1>") {
		t.Errorf("curl %s: %v\n%s", url, err, page)
	}
}
