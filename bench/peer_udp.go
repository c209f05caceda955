package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"bsdnet"
	"bsdnet/udptunnel"
	"bsdnet/wireguard"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

func udpPeers() []peer {
	return []peer{
		{name: "bsdnet", role: ours, open: openBsdnetUDP},
		{name: "bsdnet-wg", role: ours, open: openBsdnetWireGuard},
		{name: "wireguard-go", role: gvisor, open: openWireGuardGo},
		{name: "wireguard-go-batch", role: gvisor, open: openWireGuardBatch},
	}
}

// openBsdnetUDP makes two stacks with bsdnet's own tunnel between them.
func openBsdnetUDP(cc congestion) (*network, error) {
	key := make([]byte, 32)
	rand.Read(key)
	server, err := udptunnel.Open(udptunnel.Config{Local: "127.0.0.1:0", Key: key, MTU: wireguard.DefaultMTU})
	if err != nil {
		return nil, err
	}
	client, err := udptunnel.Open(udptunnel.Config{Local: "127.0.0.1:0", Peer: server.LocalAddr().String(),
		Key: key, MTU: wireguard.DefaultMTU})
	if err != nil {
		server.Close()
		return nil, err
	}
	return bsdnetOver(cc, server, client)
}

// openBsdnetWireGuard makes two stacks with WireGuard between them.
func openBsdnetWireGuard(cc congestion) (*network, error) {
	keys := [2]wireguard.Secret{wireguard.NewSecret(), wireguard.NewSecret()}
	end := func(i int, own, other netip.Prefix, endpoint string) (*wireguard.Link, *bsdnet.Stack, error) {
		l, err := wireguard.Open(&wireguard.Config{
			PrivateKey: keys[i],
			Addresses:  []netip.Prefix{own},
			Peers: []wireguard.Peer{{
				PublicKey: keys[1-i].Public(), Endpoint: endpoint,
				AllowedIPs: []netip.Prefix{netip.PrefixFrom(other.Addr(), 32)},
			}},
		})
		if err != nil {
			return nil, nil, err
		}
		s, err := newBsdnet(cc)
		if err == nil {
			if err = l.AttachTo(s); err == nil {
				return l, s, nil
			}
			s.Close()
		}
		l.Close()
		return nil, nil, err
	}
	l, server, err := end(0, serverPrefix, clientPrefix, "")
	if err != nil {
		return nil, err
	}
	_, client, err := end(1, clientPrefix, serverPrefix, "127.0.0.1:"+strconv.Itoa(l.Port()))
	if err != nil {
		server.Close()
		return nil, err
	}
	return bsdnetNetwork(server, client, serverPrefix.Addr().String()+":0"), nil
}

// openWireGuardGo makes two of WireGuard's own devices in user space, with gVisor's netstack as
// WireGuard's package netstack sets it up: with Reno, whatever the other peers have.
func openWireGuardGo(congestion) (*network, error) {
	var tuns [2]tun.Device
	var nets [2]*netstack.Net
	addrs := [2]netip.Addr{serverPrefix.Addr(), clientPrefix.Addr()}
	for i := range tuns {
		t, n, err := netstack.CreateNetTUN(addrs[i:i+1], nil, wireguard.DefaultMTU)
		if err != nil {
			if i > 0 {
				tuns[0].Close()
			}
			return nil, err
		}
		tuns[i], nets[i] = t, n
	}
	end, err := wireGuardPair(tuns)
	if err != nil {
		return nil, err
	}
	return &network{
		listen: func() (net.Listener, error) {
			ln, err := nets[0].ListenTCPAddrPort(netip.AddrPortFrom(addrs[0], 0))
			if err != nil {
				return nil, err
			}
			return gvisorListener{ln}, nil
		},
		dial: func(address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			c, err := nets[1].DialContextTCPAddrPort(context.Background(), to)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		close: end,
	}, nil
}

// wireGuardPair puts WireGuard between the server's device and the client's. The function end
// closes both; if wireGuardPair fails, it closes them itself.
func wireGuardPair(tuns [2]tun.Device) (end func(), err error) {
	var devs [2]*device.Device
	for i, t := range tuns {
		devs[i] = device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	}
	end = func() {
		// Both go down first, because a packet that arrives while netstack closes would make it
		// send on a closed channel.
		for _, f := range []func(*device.Device){func(d *device.Device) { d.Down() }, (*device.Device).Close} {
			for _, d := range devs {
				f(d)
			}
		}
	}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			end()
			return nil, err
		}
	}
	endpoint := ""
	for i, other := range []netip.Addr{clientPrefix.Addr(), serverPrefix.Addr()} {
		text := fmt.Sprintf("private_key=%x\npublic_key=%x\n%sallowed_ip=%v/32\n",
			keys[i].Bytes(), keys[1-i].PublicKey().Bytes(), endpoint, other)
		if err = devs[i].IpcSet(text); err == nil {
			err = devs[i].Up()
		}
		if err == nil {
			endpoint, err = wireGuardPort(devs[i])
		}
		if err != nil {
			end()
			return nil, fmt.Errorf("wireguard-go: %w", err)
		}
	}
	return end, nil
}

// wireGuardPort returns a device's UDP port as an endpoint for the configuration of the other end.
func wireGuardPort(d *device.Device) (string, error) {
	text, err := d.IpcGet()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if p, ok := strings.CutPrefix(line, "listen_port="); ok {
			return "endpoint=127.0.0.1:" + p, nil
		}
	}
	return "", errors.New("wireguard-go: the device reports no port")
}
