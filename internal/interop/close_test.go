//go:build linux

package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/nstest"
)

// nc -N closes half of a connection: it ends its stream and reads on, as the client and as the
// server.
func TestHalfCloseNc(t *testing.T) {
	nstest.Need(t, "nc")
	const n = 1 << 20
	text, _ := io.ReadAll(stream(5, n))
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		nc := func(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
			in, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			cmd, out := exec.Command("nc", args...), new(bytes.Buffer)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
			if err := w.Start(cmd); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill() })
			return cmd, out
		}
		t.Run("bsdnet listens", func(t *testing.T) {
			ln, err := w.stack.Listen("tcp", w.at(bsdIP)+":7")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			cmd, out := nc(t, "-N", w.ip(bsdIP), "7")
			s := accept(t, ln)
			got, err := io.ReadAll(s) // it ends because nc has shut its side down
			if err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if _, err := s.Write(text); err != nil {
				t.Fatal(err)
			}
			s.Close()
			within(t, "nc", func() { err = cmd.Wait() })
			if err != nil || !bytes.Equal(out.Bytes(), text) {
				t.Errorf("nc: %v, %d bytes back", err, out.Len())
			}
		})
		t.Run("bsdnet dials", func(t *testing.T) {
			cmd, out := nc(t, "-l", "-N", w.ip(kernIP), "7")
			var c conn
			await(t, "nc listens", func() bool {
				d, err := w.stack.Dial("tcp", w.at(kernIP)+":7")
				if err == nil {
					c = prepare(t, d)
				}
				return err == nil
			})
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if _, err := c.Write(text); err != nil { // on a half-closed connection
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			within(t, "nc", func() { err = cmd.Wait() })
			if err != nil || !bytes.Equal(out.Bytes(), text) {
				t.Errorf("nc: %v, %d bytes there", err, out.Len())
			}
		})
	})
}

// A reset is ECONNRESET at the other end, and a dial to a port without a listener is ECONNREFUSED.
func TestReset(t *testing.T) {
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		w.eachRole(t, func(t *testing.T, client, server host) {
			for _, who := range []string{"client resets", "server resets", "client leaves data", "server leaves data"} {
				t.Run(who, func(t *testing.T) {
					a, b := pair(t, client, server)
					if strings.HasPrefix(who, "server") {
						a, b = b, a
					}
					if strings.HasSuffix(who, "data") { // nobody reads it before the close
						if _, err := b.Write([]byte("hello")); err != nil {
							t.Fatal(err)
						}
						a.Read(make([]byte, 1))
					} else {
						a.SetLinger(0)
					}
					a.Close()
					if n, err := b.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("Read: %d, %v, want ECONNRESET", n, err)
					}
					if n, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) &&
						!errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("Write: %d, %v", n, err)
					}
				})
			}
			ln, err := server.listen("tcp", server.ip+":0")
			if err != nil {
				t.Fatal(err)
			}
			ln.Close()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if c, err := client.dial(ctx, "tcp", ln.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dial: %v, %v, want ECONNREFUSED", c, err)
			}
		})
	})
}

// dialError dials an address that cannot be reached, with a deadline, and returns the error.
func dialError(t *testing.T, h host, addr string, patience time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var (
		c   net.Conn
		err error
	)
	within(t, "dial "+addr, func() { c, err = h.dial(ctx, "tcp", addr) })
	if err == nil {
		c.Close()
		t.Fatalf("%s answers", addr)
	}
	return err
}

// An attempt to connect gets answers from routers, or no answer. "No route" may pass, so BSD goes
// on until its time is up. A prohibition and a hop limit end the attempt
// (net.inet.tcp.icmp_may_rst).
func TestUnreachable(t *testing.T) {
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		if err := dialError(t, w.bsd(), w.at("198.51.100.1")+":80", limit); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("without a route: %v, want ENETUNREACH", err)
		}
		if err := w.stack.AddRoute(netip.MustParsePrefix(w.ip("0.0.0.0/0")), w.link); err != nil {
			t.Fatal(err)
		}
		w.Forward(t)
		other := nstest.New(t)
		dev, otherDev := nstest.Veth(t, w.NS, w.ip("192.0.2.1/24"), other, w.ip("192.0.2.2/24"), 0)
		other.Run(t, w.mode.iproute("route", "add", "default", "via", w.ip("192.0.2.1"), "dev", otherDev)...)
		other.Forward(t)
		w.Run(t, w.mode.iproute("route", "add", "prohibit", w.ip("198.51.100.1"))...)
		w.Run(t, w.mode.iproute("route", "add", "unreachable", w.ip("198.51.100.2"))...)
		w.Run(t, w.mode.iproute("route", "add", "blackhole", w.ip("198.51.100.3"))...)
		// The packet goes back and forth until its time to live ends.
		w.Run(t, w.mode.iproute("route", "add", w.ip("198.51.100.4"), "via", w.ip("192.0.2.2"), "dev", dev)...)
		const short = 1200 * time.Millisecond // one SYN, and another
		for _, c := range []struct {
			ip       string
			patience time.Duration
			want     error
		}{
			{"198.51.100.1", limit, syscall.ECONNREFUSED},
			{"198.51.100.4", limit, syscall.EHOSTUNREACH},
			{"198.51.100.2", short, os.ErrDeadlineExceeded},
			{"198.51.100.3", short, os.ErrDeadlineExceeded},
			{"198.51.100.9", short, os.ErrDeadlineExceeded}, // the router has no route
		} {
			err := dialError(t, w.bsd(), w.at(c.ip)+":80", c.patience)
			var ne net.Error
			if c.want == os.ErrDeadlineExceeded {
				if !errors.As(err, &ne) || !ne.Timeout() {
					t.Errorf("%s: %v, want a timeout", c.ip, err)
				}
			} else if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.ip, err, c.want)
			}
		}
		// For the kernel, an address that the stack does not have is a host that is down.
		if err := dialError(t, w.kernel(), w.at("10.9.0.77")+":80", short); !errors.Is(err, os.ErrDeadlineExceeded) &&
			!errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the kernel dials an address that nobody has: %v", err)
		}
	})
}

// A connection survives if a route disappears for a while, whatever the router says meanwhile.
func TestRouteAway(t *testing.T) {
	eachMode(t, 2, options{}, func(t *testing.T, w *world) {
		if err := w.stack.AddRoute(netip.MustParsePrefix(w.ip("192.0.2.0/24")), w.link); err != nil {
			t.Fatal(err)
		}
		w.Forward(t)
		other := nstest.New(t)
		_, dev := nstest.Veth(t, w.NS, w.ip("192.0.2.1/24"), other, w.ip("192.0.2.2/24"), 0)
		other.Run(t, w.mode.iproute("route", "add", "default", "via", w.ip("192.0.2.1"), "dev", dev)...)
		far := host{"far", w.at("192.0.2.2"), other.Listen, other.DialContext}
		for i, dirs := range [][2]host{{w.bsd(), far}, {far, w.bsd()}} {
			c, s := pair(t, dirs[0], dirs[1])
			if _, err := c.Write([]byte("before")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			w.Run(t, w.mode.iproute("route", "add", "unreachable", w.ip("192.0.2.2"))...)
			before := icmpOut(t, w)
			if _, err := w.bsdEnd(c, s, i).Write([]byte("during")); err != nil {
				t.Fatal(err)
			}
			await(t, "the router says that there is no route", func() bool { return icmpOut(t, w) > before })
			w.Run(t, w.mode.iproute("route", "del", "unreachable", w.ip("192.0.2.2"))...)
			if _, err := io.ReadFull(w.farEnd(c, s, i), make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			transferBoth(t, c, s, 1<<20)
		}
	})
}

func (w *world) bsdEnd(c, s conn, i int) conn { return []conn{c, s}[i] }
func (w *world) farEnd(c, s conn, i int) conn { return []conn{s, c}[i] }

// icmpOut returns the number of ICMP or ICMPv6 destination unreachable messages that the kernel has
// sent.
func icmpOut(t *testing.T, w *world) (n int) {
	t.Helper()
	file := "/proc/thread-self/net/snmp"
	if w.mode.ip6 {
		file += "6"
	}
	if err := w.Do(func() error {
		text, err := os.ReadFile(file)
		var names []string
		for line := range strings.Lines(string(text)) {
			switch f := strings.Fields(line); {
			case f[0] == "Icmp6OutDestUnreachs":
				fmt.Sscan(f[1], &n)
			case f[0] == "Icmp:" && names == nil:
				names = f
			case f[0] == "Icmp:":
				fmt.Sscan(f[slices.Index(names, "OutDestUnreachs")], &n)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// ping works with all sizes, in one piece and in fragments.
func TestPing(t *testing.T) {
	nstest.Need(t, "ping")
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		for _, size := range []int{0, 1, 56, 1452, 1453, 1472, 1473, 8000, 65507} {
			out, err := w.Try("ping", "-c", "2", "-i", "0.01", "-w", "50", "-s", fmt.Sprint(size), w.ip(bsdIP))
			// ping may send a third request before the second answer arrives, and does not wait for
			// its answer.
			if err != nil || !strings.Contains(out, "icmp_seq=1 ") ||
				!strings.Contains(out, "icmp_seq=2 ") || strings.Contains(out, "wrong data") {
				t.Errorf("size %d: %v\n%s", size, err, out)
			}
		}
	})
}
