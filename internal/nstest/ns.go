//go:build linux

package nstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An NS is a network namespace. A namespace from [New] lasts until the test ends, and one from
// [Make] until Close. Programs that run in a namespace keep it.
type NS struct{ f *os.File }

// ownNS is the namespace of a thread.
const ownNS = "/proc/thread-self/ns/net"

// New makes a namespace with the loopback up. It skips the test if that is not possible.
func New(t testing.TB) *NS {
	t.Helper()
	Need(t)
	n, err := Make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// Make makes a namespace with the loopback up, also outside of a test. It needs CAP_SYS_ADMIN. The
// caller closes the namespace.
func Make() (*NS, error) {
	var n NS
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		var err error
		if n.f, err = os.Open(ownNS); err != nil {
			return err
		}
		if err := loopbackUp(); err != nil {
			n.Close()
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &n, nil
}

// Close releases the namespace. The kernel removes it when nothing runs in it any more.
func (n *NS) Close() { n.f.Close() }

// onThread runs f on a thread of its own. Afterwards it returns the thread to its namespace, or
// ends it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		old, err := os.Open(ownNS)
		if err != nil {
			done <- err
			return
		}
		defer old.Close()
		finished := false
		defer func() { // also after runtime.Goexit in f
			if unix.Setns(int(old.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread() // without this, the thread ends with the goroutine
			}
			if !finished {
				done <- fmt.Errorf("nstest: f has ended its goroutine")
			}
		}()
		err = f()
		finished = true
		done <- err
	}()
	return <-done
}

// Do calls f on a thread in the namespace. Sockets, devices and processes that f makes are in the
// namespace, and stay there. Goroutines that f starts are not. f must not call t.Fatal.
func (n *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		return f()
	})
}

// Without is like Do, without a capability that root has, such as unix.CAP_NET_ADMIN.
func (n *NS) Without(capability int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends with the goroutine
		done <- func() error {
			if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("setns: %w", err)
			}
			hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&hdr, &data[0]); err != nil {
				return fmt.Errorf("capget: %w", err)
			}
			d := &data[capability/32]
			d.Effective &^= 1 << (capability % 32)
			d.Permitted &^= 1 << (capability % 32)
			if err := unix.Capset(&hdr, &data[0]); err != nil {
				return fmt.Errorf("capset: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

// Path returns a name of the namespace for ip(8), as in "ip link set X netns PATH". It is valid
// while the test runs.
func (n *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.f.Fd()) }

// Listen is net.Listen in the namespace. The address is numeric.
func (n *NS) Listen(network, address string) (ln net.Listener, err error) {
	err = n.Do(func() error {
		ln, err = net.Listen(network, address)
		return err
	})
	return ln, err
}

// Dial is net.Dial in the namespace, without a deadline. The address is numeric.
func (n *NS) Dial(network, address string) (net.Conn, error) {
	return n.DialContext(context.Background(), network, address)
}

// DialContext is net.Dialer.DialContext in the namespace, for http.Transport.
func (n *NS) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Start starts a program in the namespace.
func (n *NS) Start(cmd *exec.Cmd) error {
	if cmd.Err != nil {
		if p, err := lookPath(cmd.Args[0]); err == nil {
			cmd.Path, cmd.Err = p, nil
		}
	}
	return n.Do(cmd.Start)
}

// runLimit is how long a program may run in Run.
const runLimit = time.Minute

// Run runs a program in the namespace, which must succeed, and returns its output.
func (n *NS) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := n.Try(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Try runs a program in the namespace for up to a minute, and returns its standard output and
// standard error together.
func (n *NS) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := n.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// Background starts a program in the namespace, which runs until the test ends. The returned Output
// has its standard output and standard error so far.
func (n *NS) Background(t testing.TB, args ...string) *Output {
	t.Helper()
	o := new(Output)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = o, o
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.Start(cmd); err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", args[0], o)
		}
	})
	return o
}

// Sysctl sets a variable of the namespace, such as net.ipv4.tcp_sack. It skips the test if there is
// no such variable.
func (n *NS) Sysctl(t testing.TB, name, value string) {
	t.Helper()
	err := n.Set(name, value)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		Skip(t, "%v", err)
	case err != nil:
		t.Fatalf("sysctl %s=%s: %v", name, value, err)
	}
}

// Set sets a variable of the namespace, as Sysctl does. If there is no such variable, the error
// wraps fs.ErrNotExist.
func (n *NS) Set(name, value string) error {
	return n.Do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
	})
}

var veths atomic.Int32

// Veth connects two namespaces by a cable whose ends have the given addresses, such as
// "192.0.2.1/24" or "2001:db8::1/64", and returns the names of the ends. The MTU is in bytes; 0
// means 1500.
func Veth(t testing.TB, a *NS, aAddr string, b *NS, bAddr string, mtu int) (aDev, bDev string) {
	t.Helper()
	Need(t, "ip")
	i := veths.Add(1)
	aDev, bDev = fmt.Sprintf("ve%da", i), fmt.Sprintf("ve%db", i)
	if mtu == 0 {
		mtu = 1500
	}
	m := fmt.Sprint(mtu)
	a.Run(t, "ip", "link", "add", aDev, "mtu", m, "type", "veth", "peer", "name", bDev, "mtu", m, "netns", b.Path())
	a.addAddr(t, aAddr, aDev)
	b.addAddr(t, bAddr, bDev)
	a.Run(t, "ip", "link", "set", aDev, "up")
	b.Run(t, "ip", "link", "set", bDev, "up")
	return aDev, bDev
}

// addAddr gives a device an address, which can be used at once.
func (n *NS) addAddr(t testing.TB, addr, dev string) {
	t.Helper()
	args := []string{"ip", "addr", "add", addr, "dev", dev}
	if strings.Contains(addr, ":") {
		args = append(args, "nodad")
	}
	n.Run(t, args...)
}

// Forward makes the namespace a router of IPv4, and of IPv6 if the kernel has that.
func (n *NS) Forward(t testing.TB) {
	t.Helper()
	n.Sysctl(t, "net.ipv4.ip_forward", "1")
	if err := n.Set("net.ipv6.conf.all.forwarding", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
