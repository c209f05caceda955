//go:build unix

package contract

import (
	"net"
	"syscall"
	"testing"

	"bsdnet"

	"golang.org/x/net/ipv4"
)

// A batchConn reads and writes several datagrams with a call.
type batchConn interface {
	ReadBatch(ms []bsdnet.Message, flags int) (int, error)
	WriteBatch(ms []bsdnet.Message, flags int) (int, error)
}

// A netBatch is package net's socket with the batches of golang.org/x/net/ipv4.
type netBatch struct{ *ipv4.PacketConn }

func (c netBatch) ReadBatch(ms []bsdnet.Message, flags int) (int, error) {
	return netMessages(ms, func(list []ipv4.Message) (int, error) { return c.PacketConn.ReadBatch(list, flags) })
}

func (c netBatch) WriteBatch(ms []bsdnet.Message, flags int) (int, error) {
	return netMessages(ms, func(list []ipv4.Message) (int, error) { return c.PacketConn.WriteBatch(list, flags) })
}

// netMessages calls f with messages of the other type, which shows that one converts to the other.
func netMessages(ms []bsdnet.Message, f func([]ipv4.Message) (int, error)) (int, error) {
	list := make([]ipv4.Message, len(ms))
	for i, m := range ms {
		list[i] = ipv4.Message(m)
	}
	n, err := f(list)
	for i, m := range list {
		ms[i] = bsdnet.Message(m)
	}
	return n, err
}

func batches(c udpConn) batchConn {
	if nc, ok := c.(*net.UDPConn); ok {
		return netBatch{ipv4.NewPacketConn(nc)}
	}
	return c.(*bsdnet.UDPConn)
}

// room returns messages to read into, each with buffers of these sizes.
func room(n int, sizes ...int) []bsdnet.Message {
	ms := make([]bsdnet.Message, n)
	for i := range ms {
		for _, k := range sizes {
			ms[i].Buffers = append(ms[i].Buffers, make([]byte, k))
		}
	}
	return ms
}

// text returns what was read into a message.
func text(m *bsdnet.Message) (s string) {
	n := m.N
	for _, b := range m.Buffers {
		k := min(n, len(b))
		s, n = s+string(b[:k]), n-k
	}
	return s
}

// TestUDPBatch tests batches in both directions: pieces, addresses, what does not fit, and that a
// read waits for one datagram only.
func TestUDPBatch(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s, c := n.serverEnd().open(t), n.clientEnd().open(t)
		to := s.LocalAddr()
		out := []bsdnet.Message{
			{Buffers: [][]byte{[]byte("one")}, Addr: to},
			{Buffers: [][]byte{[]byte("t"), nil, []byte("w"), []byte("o")}, Addr: to},
			{Buffers: [][]byte{[]byte("longer than")}, Addr: to},
			{Buffers: [][]byte{[]byte(" and "), []byte("last")}, Addr: to},
		}
		if k, err := batches(c).WriteBatch(out, 0); k != len(out) || err != nil {
			t.Fatalf("wrote %d, %v", k, err)
		}
		for i, want := range []int{3, 3, 11, 9} {
			if out[i].N != want || out[i].Addr != to {
				t.Errorf("message %d: wrote %d bytes to %v", i, out[i].N, out[i].Addr)
			}
		}
		var got []bsdnet.Message
		for len(got) < len(out) {
			in := room(10, 2, 1, 6) // 9 bytes
			k, err := batches(s).ReadBatch(in, 0)
			if k < 1 || err != nil {
				t.Fatalf("read %d, %v", k, err)
			}
			got = append(got, in[:k]...)
		}
		for i, want := range []string{"one", "two", "longer th", " and last"} {
			m := &got[i]
			wantFlags := 0
			if i == 2 {
				wantFlags = syscall.MSG_TRUNC
			}
			if text(m) != want || m.Flags&syscall.MSG_TRUNC != wantFlags || m.NN != 0 {
				t.Errorf("message %d: %q, flags %#x, %d", i, text(m), m.Flags, m.NN)
			}
			if a, ok := m.Addr.(*net.UDPAddr); !ok || a.String() != c.LocalAddr().String() {
				t.Errorf("message %d is from %v", i, m.Addr)
			}
		}
		// With a peer, and empty datagrams.
		d := n.clientEnd().connect(t, to.String())
		peer := []bsdnet.Message{{Buffers: [][]byte{[]byte("peer")}}}
		if k, err := batches(d).WriteBatch(peer, 0); k != 1 || err != nil {
			t.Fatalf("wrote %d, %v", k, err)
		}
		in := room(3, 10)
		if k, err := batches(s).ReadBatch(in, 0); k != 1 || text(&in[0]) != "peer" || err != nil {
			t.Errorf("read %d, %q, %v", k, text(&in[0]), err)
		}
		for _, f := range []func([]bsdnet.Message, int) (int, error){batches(s).ReadBatch, batches(d).WriteBatch} {
			if k, err := f(nil, 0); k != 0 || err != nil {
				t.Errorf("a batch of nothing: %d, %v", k, err)
			}
		}
	})
}

// TestUDPFlags tests MSG_TRUNC, by which a read tells that a datagram was too long for its buffer.
func TestUDPFlags(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		b := make([]byte, 4)
		for _, a := range []struct {
			data string
			size int
			want int
		}{{"data", 4, 0}, {"data", 3, syscall.MSG_TRUNC}, {"data", 0, syscall.MSG_TRUNC}, {"", 0, 0}, {"", 4, 0}} {
			c.Write([]byte(a.data))
			k, _, flags, _, err := s.ReadMsgUDP(b[:a.size], nil)
			if k != min(len(a.data), a.size) || flags&syscall.MSG_TRUNC != a.want || err != nil {
				t.Errorf("%q with %d bytes: %d, flags %#x, %v", a.data, a.size, k, flags, err)
			}
			if !n.kernel && flags != a.want {
				t.Errorf("flags %#x", flags)
			}
		}
	})
}

// TestUDPBatchPeek tests that MSG_PEEK leaves the datagram.
func TestUDPBatchPeek(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		c.Write([]byte("peeked"))
		for i, flags := range []int{syscall.MSG_PEEK, syscall.MSG_PEEK, 0} {
			in := room(1, 10)
			if k, err := batches(s).ReadBatch(in, flags); k != 1 || text(&in[0]) != "peeked" || err != nil {
				t.Errorf("%d: read %d, %q, %v", i, k, text(&in[0]), err)
			}
		}
		c.Write([]byte("next"))
		if got := readSoon(t, s); got != "next" {
			t.Errorf("read %q", got)
		}
	})
}

// TestUDPBatchKeepsAddr tests that the address of a message is that of its sender, and never one of
// an earlier message that has changed, which a program may have kept.
func TestUDPBatchKeepsAddr(t *testing.T) {
	each(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t)
		first := n.clientEnd().connect(t, s.LocalAddr().String())
		second := n.clientEnd().connect(t, s.LocalAddr().String())
		in := room(1, 10)
		read := func(c udpConn) net.Addr {
			c.Write([]byte("x"))
			if k, err := batches(s).ReadBatch(in, 0); k != 1 || err != nil {
				t.Fatalf("read %d, %v", k, err)
			}
			if in[0].Addr.String() != c.LocalAddr().String() {
				t.Errorf("from %v, not %v", in[0].Addr, c.LocalAddr())
			}
			return in[0].Addr
		}
		a := read(first)
		b := read(first)
		read(second)
		if a.String() != first.LocalAddr().String() || b.String() != a.String() {
			t.Errorf("the addresses have changed to %v and %v", a, b)
		}
		if !n.kernel && a != b {
			t.Error("a sender's address was made anew")
		}
		var typedNil *net.UDPAddr
		in[0].Addr = typedNil
		read(first)
		in[0].Addr = &net.TCPAddr{}
		read(first)
	})
}

// TestUDPBatchErrors tests what a batch does that cannot be sent whole.
func TestUDPBatchErrors(t *testing.T) {
	eachOwn(t, func(t *testing.T, n *network) {
		s, c := n.serverEnd().open(t), n.clientEnd().open(t)
		good := func() bsdnet.Message {
			return bsdnet.Message{Buffers: [][]byte{[]byte("good")}, Addr: s.LocalAddr()}
		}
		const local = "write udp C"
		names := []any{c.LocalAddr(), "C", s.LocalAddr(), "S"}
		for _, a := range []struct {
			name, want string
			bad        bsdnet.Message
		}{
			{"no address", local + ": missing address []", bsdnet.Message{}},
			{"a nil address", local + ": missing address []", bsdnet.Message{Addr: (*net.UDPAddr)(nil)}},
			{"an address of TCP", local + "->1.2.3.4:5: invalid argument [EINVAL]",
				bsdnet.Message{Addr: &net.TCPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5}}},
			{"a bad port", local + "->:70000: sendmmsg: invalid argument [EINVAL SyscallError]",
				bsdnet.Message{Addr: &net.UDPAddr{Port: 70000}}},
			{"too long", local + "->S: sendmmsg: message too long [EMSGSIZE SyscallError]",
				bsdnet.Message{Addr: s.LocalAddr(), Buffers: [][]byte{make([]byte, 1<<15), make([]byte, 1<<15)}}},
			{"control messages", local + "->S: sendmmsg: invalid argument [EINVAL SyscallError]",
				bsdnet.Message{Addr: s.LocalAddr(), OOB: []byte{1}}},
		} {
			k, err := batches(c).WriteBatch([]bsdnet.Message{a.bad, good()}, 0)
			wantError(t, a.name, err, a.want, names...)
			if k != 0 {
				t.Errorf("%s: wrote %d", a.name, k)
			}
			k, err = batches(c).WriteBatch([]bsdnet.Message{good(), good(), a.bad, good()}, 0)
			if k != 2 || err != nil {
				t.Errorf("%s, the third: wrote %d, %v", a.name, k, err)
			}
			for range 2 {
				if got := readSoon(t, s); got != "good" {
					t.Errorf("read %q", got)
				}
			}
		}
		d := n.clientEnd().connect(t, s.LocalAddr().String())
		_, err := batches(d).WriteBatch([]bsdnet.Message{good()}, 0)
		wantError(t, "an address with a peer", err, "write udp C->S: use of WriteTo with pre-connected connection []",
			d.LocalAddr(), "C", s.LocalAddr(), "S")
		c.SetDeadline(past)
		const late = ": i/o timeout [os.ErrDeadlineExceeded Timeout Temporary]"
		_, err = batches(c).ReadBatch(room(1, 1), 0)
		wantError(t, "ReadBatch, late", err, "read udp C"+late, names...)
		_, err = batches(c).WriteBatch([]bsdnet.Message{good()}, 0)
		wantError(t, "WriteBatch, late", err, "write udp C->S"+late, names...)
		c.Close()
		const closed = ": use of closed network connection [net.ErrClosed]"
		_, err = batches(c).ReadBatch(room(1, 1), 0)
		wantError(t, "ReadBatch, closed", err, "read udp C"+closed, names...)
		_, err = batches(c).WriteBatch([]bsdnet.Message{good()}, 0)
		wantError(t, "WriteBatch, closed", err, "write udp C->S"+closed, names...)
	})
}
