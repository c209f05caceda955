//go:build linux

package interop

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bsdnet"
)

// datagram returns the i-th datagram of n bytes.
func datagram(i, n int) []byte {
	return bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(i % 251)}, n/3+1)[:n]
}

// newerThan reports whether Linux is of this version, or newer.
func newerThan(t *testing.T, major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}

// TestUDPBatches: batches of datagrams arrive as they were in both directions, also if the device
// carries them whole: VIRTIO_NET_HDR_GSO_UDP_L4.
func TestUDPBatches(t *testing.T) {
	eachMode(t, 4, options{}, func(t *testing.T, w *world) {
		const size, batch, rounds = 1200, 50, 20
		at := netip.AddrPortFrom(netip.MustParseAddr(w.ip(bsdIP)), 9)
		own, err := w.stack.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		var pc net.PacketConn
		if err := w.NS.Do(func() (err error) {
			pc, err = net.ListenPacket("udp", w.at(kernIP)+":9")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		kern := pc.(*net.UDPConn)
		defer kern.Close()
		kern.SetReadBuffer(1 << 20)
		end := time.Now().Add(limit)
		own.SetDeadline(end)
		kern.SetDeadline(end)

		packets := func() (in, out uint64) {
			for _, i := range w.stack.Stats().Interfaces {
				if i.Name != "lo0" {
					in, out = i.PacketsIn, i.PacketsOut
				}
			}
			return in, out
		}
		_, out0 := packets()
		msgs := make([]bsdnet.Message, batch)
		buf := make([]byte, 65536)
		for r := range rounds {
			for i := range msgs {
				n := size
				if i == batch-1 {
					n = 100
				}
				msgs[i] = bsdnet.Message{Buffers: [][]byte{datagram(i+r, n)}, Addr: kern.LocalAddr()}
			}
			for rest := msgs; len(rest) > 0; {
				n, err := own.WriteBatch(rest, 0)
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			for i := range msgs {
				n, from, err := kern.ReadFromUDPAddrPort(buf)
				if err != nil || from != at || !bytes.Equal(buf[:n], msgs[i].Buffers[0]) {
					t.Fatalf("the kernel has received %d bytes from %v, %v", n, from, err)
				}
			}
		}
		_, out1 := packets()
		whole := !w.mode.noOffload && newerThan(t, 6, 2)
		if sent := out1 - out0; whole && sent > batch*rounds/10 || !whole && sent < batch*rounds {
			t.Errorf("%d packets for %d datagrams", sent, batch*rounds)
		}

		// The other way, the kernel's UDP_SEGMENT makes such packets.
		rc, err := kern.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
		if err != nil {
			t.Skip("no UDP_SEGMENT: ", err)
		}
		in0, _ := packets()
		for r := range rounds {
			var data []byte
			for i := range batch {
				data = append(data, datagram(i+r, size)...)
			}
			if _, err := kern.WriteToUDPAddrPort(data[:len(data)-7], at); err != nil {
				t.Fatal(err)
			}
			for i := range batch {
				want := datagram(i+r, size)
				if i == batch-1 {
					want = want[:size-7]
				}
				n, from, err := own.ReadFromUDPAddrPort(buf)
				if err != nil || fmt.Sprint(from) != kern.LocalAddr().String() || !bytes.Equal(buf[:n], want) {
					t.Fatalf("received %d bytes from %v, %v", n, from, err)
				}
			}
		}
		in1, _ := packets()
		if got := in1 - in0; whole && got > batch*rounds/10 {
			t.Errorf("%d packets with %d datagrams", got, batch*rounds)
		}
	})
}
