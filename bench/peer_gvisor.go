package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// gvisorBuffer is the size of gVisor's socket buffers in bytes.
const gvisorBuffer = 4 << 20

// newGvisor makes a stack with one link. It sets the stack up for speed: SACK is on, buffers are
// large, and the receive buffer adapts its size.
func newGvisor(cc congestion, link stack.LinkEndpoint, p netip.Prefix) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: gvisorBuffer, Max: gvisorBuffer}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: gvisorBuffer, Max: gvisorBuffer}
	algorithm := tcpip.CongestionControlOption(cc.gvisor)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &rcv, &snd, &algorithm} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			s.Destroy()
			return nil, fmt.Errorf("gvisor: %T: %v", o, err)
		}
	}
	if err := s.CreateNIC(1, link); err != nil {
		s.Destroy()
		return nil, fmt.Errorf("gvisor: NIC: %v", err)
	}
	addr := tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: tcpip.AddrFrom4(p.Addr().As4()), PrefixLen: p.Bits(),
		},
	}
	if err := s.AddProtocolAddress(1, addr, stack.AddressProperties{}); err != nil {
		s.Destroy()
		return nil, fmt.Errorf("gvisor: address: %v", err)
	}
	s.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: 1})
	return s, nil
}

// gvisorListener is a listener whose Close wakes Accept.
type gvisorListener struct{ *gonet.TCPListener }

func (l gvisorListener) Close() error {
	l.Shutdown()
	return l.TCPListener.Close()
}

func gvisorListen(s *stack.Stack, at netip.Addr) (net.Listener, error) {
	ln, err := gonet.ListenTCP(s, tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(at.As4())}, ipv4.ProtocolNumber)
	if err != nil {
		return nil, err
	}
	return gvisorListener{ln}, nil
}

// A gvisorDialer dials from a stack. Its method end ends the stack too.
type gvisorDialer struct {
	s      *stack.Stack
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	dials  sync.WaitGroup // Add is called under mu
	closed bool
}

func newGvisorDialer(s *stack.Stack) *gvisorDialer {
	d := &gvisorDialer{s: s}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

func (d *gvisorDialer) dial(address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, net.ErrClosed
	}
	d.dials.Add(1)
	d.mu.Unlock()
	defer d.dials.Done()
	full := tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(to.Addr().As4()), Port: to.Port()}
	c, err := gonet.DialContextTCP(d.ctx, d.s, full, ipv4.ProtocolNumber)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// end ends the dials that wait, because the stack would wait for them forever, and then the stack.
func (d *gvisorDialer) end() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.dials.Wait()
	gvisorEnd(d.s)
}

// gvisorEnd ends a stack and its goroutines.
func gvisorEnd(s *stack.Stack) {
	s.RemoveNIC(1)
	s.Destroy()
}

// openGvisor makes one stack with its loopback.
func openGvisor(cc congestion) (*network, error) {
	p := netip.MustParsePrefix("127.0.0.1/8")
	s, err := newGvisor(cc, loopback.New(), p)
	if err != nil {
		return nil, err
	}
	d := newGvisorDialer(s)
	return &network{
		listen: func() (net.Listener, error) { return gvisorListen(s, p.Addr()) },
		dial:   d.dial,
		close:  d.end,
	}, nil
}

// gvisorQueue is the number of packets that a channel link holds. It is enough for a full socket
// buffer, so that the link loses none.
const gvisorQueue = 4096

// openGvisorPair makes two stacks with a channel link each, and a goroutine for each direction that
// carries the packets. TCP cuts its segments for the link (gVisor GSO), and the stacks make and
// check the checksums.
func openGvisorPair(cc congestion) (*network, error) { return gvisorPair(cc, 0, carry) }

// openGvisorBatchPair makes the same with goroutines that carry packets in batches. They join them
// first (GRO), which checks their checksums.
func openGvisorBatchPair(cc congestion) (*network, error) {
	return gvisorPair(cc, stack.CapabilityRXChecksumOffload, carryBatches)
}

// gvisorPair makes two stacks whose links have the given capabilities. The function across carries
// packets from one link to the other.
func gvisorPair(cc congestion, can stack.LinkEndpointCapabilities,
	across func(ctx context.Context, from, to *channel.Endpoint)) (*network, error) {
	a, b := channel.New(gvisorQueue, 1500, ""), channel.New(gvisorQueue, 1500, "")
	a.SupportedGSOKind, b.SupportedGSOKind = stack.GVisorGSOSupported, stack.GVisorGSOSupported
	a.LinkEPCapabilities, b.LinkEPCapabilities = can, can
	server, err := newGvisor(cc, a, serverPrefix)
	if err != nil {
		return nil, err
	}
	client, err := newGvisor(cc, b, clientPrefix)
	if err != nil {
		gvisorEnd(server)
		return nil, err
	}
	d := newGvisorDialer(client)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { across(ctx, a, b) })
	wg.Go(func() { across(ctx, b, a) })
	return &network{
		listen: func() (net.Listener, error) { return gvisorListen(server, serverPrefix.Addr()) },
		dial:   d.dial,
		close: func() {
			d.end()
			gvisorEnd(server)
			stop()
			wg.Wait()
		},
	}, nil
}

// carry carries packets from one link to the other until the context ends.
func carry(ctx context.Context, from, to *channel.Endpoint) {
	for {
		out := from.ReadContext(ctx)
		if out == nil {
			return
		}
		in := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: out.ToBuffer()})
		out.DecRef()
		to.InjectInbound(header.IPv4ProtocolNumber, in)
		in.DecRef()
	}
}

// gvisorBatch is the most packets that are joined at once. It is the number of packets of
// Ethernet's MTU that make a packet of 64 KiB.
const gvisorBatch = 45

// carryBatches carries all waiting packets at once.
func carryBatches(ctx context.Context, from, to *channel.Endpoint) {
	var g gro.GRO
	g.Init(true)
	g.Dispatcher = intoLink{Endpoint: to, checked: true}
	for {
		out := from.ReadContext(ctx)
		if out == nil {
			return
		}
		for n := 1; out != nil; n++ {
			in := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: out.ToBuffer()})
			out.DecRef()
			in.NetworkProtocolNumber = header.IPv4ProtocolNumber
			g.Enqueue(in)
			in.DecRef()
			if n == gvisorBatch {
				break
			}
			out = from.Read()
		}
		g.Flush()
	}
}

// intoLink gets the packets from GRO and delivers them to a link. If checked is set, it drops
// packets whose checksums GRO has not found right.
type intoLink struct {
	*channel.Endpoint
	checked bool
}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (l intoLink) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if !l.checked || pkt.RXChecksumValidated {
		l.InjectInbound(protocol, pkt)
	}
}

// DeliverLinkPacket implements stack.NetworkDispatcher.
func (intoLink) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}
