//go:build linux

package nstest

import (
	"io"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// Two namespaces with a cable have their own ports and addresses, and programs run in them.
func TestVeth(t *testing.T) {
	a, b := New(t), New(t)
	aDev, bDev := Veth(t, a, "192.0.2.1/24", b, "192.0.2.2/24", 1400)
	for _, c := range []struct {
		ns        *NS
		dev, addr string
	}{{a, aDev, "192.0.2.1"}, {b, bDev, "192.0.2.2"}} {
		if out := c.ns.Run(t, "ip", "addr", "show"); !strings.Contains(out, c.addr) ||
			!strings.Contains(out, c.dev) || !strings.Contains(out, "mtu 1400") {
			t.Errorf("%s\nwant %s with %s", out, c.dev, c.addr)
		}
	}
	ln, err := b.Listen("tcp", "0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if ln, err := a.Listen("tcp", "0.0.0.0:80"); err != nil {
		t.Errorf("the port is taken in another namespace: %v", err)
	} else {
		ln.Close()
	}
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "hello")
		c.Close()
	}()
	c, err := a.Dial("tcp", "192.0.2.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if text, err := io.ReadAll(c); string(text) != "hello" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// A cable has IPv6 at once.
func TestVeth6(t *testing.T) {
	a, b := New(t), New(t)
	if err := a.Set("net.ipv6.conf.all.disable_ipv6", "0"); err != nil {
		Skip(t, "%v", err)
	}
	Veth(t, a, "2001:db8::1/64", b, "2001:db8::2/64", 0)
	ln, err := b.Listen("tcp", "[2001:db8::2]:80") // not with a tentative address
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := a.Dial("tcp", "[2001:db8::2]:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestSysctl(t *testing.T) {
	a, b := New(t), New(t)
	a.Forward(t)
	for ns, want := range map[*NS]string{a: "1\n", b: "0\n"} {
		if err := ns.Do(func() error {
			v, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
			if string(v) != want {
				t.Errorf("%q, want %q", v, want)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
}

// A program that runs in the background ends with its test.
func TestBackground(t *testing.T) {
	ns := New(t)
	t.Run("", func(t *testing.T) { ns.Background(t, "sh", "-c", "exec sleep 100") })
	if out, err := ns.Try("sh", "-c", "echo out; echo err >&2; exit 3"); err == nil || out != "out\nerr\n" {
		t.Errorf("%q, %v", out, err)
	}
}
