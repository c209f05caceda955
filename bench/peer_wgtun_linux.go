package main

import (
	"context"
	"fmt"
	"net"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
)

// wgOffset is the room before each packet that WireGuard's TUN package asks for, for a virtio-net header.
const wgOffset = vnetHdrLen

// openGvisorWgTUN is gVisor behind WireGuard's TUN package, which cuts what it reads into packets of the device's MTU, and joins what it
// writes. gVisor joins them again (GRO), and cuts what it sends (gVisor GSO). A channel link is between them.
func openGvisorWgTUN() (*network, error) {
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
	link.LinkEPCapabilities = stack.CapabilityRXChecksumOffload // the checksums of joined packets are those of the first
	s, err := newGvisor(link, serverPrefix)
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
	return overDevice(func() (net.Listener, error) { return gvisorListen(s, serverPrefix.Addr()) }, func() {
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
	g.Dispatcher = intoLink{link}
	for {
		n, err := dev.Read(bufs, sizes, wgOffset)
		for i := range n {
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
				Payload: buffer.MakeWithData(bufs[i][wgOffset : wgOffset+sizes[i]]),
			})
			pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
			pkt.RXChecksumValidated = true // the device's
			g.Enqueue(pkt)
			pkt.DecRef()
		}
		g.Flush()
		if err != nil {
			return
		}
	}
}

// intoLink is where GRO sends its packets.
type intoLink struct{ *channel.Endpoint }

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (l intoLink) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	l.InjectInbound(protocol, pkt)
}

// DeliverLinkPacket implements stack.NetworkDispatcher.
func (intoLink) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}
