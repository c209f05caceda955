package main

import (
	"bytes"
	"context"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
)

// arrivals counts the packets that a link delivers, and their bytes.
type arrivals struct{ packets, bytes int }

func (a *arrivals) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	a.packets++
	a.bytes += pkt.Data().Size()
}

func (a *arrivals) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// tcpPacket makes a packet with right checksums.
func tcpPacket(seq uint32, payload []byte) []byte {
	const headers = header.IPv4MinimumSize + header.TCPMinimumSize
	b := append(make([]byte, headers), payload...)
	src, dst := tcpip.AddrFrom4(clientPrefix.Addr().As4()), tcpip.AddrFrom4(serverPrefix.Addr().As4())
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64,
		Protocol: uint8(header.TCPProtocolNumber), SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp := header.TCP(b[header.IPv4MinimumSize:])
	tcp.Encode(&header.TCPFields{SrcPort: 1, DstPort: 2, SeqNum: seq,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck, WindowSize: 1})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(b)-header.IPv4MinimumSize))
	for i := 0; i+1 < len(payload); i += 2 {
		v := uint32(sum) + uint32(payload[i])<<8 + uint32(payload[i+1])
		sum = uint16(v) + uint16(v>>16)
	}
	tcp.SetChecksum(^tcp.CalculateChecksum(sum))
	return b
}

// Packets that are carried in batches are joined, and damaged packets are dropped.
func TestBatchesAreChecked(t *testing.T) {
	link := channel.New(1, 1500, "")
	var got arrivals
	link.Attach(&got)
	var g gro.GRO
	g.Init(true)
	g.Dispatcher = intoLink{Endpoint: link, checked: true}
	payload := []byte("as many bytes")[:12]
	for i := range 4 {
		b := tcpPacket(uint32(1000+i*len(payload)), payload)
		if i == 3 {
			b[len(b)-1] ^= 1
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
		pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
		g.Enqueue(pkt)
		pkt.DecRef()
	}
	g.Flush()
	if want := (arrivals{1, 40 + 3*len(payload)}); got != want {
		t.Errorf("%+v have arrived, want %+v", got, want)
	}
}

// Packets are taken from a link in batches, whole, and each after the requested room.
func TestDequeue(t *testing.T) {
	link := channel.New(8, 1500, "")
	var sent [][]byte
	var list stack.PacketBufferList
	for i := range 3 {
		b := tcpPacket(uint32(i), []byte("a packet of its own"[:8+2*i]))
		sent = append(sent, b)
		list.PushBack(stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)}))
	}
	if n, err := link.WritePackets(list); n != len(sent) || err != nil {
		t.Fatalf("%d packets: %v", n, err)
	}
	list.DecRef()
	bufs, sizes := [][]byte{make([]byte, 100), make([]byte, 100)}, make([]int, 2)
	ctx, stop := context.WithCancel(t.Context())
	var got [][]byte
	for len(got) < len(sent) {
		n := dequeue(ctx, link, bufs, sizes, 16)
		if want := min(2, len(sent)-len(got)); n != want {
			t.Fatalf("%d packets instead of %d", n, want)
		}
		for i := range n {
			got = append(got, bytes.Clone(bufs[i][16:16+sizes[i]]))
		}
	}
	for i := range sent {
		if !bytes.Equal(got[i], sent[i]) {
			t.Errorf("packet %d is %x, want %x", i, got[i], sent[i])
		}
	}
	stop()
	if n := dequeue(ctx, link, bufs, sizes, 16); n != 0 {
		t.Errorf("%d packets after the end", n)
	}
}
