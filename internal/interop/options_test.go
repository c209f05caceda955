//go:build linux

package interop

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"bsdnet"
	"bsdnet/internal/nstest"
)

// A capture is the output of tcpdump for the packets on a link.
type capture struct{ lines []string }

// captured runs f, and returns the packets that have passed meanwhile.
func captured(t *testing.T, w *world, f func()) capture {
	t.Helper()
	var pcap bytes.Buffer
	stop, err := w.stack.Capture(w.link, &pcap)
	if err != nil {
		t.Fatal(err)
	}
	f()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tcpdump", "-Z", "root", "-nn", "-v", "-K", "-r", "-", "tcp")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &pcap, &out, &errs
	if err := w.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("tcpdump: %v\n%s", err, &errs)
	}
	// With -v each packet has two lines.
	return capture{strings.Split(strings.TrimSpace(strings.ReplaceAll(out.String(), "\n    ", " ")), "\n")}
}

// first returns the first packet with these flags, which are in tcpdump's notation, or "" if there
// is none.
func (c capture) first(flags string) string {
	for _, l := range c.lines {
		if strings.Contains(l, "Flags ["+flags+"]") {
			return l
		}
	}
	return ""
}

// syn and synAck return the first SYN and the first answer to one, with any ECN bits.
func (c capture) syn() string    { return c.first("S") + c.first("SEW") }
func (c capture) synAck() string { return c.first("S.") + c.first("S.E") }

// data returns the packets with data that do not belong to the handshake.
func (c capture) data() (lines []string) {
	for _, l := range c.lines {
		if !strings.Contains(l, "Flags [S") && !strings.HasSuffix(l, "length 0") {
			lines = append(lines, l)
		}
	}
	return lines
}

var wscale = regexp.MustCompile(`wscale (\d+)`)

// scale returns the window scale of a SYN, or -1 if it has none.
func scale(line string) int {
	m := wscale.FindStringSubmatch(line)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// exchange makes a connection, and sends data both ways.
func exchange(t *testing.T, client, server host, n int) {
	t.Helper()
	c, s := pair(t, client, server)
	transferBoth(t, c, s, n)
	c.Close()
	s.Close()
}

// An optionCase is a setting of the kernel, with its effect on the SYN and on the answer. Each case
// is tested in both roles: bsdnet does not accept an option that the kernel does not offer, and
// does not use one that the kernel does not accept.
type optionCase struct {
	name, sysctl, value string
	kernelSyn           []string // in the kernel's SYN; !x means that x is not in it
	synAck              []string // in the answer of either end
	data                []string // in each packet with data
}

var optionCases = []optionCase{
	{"default", "tcp_sack", "1", []string{"sackOK", "TS val", "wscale"},
		[]string{"sackOK", "TS val", "wscale"}, []string{"TS val"}},
	{"no SACK", "tcp_sack", "0", []string{"!sackOK", "TS val", "wscale"},
		[]string{"!sackOK", "TS val", "wscale"}, []string{"TS val", "!sack "}},
	{"no timestamps", "tcp_timestamps", "0", []string{"sackOK", "!TS val", "wscale"},
		[]string{"sackOK", "!TS val", "wscale"}, []string{"!TS val"}},
	{"no scaling", "tcp_window_scaling", "0", []string{"sackOK", "TS val", "!wscale"},
		[]string{"sackOK", "TS val", "!wscale"}, nil},
}

// matches reports whether the line contains all of these texts, and none of those after a !.
func matches(line string, want []string) bool {
	for _, s := range want {
		s, not := strings.CutPrefix(s, "!")
		if line == "" || strings.Contains(line, s) == not {
			return false
		}
	}
	return true
}

// Both ends agree on SACK, timestamps and window scaling, on and off.
func TestOptions(t *testing.T) {
	nstest.Need(t, "tcpdump")
	for _, o := range optionCases {
		t.Run(o.name, func(t *testing.T) {
			eachMode(t, 2, options{}, func(t *testing.T, w *world) {
				w.Sysctl(t, "net.ipv4."+o.sysctl, o.value)
				w.eachRole(t, func(t *testing.T, client, server host) {
					c := captured(t, w, func() { exchange(t, client, server, 1<<20) })
					mss := fmt.Sprintf("mss %d", w.mss())
					if client.name == "kernel" && !matches(c.syn(), append(o.kernelSyn, mss)) {
						t.Errorf("SYN, want %q and %s: %s", o.kernelSyn, mss, c.syn())
					}
					all := []string{mss, "sackOK", "TS val", "wscale"}
					if client.name == "bsdnet" && !matches(c.syn(), all) {
						t.Errorf("SYN, want all options: %s", c.syn())
					}
					if !matches(c.synAck(), append(o.synAck, mss)) {
						t.Errorf("answer, want %q and %s: %s", o.synAck, mss, c.synAck())
					}
					data := c.data()
					if len(data) < 2 {
						t.Fatalf("%d packets with data", len(data))
					}
					for _, l := range data {
						if !matches(l, o.data) {
							t.Fatalf("data, want %q: %s", o.data, l)
						}
					}
				})
			})
		})
	}
}

// Each end understands the other's windows, with all window scales that the kernel may have and
// those that bsdnet's buffers give it: the data flows and fills the windows.
func TestWindowScale(t *testing.T) {
	nstest.Need(t, "tcpdump", "ip")
	for ours, buffer := range map[int]int{8: 0, 11: 64 << 20, 14: 1 << 30} {
		t.Run(fmt.Sprintf("bsdnet's scale is %d", ours), func(t *testing.T) {
			o := options{config: bsdnet.Config{TCP: bsdnet.TCPConfig{ReadBuffer: buffer}}}
			// The family makes no difference to a scale.
			inModes(t, modes[:2], o, func(t *testing.T, w *world) {
				w.Sysctl(t, "net.ipv4.tcp_rmem", "4096 131072 2147483647")
				for theirs := range 15 {
					// The route bounds the kernel's window, and the scale follows.
					w.Run(t, "ip", "route", "change", "10.9.0.0/24", "dev", w.tun.Name(), "src", kernIP,
						"window", strconv.Itoa(65535<<theirs))
					w.eachRole(t, func(t *testing.T, client, server host) {
						c := captured(t, w, func() { exchange(t, client, server, 1<<19) })
						bsd, kernel := scale(c.syn()), scale(c.synAck())
						if client.name == "kernel" {
							bsd, kernel = kernel, bsd
						}
						if bsd != ours || kernel != theirs {
							t.Errorf("scales %d and %d of the kernel, want %d and %d\n%s\n%s",
								bsd, kernel, ours, theirs, c.syn(), c.synAck())
						}
					})
				}
			})
		})
	}
}

// Both ends agree on ECN for all values of the kernel's net.ipv4.tcp_ecn: 0 neither offers nor
// accepts, 1 does both, 2 accepts. The stack accepts, and then marks its data.
func TestECN(t *testing.T) {
	nstest.Need(t, "tcpdump")
	for _, e := range []struct {
		value       string
		offered, on bool // when the kernel dials
	}{{"0", false, false}, {"1", true, true}, {"2", false, false}} {
		t.Run(e.value, func(t *testing.T) {
			eachMode(t, 2, options{}, func(t *testing.T, w *world) {
				w.Sysctl(t, "net.ipv4.tcp_ecn", e.value)
				w.eachRole(t, func(t *testing.T, client, server host) {
					c := captured(t, w, func() { exchange(t, client, server, 1<<20) })
					offered, on := e.offered, e.on
					if client.name == "bsdnet" {
						offered, on = false, false // bsdnet does not offer ECN
					}
					if got := c.first("SEW") != ""; got != offered {
						t.Errorf("offered: %v, want %v: %s", got, offered, c.syn())
					}
					if got := c.first("S.E") != ""; got != on {
						t.Errorf("accepted: %v, want %v: %s", got, on, c.synAck())
					}
					marked := map[string]bool{}
					for _, l := range c.data() {
						if strings.Contains(l, "ECT(0)") || strings.Contains(l, "class 0x02") {
							marked[w.source(l)] = true
						}
					}
					if marked[kernIP] != on || marked[bsdIP] != on {
						t.Errorf("data with ECT from %v, want %v of both", marked, on)
					}
				})
			})
		})
	}
}

// source returns the end that a packet came from: kernIP or bsdIP.
func (w *world) source(line string) string {
	for _, end := range []string{kernIP, bsdIP} {
		ip := " " + w.ip(end) + "."
		if strings.Contains(line, ip) && strings.Index(line, ip) < strings.Index(line, " > ") {
			return end
		}
	}
	return ""
}

// mss returns the MSS that both ends offer with an MTU of 1500.
func (w *world) mss() int {
	if w.mode.ip6 {
		return 1440
	}
	return 1460
}
