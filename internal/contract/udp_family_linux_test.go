//go:build linux

package contract

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"bsdnet"
)

var udpNetworks = []string{"udp", "udp4", "udp6"}

// readable reports whether a datagram waits on a socket that has no other news.
func readable(c udpConn) bool {
	if b, ok := c.(*bsdnet.UDPConn); ok {
		return b.Info().RecvQueue > 0
	}
	return pollIn(c)
}

// seen returns everything that is to be seen of a datagram on a socket: its data, and its sender's
// address as each method has it.
func seen(c udpConn) string {
	b := make([]byte, 10)
	var out []any
	for _, r := range udpReads {
		if !readable(c) {
			return fmt.Sprint(append(out, "nothing")...)
		}
		k, from, err := r.do(c, b)
		out = append(out, string(b[:k]), " ", from, " ", describe(err), "; ")
	}
	return fmt.Sprint(out...)
}

// TestUDPFamilies: each network and address that a socket can have, and each that is dialed then:
// the addresses of both ends, and of the datagrams that get through.
func TestUDPFamilies(t *testing.T) {
	bothKinds(t, func(t *testing.T, n *network) (out []string) {
		for _, network := range udpNetworks {
			for _, host := range hosts {
				e := n.serverEnd()
				if !n.kernel {
					e = loopback(t).serverEnd() // or the limit of ICMP errors would be seen
				}
				what := "listen " + network + " " + host
				p, err := e.listenPacket(network, host+":0")
				if err != nil {
					out = append(out, what+": "+describe(err))
					continue
				}
				l, port := p.(udpConn), portOf(p.LocalAddr())
				out = append(out, what+": "+anyPort(addrText(l.LocalAddr()), port))
				for _, dnet := range udpNetworks {
					for _, dhost := range hosts {
						if dhost == "[2001:db8::1]" || dhost == "[fe80::1]" {
							continue // package net's datagrams would leave the host
						}
						out = append(out, what+", dial "+dnet+" "+dhost+": "+talk(e, l, dnet, dhost+":"+port))
					}
				}
				l.Close()
			}
		}
		return out
	})
}

// talk dials a socket, sends datagrams to it, and returns all that there is to be seen.
func talk(e end, l udpConn, network, address string) string {
	port := portOf(l.LocalAddr())
	d, err := e.dial(context.Background(), network, address)
	if err != nil {
		return anyPort(describe(err), port)
	}
	defer d.Close()
	c := d.(udpConn)
	text := addrText(c.LocalAddr()) + " " + addrText(c.RemoteAddr())
	for range udpReads { // an even number: each second one takes the error of the one before
		_, err := c.Write([]byte("there"))
		text += " " + describe(err)
	}
	text += " there: " + seen(l)
	_, err = l.WriteTo([]byte("back"), c.LocalAddr())
	text += " " + describe(err)
	if readable(c) {
		b := make([]byte, 10)
		k, from, err := c.ReadFrom(b)
		text += fmt.Sprint(" back: ", string(b[:k]), " ", addrText(from), " ", describe(err))
	}
	return anyPort(text, port, portOf(c.LocalAddr()))
}

// TestUDPFamiliesTwo: which of two sockets is told that the address is in use.
func TestUDPFamiliesTwo(t *testing.T) {
	bothKinds(t, func(t *testing.T, n *network) (out []string) {
		e := n.serverEnd()
		for _, an := range udpNetworks {
			for _, ah := range hosts {
				a, err := e.listenPacket(an, ah+":0")
				if err != nil {
					continue
				}
				port := portOf(a.LocalAddr())
				for _, bn := range udpNetworks {
					for _, bh := range hosts {
						b, err := e.listenPacket(bn, bh+":"+port)
						out = append(out, an+" "+ah+", "+bn+" "+bh+": "+anyPort(describe(err), port))
						if err == nil {
							b.Close()
						}
					}
				}
				a.Close()
			}
		}
		return out
	})
}

// TestUDPFamiliesDestinations: each form of a destination, written to from sockets of each kind,
// and where the datagram arrives.
func TestUDPFamiliesDestinations(t *testing.T) {
	bothKinds(t, func(t *testing.T, n *network) (out []string) {
		e := n.serverEnd()
		four, six := portPair(t, e)
		defer four.Close()
		defer six.Close()
		port := udpAddr(four).Port
		for _, s := range []struct{ network, host string }{
			{"udp", ""}, {"udp4", ""}, {"udp6", ""}, {"udp", "127.0.0.1"}, {"udp", "[::1]"}, {"udp6", "[::1]"},
			{"udp6", "[::ffff:127.0.0.1]"}, {"udp", "[::ffff:127.0.0.1]"},
		} {
			p, err := e.listenPacket(s.network, s.host+":0")
			if err != nil {
				out = append(out, describe(err))
				continue
			}
			c := p.(udpConn)
			note := func(what string, err error) {
				r := fmt.Sprint(s, " to ", what, ": ", describe(err))
				for name, at := range map[string]udpConn{"four": four, "six": six} {
					if readable(at) {
						k, from, err := at.ReadFromUDPAddrPort(make([]byte, 10))
						r += fmt.Sprint(" ", name, " ", k, " ", from, " ", describe(err))
					}
				}
				out = append(out, anyPort(r, fmt.Sprint(port), portOf(c.LocalAddr())))
			}
			for _, ip := range []net.IP{
				nil, {127, 0, 0, 1}, net.IPv4(127, 0, 0, 1), {0, 0, 0, 0}, net.IPv4zero, net.IPv6zero, net.IPv6loopback,
				{1, 2, 3}, {1, 2, 3, 4, 5},
			} {
				a := &net.UDPAddr{IP: ip, Port: port}
				_, err := c.WriteTo([]byte("x"), a)
				note(fmt.Sprintf("%v of %d", ip, len(ip)), err)
				_, _, err = c.WriteMsgUDP([]byte("y"), nil, a)
				note(fmt.Sprintf("%v of %d by WriteMsgUDP", ip, len(ip)), err)
			}
			for _, ip := range []string{"127.0.0.1", "::ffff:127.0.0.1", "::1", "0.0.0.0", "::ffff:0.0.0.0", "::"} {
				a := netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port))
				_, err := c.WriteToUDPAddrPort([]byte("x"), a)
				note(ip+" by AddrPort", err)
				_, _, err = c.WriteMsgUDPAddrPort([]byte("x"), nil, a)
				note(ip+" by WriteMsgUDPAddrPort", err)
			}
			c.Close()
		}
		return out
	})
}

// portPair returns a socket of IPv4 and one of IPv6 on the same port.
func portPair(t *testing.T, e end) (four, six udpConn) {
	for range 100 {
		p4, err := e.listenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if p6, err := e.listenPacket("udp6", "[::1]:"+portOf(p4.LocalAddr())); err == nil {
			return p4.(udpConn), p6.(udpConn)
		}
		p4.Close()
	}
	t.Fatal("no port is free for both families")
	return nil, nil
}
