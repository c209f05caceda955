package contract

import (
	"net"
	"net/netip"
	"testing"

	"bsdnet"
)

// TestUDPInfo tests what a stack tells of its UDP sockets: queues, drops, and the list of all.
func TestUDPInfo(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t).(*bsdnet.UDPConn)
		c := n.clientEnd().connect(t, s.LocalAddr().String()).(*bsdnet.UDPConn)
		any := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		si, ci := s.Info(), c.Info()
		if si.Local != addrPortOf(s) || si.Remote != any || ci.Local != addrPortOf(c) || ci.Remote != si.Local {
			t.Errorf("addresses %v, %v, %v, %v", si.Local, si.Remote, ci.Local, ci.Remote)
		}
		if si.ID == 0 || n.client == n.server && ci.ID == si.ID {
			t.Errorf("numbers %d, %d", si.ID, ci.ID)
		}
		s.SetReadBuffer(8 << 10)
		s.SetWriteBuffer(9 << 10)
		if i := s.Info(); i.RecvBuffer != 8<<10 || i.SendBuffer != 9<<10 || i.RecvQueue != 0 || i.SendQueue != 0 {
			t.Errorf("empty: %+v", i)
		}
		const sent = 40
		for range sent {
			if _, err := c.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			n.settle()
		}
		full := s.Info()
		if full.RecvQueue < 4000 || full.RecvQueue > 8<<10 || full.Drops == 0 || full.Drops >= sent {
			t.Errorf("full: %+v", full)
		}
		for range sent - full.Drops {
			readSoon(t, s)
		}
		if i := s.Info(); i.RecvQueue != 0 || i.Drops != full.Drops {
			t.Errorf("read: %+v", i)
		}
		st := n.server.Stats().UDP
		if st.Ipackets != sent || st.Fullsock != full.Drops || n.client.Stats().UDP.Opackets != sent {
			t.Errorf("counters %+v, %+v", st, n.client.Stats().UDP)
		}
		want := []bsdnet.UDPInfo{s.Info()}
		if n.client == n.server {
			if want = append(want, c.Info()); want[0].Local.Compare(want[1].Local) > 0 {
				want[0], want[1] = want[1], want[0]
			}
		}
		got := n.server.UDPConns()
		if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("the list is %+v, want %+v", got, want)
		}
		if l := n.server.Conns(); len(l) != 0 {
			t.Errorf("connections %+v", l)
		}
		s.Close()
		c.Close()
		if l := append(n.server.UDPConns(), n.client.UDPConns()...); len(l) != 0 {
			t.Errorf("after Close the list is %+v", l)
		}
	})
}

// TestUDPMemory tests that datagrams that nobody reads take no more than the buffer's size, however
// small they are, and that all of it is free after Close.
func TestUDPMemory(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		s := n.serverEnd().open(t).(*bsdnet.UDPConn)
		c := n.clientEnd().connect(t, s.LocalAddr().String())
		s.SetReadBuffer(64 << 10)
		c.Write([]byte{0})
		readSoon(t, s) // from here on the link has its own buffers
		before := n.server.Stats().Memory
		for i := range 1000 {
			c.Write(make([]byte, 1+i%200)) // each longer than the one before, so that none are merged
			if i%20 == 0 {
				n.settle() // or the cable would drop most of them
			}
		}
		n.settle()
		i := s.Info()
		m := n.server.Stats().Memory
		if m.Bytes-before.Bytes > 70<<10 || m.Buffers-before.Buffers > 400 || i.RecvQueue > 64<<10 || i.Drops == 0 {
			t.Errorf("%+v are held, before %+v; %+v", m, before, i)
		}
		s.Close()
		n.settle()
		if m := n.server.Stats().Memory; m.Bytes > before.Bytes || m.Buffers > before.Buffers {
			t.Errorf("%+v are held after Close, before %+v", m, before)
		}
	})
}

// TestUDPStackClose tests that Close of a stack ends calls on its sockets, and that nothing works
// after it.
func TestUDPStackClose(t *testing.T) {
	eachBubble(t, func(t *testing.T, n *network) {
		s, c := n.serverEnd().open(t), n.clientEnd().open(t)
		c.WriteTo([]byte("unread"), s.LocalAddr())
		blocked := n.serverEnd().open(t)
		read := async(func() error { _, _, err := blocked.ReadFrom(make([]byte, 1)); return err })
		n.settle()
		n.server.Close()
		const closed = ": use of closed network connection [net.ErrClosed]"
		wantError(t, "blocked ReadFrom", within(t, "ReadFrom", read), "read udp S"+closed, blocked.LocalAddr(), "S")
		_, _, err := s.ReadFrom(make([]byte, 10))
		wantError(t, "ReadFrom", err, "read udp S"+closed, s.LocalAddr(), "S")
		_, err = s.WriteTo(nil, s.LocalAddr())
		wantError(t, "WriteTo", err, "write udp S->S"+closed, s.LocalAddr(), "S")
		_, err = n.serverEnd().listenPacket("udp", net.JoinHostPort(n.shost, "7"))
		wantError(t, "ListenPacket", err, "listen udp S"+closed, net.JoinHostPort(n.shost, "7"), "S")
		if l := n.server.UDPConns(); len(l) != 0 {
			t.Errorf("the list is %+v", l)
		}
	})
}
