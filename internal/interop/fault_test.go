//go:build linux

package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bsdnet"
	"bsdnet/internal/nstest"
	"bsdnet/tun"
)

// under begins a transfer in both directions, calls f in the middle of it, and waits for its end.
func under(t *testing.T, client, server host, f func()) {
	t.Helper()
	c, s := pair(t, client, server)
	var passed atomic.Int64
	done := make(chan struct{})
	n := size(32<<20, 256<<20)
	go func() {
		defer close(done)
		transferBoth(t, counting{c, &passed}, s, n)
	}()
	for passed.Load() < int64(n/8) {
		select {
		case <-done:
			t.Fatal("the transfer has ended too early")
		case <-time.After(time.Millisecond):
		}
	}
	f()
	within(t, "the transfer", func() { <-done })
}

// A counting conn counts the bytes that it has read.
type counting struct {
	conn
	n *atomic.Int64
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// The transfer goes on if the device goes down and comes up again.
func TestDownAndUp(t *testing.T) {
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		w.eachRole(t, func(t *testing.T, client, server host) {
			under(t, client, server, func() {
				w.Run(t, "ip", "link", "set", w.tun.Name(), "down")
				w.Run(t, "ip", "link", "set", w.tun.Name(), "up")
			})
		})
	})
}

// Segments that are sent while the device is down are lost, and TCP sends them again.
func TestSentWhileDown(t *testing.T) {
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		c, s := pair(t, w.bsd(), w.kernel())
		w.Run(t, "ip", "link", "set", w.tun.Name(), "down")
		if _, err := c.Write([]byte("down")); err != nil {
			t.Fatalf("Write: %v; TCP should send lost segments again", err)
		}
		w.Run(t, "ip", "link", "set", w.tun.Name(), "up")
		if _, err := io.ReadFull(s, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		transferBoth(t, c, s, 1<<20)
	})
}

// If the device is removed during a transfer, the link's Read ends with an error that says so,
// dials fail, and nothing hangs.
func TestDeviceRemoved(t *testing.T) {
	var ended chan error
	o := options{wrap: func(t *testing.T, dev *tun.Link) bsdnet.Link {
		ended = make(chan error, 8)
		return &watched{Link: dev, ended: ended}
	}}
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, m, o)
			c, s := pair(t, w.bsd(), w.kernel())
			ln, err := w.stack.Listen("tcp", ":99")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() { copyPlain(c, stream(1, 1<<30)) })
			wg.Go(func() { copyPlain(io.Discard, c) })
			if _, err := io.ReadFull(s, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			w.Run(t, "ip", "link", "del", w.tun.Name())
			within(t, "the link's Read", func() {
				for range m.queues {
					if err := <-ended; err == nil || !strings.Contains(err.Error(), "removed") ||
						!strings.Contains(err.Error(), w.tun.Name()) {
						t.Errorf("Read: %v, want the removal of %s", err, w.tun.Name())
					}
				}
			})
			// The interface may learn of the removal a moment later.
			await(t, "a dial fails at once", func() bool {
				err := dialError(t, w.bsd(), w.at(kernIP)+":1", 100*time.Millisecond)
				return errors.Is(err, syscall.ENETDOWN) || errors.Is(err, syscall.ENETUNREACH)
			})
			within(t, "closing", func() {
				c.SetLinger(0)
				c.Close()
				ln.Close()
				w.stack.Close()
			})
			within(t, "Read and Write", wg.Wait)
		})
	}
}

// A watched device reports the error with which Read ended.
type watched struct {
	*tun.Link
	ended chan error
}

func (l *watched) Read(bufs [][]byte, sizes []int) (int, error) { return l.ReadQueue(0, bufs, sizes) }

func (l *watched) ReadQueue(q int, bufs [][]byte, sizes []int) (int, error) {
	n, err := l.Link.ReadQueue(q, bufs, sizes)
	if err != nil {
		l.ended <- err
	}
	return n, err
}

// Connections go on if the device is removed, opened again under the same name and attached with
// the same addresses.
func TestReattach(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, m, options{})
			w.eachRole(t, func(t *testing.T, client, server host) {
				under(t, client, server, func() {
					name := w.tun.Name()
					within(t, "Detach", func() {
						if err := w.stack.Detach(w.link); err != nil {
							t.Error(err)
						}
					})
					c := w.device(0)
					c.Name = name
					w.tun = openTUN(t, w.NS, c)
					w.link = w.tun
					if err := w.stack.Attach(w.link, w.bsdAddrs()...); err != nil {
						t.Fatal(err)
					}
				})
			})
		})
	}
}

// A transfer goes on over a device that fails now and then with ENOBUFS or EIO, or that takes fewer
// packets than it is given.
func TestFlakyDevice(t *testing.T) {
	for _, fault := range []error{syscall.ENOBUFS, syscall.EIO, nil} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			o := options{wrap: func(t *testing.T, dev *tun.Link) bsdnet.Link {
				return &flaky{Link: dev, fault: fault}
			}}
			eachMode(t, 4, o, func(t *testing.T, w *world) {
				w.eachRole(t, func(t *testing.T, client, server host) {
					c, s := pair(t, client, server)
					transferBoth(t, c, s, 4<<20)
				})
				if w.link.(*flaky).faults.Load() == 0 {
					t.Error("nothing has failed")
				}
			})
		})
	}
}

// A flaky device fails in every twentieth Write. If fault is nil, it takes all packets except one,
// and soon afterwards says that there is room.
type flaky struct {
	*tun.Link
	fault          error
	ready          func()
	writes, faults atomic.Int64
}

func (f *flaky) Start(ready func()) error {
	f.ready = ready
	return f.Link.Start(ready)
}

func (f *flaky) Write(pkts []net.Buffers) (int, error) { return f.WriteQueue(0, pkts) }

func (f *flaky) WriteQueue(q int, pkts []net.Buffers) (int, error) {
	if f.writes.Add(1)%20 != 0 {
		return f.Link.WriteQueue(q, pkts)
	}
	f.faults.Add(1)
	n, err := f.Link.WriteQueue(q, pkts[:len(pkts)-1])
	if err == nil && f.fault == nil {
		go f.ready()
	}
	if err == nil {
		err = f.fault
	}
	return n, err
}

// tun.Open accepts the descriptor of a device that another program has opened.
func TestFile(t *testing.T) {
	nstest.Need(t, "/dev/net/tun")
	for _, flags := range []uint16{0, unix.IFF_VNET_HDR} {
		t.Run(fmt.Sprintf("flags %#x", flags), func(t *testing.T) {
			ns := nstest.New(t)
			f := rawTUN(t, ns, "given", unix.IFF_TUN|unix.IFF_NO_PI|flags)
			dev := openTUN(t, ns, tun.Config{File: f, Host: netip.MustParsePrefix(kernIP + "/24")})
			f.Close() // the link has a descriptor of its own
			if dev.Name() != "given" {
				t.Errorf("the device is %q", dev.Name())
			}
			w := &world{NS: ns, tun: dev, link: dev, stack: newStack(t, bsdnet.Config{})}
			if err := w.stack.Attach(dev, netip.MustParsePrefix(bsdIP+"/24")); err != nil {
				t.Fatal(err)
			}
			w.eachRole(t, func(t *testing.T, client, server host) {
				c, s := pair(t, client, server)
				transferBoth(t, c, s, 4<<20)
			})
		})
	}
}

// tun.Open refuses a device that puts 4 bytes before each packet. The error names the missing flag.
func TestFileWithPI(t *testing.T) {
	nstest.Need(t, "/dev/net/tun")
	for _, flags := range []uint16{0, unix.IFF_VNET_HDR} {
		for _, noOffload := range []bool{false, true} {
			t.Run(fmt.Sprintf("flags %#x, NoOffload %v", flags, noOffload), func(t *testing.T) {
				ns := nstest.New(t)
				dev := openTUN(t, ns, tun.Config{File: rawTUN(t, ns, "given", unix.IFF_TUN|flags), NoOffload: noOffload,
					Host: netip.MustParsePrefix(kernIP + "/24")})
				stack := newStack(t, bsdnet.Config{})
				if err := stack.Attach(dev, netip.MustParsePrefix(bsdIP+"/24")); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				dialed := make(chan struct{})
				go func() {
					defer close(dialed)
					if c, err := ns.DialContext(ctx, "tcp", bsdIP+":1"); err == nil {
						c.Close()
					}
				}()
				await(t, "LinkErr", func() bool { return stack.LinkErr(dev) != nil })
				if err := stack.LinkErr(dev); !strings.Contains(err.Error(), "IFF_NO_PI") {
					t.Error(err)
				}
				cancel()
				<-dialed
			})
		}
	}
}

// rawTUN opens a device in the way that another program would.
func rawTUN(t *testing.T, ns *nstest.NS, name string, flags uint16) *os.File {
	t.Helper()
	var fd int
	if err := ns.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// The errors of tun.Open say why a device cannot be opened.
func TestOpenErrors(t *testing.T) {
	nstest.Need(t, "/dev/net/tun", "ip")
	ns := nstest.New(t)
	refused := func(c tun.Config, errno syscall.Errno, words ...string) {
		t.Helper()
		err := ns.Do(func() error {
			dev, err := tun.Open(c)
			if err == nil {
				dev.Close()
			}
			return err
		})
		if err == nil || errno != 0 && !errors.Is(err, errno) {
			t.Errorf("%+v: %v, want %v", c, err, errno)
			return
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: %v; the error does not contain %q", c, err, w)
			}
		}
	}
	ns.Run(t, "ip", "tuntap", "add", "single", "mode", "tun")
	refused(tun.Config{Name: "single", Queues: 2}, syscall.EINVAL, "single", "multi_queue")
	ns.Run(t, "ip", "tuntap", "add", "frames", "mode", "tap")
	refused(tun.Config{Name: "frames"}, syscall.EINVAL, "frames", "not a TUN device")
	refused(tun.Config{Name: "lo"}, syscall.EINVAL, "lo", "not a TUN device")
	refused(tun.Config{Name: "a/b"}, syscall.EINVAL, "a/b", "not a device's name")
	refused(tun.Config{Name: "a b"}, syscall.EINVAL, "a b", "not a device's name")
	refused(tun.Config{Name: "tun%s"}, syscall.EINVAL, "tun%s", "not a device's name")
	busy := openTUN(t, ns, tun.Config{Name: "busy"})
	defer busy.Close()
	refused(tun.Config{Name: "busy"}, syscall.EBUSY, "busy", "open")
	wide := openTUN(t, ns, tun.Config{Name: "wide", Queues: 2}) // the kernel would let others open queues of it
	defer wide.Close()
	refused(tun.Config{Name: "wide", Queues: 2}, syscall.EBUSY, "wide", "open")
	refused(tun.Config{Name: "wide"}, syscall.EBUSY, "wide", "open")
	refused(tun.Config{File: rawTUN(t, ns, "tap0", unix.IFF_TAP|unix.IFF_NO_PI)}, 0, "tap0", "Ethernet")

	// A device that exists already is opened, and stays.
	for _, name := range []string{"single", "several"} {
		if name == "several" {
			ns.Run(t, "ip", "tuntap", "add", "several", "mode", "tun", "multi_queue")
		}
		for range 2 {
			queues := 1
			if name == "several" {
				queues = 2
			}
			dev := openTUN(t, ns, tun.Config{Name: name, Queues: queues})
			if dev.Name() != name {
				t.Errorf("%s has been opened as %s", name, dev.Name())
			}
			dev.Close()
			ns.Run(t, "ip", "link", "show", name)
		}
	}
	openTUN(t, ns, tun.Config{Name: "several", Queues: 1}).Close()
	// A device that tun.Open has made goes away with the link.
	dev := openTUN(t, ns, tun.Config{})
	ns.Run(t, "ip", "link", "show", dev.Name())
	dev.Close()
	if out, err := ns.Try("ip", "link", "show", dev.Name()); err == nil {
		t.Errorf("the device is still there: %s", out)
	}
}

// If the process has no right to make a device, the error names the capability that is missing, and
// how to get it.
func TestNoRights(t *testing.T) {
	nstest.Need(t, "/dev/net/tun")
	err := nstest.New(t).Without(unix.CAP_NET_ADMIN, func() error {
		dev, err := tun.Open(tun.Config{})
		if err == nil {
			dev.Close()
		}
		return err
	})
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") ||
		!strings.Contains(err.Error(), "unshare -Urn") {
		t.Errorf("%v", err)
	}
}

// If a link is detached, dials over it and all other calls end.
func TestDetachUnderUse(t *testing.T) {
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		c, _ := pair(t, w.bsd(), w.kernel())
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		dialed := make(chan error, 1)
		go func() {
			_, err := w.stack.DialContext(ctx, "tcp", w.at("10.9.0.99")+":1") // an address that nobody has
			dialed <- err
		}()
		within(t, "Detach", func() {
			if err := w.stack.Detach(w.link); err != nil {
				t.Error(err)
			}
		})
		within(t, "the dial", func() {
			if err := <-dialed; err == nil {
				t.Error("the dial has succeeded")
			}
		})
		if err := dialError(t, w.bsd(), w.at(kernIP)+":1", limit); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("dial: %v", err)
		}
		within(t, "Close", func() { c.Close() })
	})
}

// A device that tun.Open makes has a long queue, with one queue and with several. A device that
// existed before, or that another program has opened, stays as it is.
func TestQueueLen(t *testing.T) {
	nstest.Need(t, "/dev/net/tun", "ip")
	ns := nstest.New(t)
	ns.Run(t, "ip", "tuntap", "add", "before", "mode", "tun")
	ns.Run(t, "ip", "link", "set", "before", "txqueuelen", "77")
	for _, c := range []struct {
		name, want string
		config     tun.Config
	}{
		{"one", "qlen 5000", tun.Config{Name: "one"}},
		{"several", "qlen 5000", tun.Config{Name: "several", Queues: 3}},
		{"plain", "qlen 5000", tun.Config{Name: "plain", NoOffload: true, MTU: 9000}},
		{"before", "qlen 77", tun.Config{Name: "before"}},
		{"given", "qlen 500", tun.Config{File: rawTUN(t, ns, "given", unix.IFF_TUN|unix.IFF_NO_PI)}},
	} {
		dev := openTUN(t, ns, c.config)
		out := ns.Run(t, "ip", "link", "show", c.name)
		if first, _, _ := strings.Cut(out, "\n"); !strings.HasSuffix(strings.TrimSpace(first), c.want) {
			t.Errorf("%s is %q, want %s", c.name, first, c.want)
		}
		dev.Close()
	}
}
