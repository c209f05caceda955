package wireguard

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"bsdnet"
	"bsdnet/linktest"
)

// A Link keeps the contract of all links, except that it is lossy: behind its queue is a network
// that drops packets when there are too many.
func TestContract(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	linktest.Test(t, linktest.Config{Lossy: true, Connect: func(t testing.TB) (a, b bsdnet.Link) {
		sa, sb := NewSecret(), NewSecret()
		x, err := Open(&Config{PrivateKey: sa, Addresses: all, Peers: []Peer{
			{PublicKey: sb.Public(), AllowedIPs: all},
		}})
		if err != nil {
			t.Fatal(err)
		}
		y, err := Open(&Config{PrivateKey: sb, Addresses: all, Peers: []Peer{{
			PublicKey: sa.Public(), AllowedIPs: all,
			Endpoint: "127.0.0.1:" + strconv.Itoa(x.Port()), PersistentKeepalive: 25 * time.Second,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		// Before the handshake the device holds 128 packets, and the contract's tests may have more
		// on their way. A keepalive has started the handshake.
		for _, l := range []*Link{x, y} {
			end := time.Now().Add(time.Minute)
			for len(l.Peers()) == 0 || l.Peers()[0].LastHandshake.IsZero() {
				if time.Now().After(end) {
					t.Fatal("no handshake")
				}
				time.Sleep(time.Millisecond)
			}
		}
		return y, x
	}})
}
