package main

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"bsdnet"
	"bsdnet/internal/nstest"
	"bsdnet/tun"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// TestKernel has quic-go on the kernel's UDP at one end of a TUN device, and quic-go on the stack's
// at the other, as server and as client.
func TestKernel(t *testing.T) {
	nstest.Need(t, "/dev/net/tun")
	for _, kernelServes := range []bool{false, true} {
		ns := nstest.New(t)
		stack, host := "10.0.0.2", "10.0.0.1"
		s := overTUN(t, ns, stack, host)
		ours, err := s.ListenPacket("udp", stack+":443")
		if err != nil {
			t.Fatal(err)
		}
		var theirs net.PacketConn
		err = ns.Do(func() (err error) {
			theirs, err = net.ListenPacket("udp4", host+":443")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		if kernelServes {
			exchange(t, theirs, ours, host)
		} else {
			exchange(t, ours, theirs, stack)
		}
	}
}

// exchange serves HTTP/3 from one socket, and fetches from another.
func exchange(t *testing.T, server, client net.PacketConn, address string) {
	cert, pool, err := certificate(address)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http3.Server{Handler: handler(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	go srv.Serve(server)
	defer srv.Close()
	transport := newTransport(client, &tls.Config{RootCAs: pool})
	defer transport.Close()
	var out strings.Builder
	if err := fetch(&out, &http.Client{Transport: transport, Timeout: time.Minute}, "https://"+address); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
	}
}

// overTUN returns a stack with a TUN device in the namespace, whose address on the host is given.
func overTUN(t *testing.T, ns *nstest.NS, address, host string) *bsdnet.Stack {
	var dev *tun.Link
	err := ns.Do(func() (err error) {
		dev, err = tun.Open(tun.Config{Name: "bsd0", Host: netip.MustParsePrefix(host + "/24")})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Attach(dev, netip.MustParsePrefix(address+"/24")); err != nil {
		t.Fatal(err)
	}
	return s
}
