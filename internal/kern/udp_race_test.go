package kern

import (
	"net/netip"
	"runtime"
	"sync"
	"testing"
)

// TestUDPRaces: sockets are bound, connected, used and closed by many goroutines at once, and what
// is received is what has been sent to the socket that receives it.
func TestUDPRaces(t *testing.T) {
	k := udpStack(t)
	const ports, rounds = 3, 150
	var wg sync.WaitGroup
	port := func(i int) uint16 { return uint16(1000 + i) }
	lo := netip.MustParseAddr("127.0.0.1")
	for i := range ports {
		wg.Go(func() { // a socket that comes and goes
			buf := make([]byte, 2000)
			for r := range rounds {
				so := udpSocket(t, k, netip.AddrPortFrom(lo, port(i)).String())
				so.Setnbio(true)
				for range 20 {
					runtime.Gosched()
					n, from, _, errno := so.Soreceivefrom(buf)
					if errno == 0 && (n == 0 || buf[0] != byte(i)) {
						t.Errorf("port %d has received %d bytes for %d", i, n, buf[0])
					}
					if errno == 0 && r%2 == 0 {
						so.Sosendto(buf[:n], from)
					}
				}
				so.Soclose()
			}
		})
	}
	for s := range 4 {
		so := udpSocket(t, k, "")
		done := make(chan struct{})
		wg.Go(func() { // two goroutines use one socket
			defer close(done)
			for r := range rounds * 10 {
				i := (r + s) % ports
				to := netip.AddrPortFrom(lo, port(i))
				msg := []byte{byte(i), 1, 2}
				switch r % 7 {
				case 0:
					so.Soconnect(to)
					so.Sosendto(msg, netip.AddrPort{})
				case 1:
					so.Soconnect(netip.AddrPort{})
				case 2, 3:
					one := Msg{Bufs: [][]byte{msg}, Addr: to}
					so.Sosendmsgs([]Msg{one, one, one}, 0)
				default:
					so.Sosendto(msg, to)
				}
			}
			so.Soclose()
		})
		wg.Go(func() {
			in := make([]Msg, 3)
			for i := range in {
				in[i].Bufs = [][]byte{make([]byte, 100)}
			}
			for {
				select {
				case <-done:
					return
				default:
					so.Soreceivemsgs(in, MSG_DONTWAIT)
					k.UDPPcblist()
				}
			}
		})
	}
	wg.Wait()
	if n := len(k.UDPPcblist()); n != 0 {
		t.Errorf("%d sockets are left", n)
	}
}
