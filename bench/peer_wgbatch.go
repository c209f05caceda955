package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"

	"bsdnet/wireguard"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
)

// openWireGuardBatch makes two of WireGuard's own devices in user space, each with gVisor behind a
// [batchTUN].
func openWireGuardBatch(cc congestion) (*network, error) {
	var stacks [2]*stack.Stack
	var tuns [2]tun.Device
	closeAll := func() {
		for i := range stacks {
			if stacks[i] != nil {
				tuns[i].Close()
				gvisorEnd(stacks[i])
			}
		}
	}
	for i, p := range []netip.Prefix{serverPrefix, clientPrefix} {
		t := newBatchTUN()
		s, err := newGvisor(cc, t.link, p)
		if err != nil {
			closeAll()
			return nil, err
		}
		stacks[i], tuns[i] = s, t
	}
	end, err := wireGuardPair(tuns)
	if err != nil {
		closeAll()
		return nil, err
	}
	d := newGvisorDialer(stacks[1])
	return &network{
		listen: func() (net.Listener, error) { return gvisorListen(stacks[0], serverPrefix.Addr()) },
		dial:   d.dial,
		close: func() {
			end()
			d.end()
			gvisorEnd(stacks[0])
		},
	}, nil
}

// A batchTUN is a [tun.Device] between a WireGuard device and a gVisor stack. It hands on all
// waiting packets at once, and joins those for the stack (GRO). It does not check their checksums,
// because WireGuard has authenticated them. The device of WireGuard's package netstack hands on one
// packet at a time.
type batchTUN struct {
	link   *channel.Endpoint
	events chan tun.Event // it gets no events
	ctx    context.Context
	stop   context.CancelFunc
	once   sync.Once // of Close

	mu  sync.Mutex // of gro
	gro gro.GRO
}

var _ tun.Device = (*batchTUN)(nil)

func newBatchTUN() *batchTUN {
	t := &batchTUN{link: channel.New(gvisorQueue, wireguard.DefaultMTU, ""), events: make(chan tun.Event)}
	t.link.SupportedGSOKind = stack.GVisorGSOSupported
	t.link.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.gro.Init(true)
	t.gro.Dispatcher = intoLink{Endpoint: t.link}
	return t
}

// Read implements [tun.Device].
func (t *batchTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n := dequeue(t.ctx, t.link, bufs, sizes, offset)
	if n == 0 {
		return 0, os.ErrClosed
	}
	return n, nil
}

// Write implements [tun.Device].
func (t *batchTUN) Write(bufs [][]byte, offset int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range bufs {
		enqueue(&t.gro, b[offset:])
	}
	t.gro.Flush()
	return len(bufs), nil
}

// Close implements [tun.Device].
func (t *batchTUN) Close() error {
	t.once.Do(func() {
		t.stop()
		close(t.events)
	})
	return nil
}

// File implements [tun.Device].
func (t *batchTUN) File() *os.File { return nil }

// MTU implements [tun.Device].
func (t *batchTUN) MTU() (int, error) { return int(t.link.MTU()), nil }

// Name implements [tun.Device].
func (t *batchTUN) Name() (string, error) { return "batch", nil }

// Events implements [tun.Device].
func (t *batchTUN) Events() <-chan tun.Event { return t.events }

// BatchSize implements [tun.Device].
func (t *batchTUN) BatchSize() int { return conn.IdealBatchSize }

// enqueue gives GRO a copy of a packet whose checksums need no check.
func enqueue(g *gro.GRO, b []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	pkt.RXChecksumValidated = true
	g.Enqueue(pkt)
	pkt.DecRef()
}

// dequeue waits for a packet from a link, and copies it and those that follow it into buffers, each
// after offset bytes. It returns the number of packets, or 0 if the context has ended.
func dequeue(ctx context.Context, from *channel.Endpoint, bufs [][]byte, sizes []int, offset int) (n int) {
	for pkt := from.ReadContext(ctx); pkt != nil; pkt = from.Read() {
		b := bufs[n][:offset]
		for _, v := range pkt.AsSlices() {
			b = append(b, v...)
		}
		pkt.DecRef()
		sizes[n] = len(b) - offset
		if n++; n == len(bufs) {
			break
		}
	}
	return n
}
