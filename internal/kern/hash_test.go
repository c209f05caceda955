package kern

import (
	"net/netip"
	"testing"
)

// TestTupleHash: connections to one server spread over the buckets, and conversations over the
// queues of the loopback, whatever the key.
func TestTupleHash(t *testing.T) {
	const n = 1 << 14
	lo, far := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::1")
	for _, a := range []netip.Addr{lo, far} {
		for _, key := range [][2]uint64{{}, {1, 2}, {0x0123456789abcdef, 0xfedcba9876543210}} {
			seen := map[uint64]bool{}
			var shards [pcbShards]int
			var queues [loQueues]int
			for p := range n {
				c := tuple{laddr: in6(a), faddr: in6(a), lport: 80, fport: uint16(portFirst + p)}
				r := tuple{laddr: in6(a), faddr: in6(a), lport: c.fport, fport: 80}
				h := c.hash(key)
				seen[h] = true
				shards[h%pcbShards]++
				queues[c.flow(key)%loQueues]++
				if c.flow(key) != r.flow(key) {
					t.Fatalf("key %x: the flow of %v depends on the direction", key, c)
				}
			}
			if len(seen) < n-n/1000 {
				t.Errorf("key %x: %d connections have %d hashes", key, n, len(seen))
			}
			for i, k := range shards {
				if want := n / pcbShards; k < want/2 || k > 2*want {
					t.Errorf("key %x: %d of %d connections in shard %d", key, k, n, i)
				}
			}
			for i, k := range queues {
				if want := n / loQueues; k < want/2 || k > 2*want {
					t.Errorf("key %x: %d of %d conversations on queue %d", key, k, n, i)
				}
			}
		}
	}
}
