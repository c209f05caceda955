package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"bsdnet/tun"

	"golang.org/x/sys/unix"
)

const (
	tunName = "bench0"
	tunMTU  = 1500
)

func tunPeers() []peer {
	return []peer{
		{name: "bsdnet", role: ours, open: func(cc congestion) (*network, error) { return openBsdnetTUN(cc, 2) }},
		{name: "bsdnet-1q", role: ours, open: func(cc congestion) (*network, error) { return openBsdnetTUN(cc, 1) }},
		{name: "veth", role: kernel, open: openVeth},
		{name: "gvisor-gso", role: gvisor, open: openGvisorTUN, kinds: kindsTCP},
		{name: "gvisor-wgtun", role: gvisor, open: openGvisorWgTUN, kinds: kindsTCP},
	}
}

// tunCheck returns the reason why there are no devices, or nil if there are.
func tunCheck() error {
	if err := namespace(); err != nil {
		return err
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// overDevice returns a network whose client is the kernel and whose server listens behind a device.
func overDevice(cc congestion, listen func() (net.Listener, error), close func()) *network {
	return &network{
		listen: listen,
		dial:   cc.dial,
		close:  close,
		kernel: true,
	}
}

// openBsdnetTUN makes a stack behind a device with the given number of queues.
func openBsdnetTUN(cc congestion, queues int) (*network, error) {
	dev, err := tun.Open(tun.Config{Name: tunName, MTU: tunMTU, Queues: queues, Host: clientPrefix})
	if err != nil {
		return nil, err
	}
	s, err := bsdnetAt(cc, dev, serverPrefix)
	if err != nil {
		return nil, err
	}
	listen := func() (net.Listener, error) { return s.Listen("tcp", serverPrefix.Addr().String()+":0") }
	n := overDevice(cc, listen, func() { s.Close() })
	n.packets = func() (client, server packetConn, err error) {
		return packetPair(listenKernel, clientPrefix.Addr().String()+":0",
			listenBsdnet(s), serverPrefix.Addr().String()+":0")
	}
	return n, nil
}

// openVeth puts the kernel at both ends of a pair of devices. The server's is in another namespace.
func openVeth(cc congestion) (*network, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("veth: namespace: %w", err)
	}
	closeAll := func() {
		delLink(tunName)
		unix.Close(ns)
	}
	if err := newVeth(tunName, "server", ns); err != nil {
		closeAll()
		return nil, fmt.Errorf("veth: %w", err)
	}
	err = inNamespace(ns, func() error { return setLink("server", serverPrefix) })
	if err == nil {
		err = setLink(tunName, clientPrefix)
	}
	if err != nil {
		closeAll()
		return nil, err
	}
	n := overDevice(cc, func() (ln net.Listener, err error) {
		err = inNamespace(ns, func() error {
			ln, err = cc.listen(netip.AddrPortFrom(serverPrefix.Addr(), 0).String())
			return err
		})
		return ln, err
	}, closeAll)
	n.packets = func() (client, server packetConn, err error) {
		return packetPair(listenKernel, clientPrefix.Addr().String()+":0", func(at string) (c packetConn, err error) {
			err = inNamespace(ns, func() error {
				c, err = listenKernel(at)
				return err
			})
			return c, err
		}, serverPrefix.Addr().String()+":0")
	}
	return n, nil
}
