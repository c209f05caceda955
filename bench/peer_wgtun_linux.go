package main

import (
	"context"
	"fmt"
	"net"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
)

// wgOffset is the room for a virtio-net header that WireGuard's TUN package needs before each
// packet.
const wgOffset = vnetHdrLen

// openGvisorWgTUN makes a gVisor stack behind WireGuard's TUN package, which cuts the data that it
// reads into packets of the device's MTU, and joins the packets that it writes. gVisor joins the
// former again (GRO), and cuts the data that it sends (gVisor GSO). A channel link is between them.
func openGvisorWgTUN(cc congestion) (*network, error) {
	dev, err := tun.CreateTUN(tunName, tunMTU)
	if err != nil {
		return nil, fmt.Errorf("gvisor: TUN: %w", err)
	}
	if err := setLink(tunName, clientPrefix); err != nil {
		dev.Close()
		return nil, err
	}
	link := channel.New(gvisorQueue, tunMTU, "")
	link.SupportedGSOKind = stack.GVisorGSOSupported
	// A joined packet has the checksum of the first of its parts, which would not be right.
	link.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	s, err := newGvisor(cc, link, serverPrefix)
	if err != nil {
		dev.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { carryIn(dev, link) })
	wg.Go(func() {
		carryOut(ctx, link, dev.BatchSize(), func(bufs [][]byte) error {
			_, err := dev.Write(bufs, wgOffset)
			return err
		})
	})
	wg.Go(func() {
		for range dev.Events() {
		}
	})
	return overDevice(cc, func() (net.Listener, error) { return gvisorListen(s, serverPrefix.Addr()) }, func() {
		stop()
		dev.Close()
		wg.Wait()
		gvisorEnd(s)
	}), nil
}

// carryIn takes packets from the device to the link until the device is closed.
func carryIn(dev tun.Device, link *channel.Endpoint) {
	bufs, sizes := make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, wgOffset+65535)
	}
	var g gro.GRO
	g.Init(true)
	g.Dispatcher = intoLink{Endpoint: link}
	for {
		n, err := dev.Read(bufs, sizes, wgOffset)
		for i := range n {
			enqueue(&g, bufs[i][wgOffset:wgOffset+sizes[i]])
		}
		g.Flush()
		if err != nil {
			return
		}
	}
}

// carryOut takes packets from a channel link to write in batches. Each packet has room for a header
// before it.
func carryOut(ctx context.Context, from *channel.Endpoint, batch int, write func(bufs [][]byte) error) {
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = make([]byte, wgOffset+65535)
	}
	out := make([][]byte, batch)
	for {
		n := dequeue(ctx, from, bufs, sizes, wgOffset)
		for i := range n {
			out[i] = bufs[i][:wgOffset+sizes[i]]
		}
		if n == 0 || write(out[:n]) != nil {
			return
		}
	}
}
