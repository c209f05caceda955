package kern

import (
	"math/bits"
	"sync"
	"time"
)

// A bucket is a token bucket, which limits a rate.
type bucket struct {
	mu          sync.Mutex
	rate, burst int64 // tokens a second; the most tokens at once
	tokens      int64 // in 1e-9 of a token
	last        int64
	noise       uint64 // state of the random numbers; 0: no tokens are missing at random
}

// take reports whether one more is allowed at now.
func (b *bucket) take(now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	const unit = int64(time.Second)
	b.tokens = min(b.tokens+min(now-b.last, unit)*b.rate, b.burst*unit)
	b.last = now
	if b.noise != 0 && b.tokens == b.burst*unit {
		b.noise += 0x9e3779b97f4a7c15
		hi, lo := bits.Mul64(b.noise, 0xd6e8feb86659fd93)
		b.tokens -= int64((hi^lo)%uint64(b.burst/2)) * unit
	}
	if b.tokens < unit {
		return false
	}
	b.tokens -= unit
	return true
}

// A limiter limits the rate of answers to each source, and of all answers. If there were one bucket
// for all, an attacker could send segments in the name of another host, count the answers to
// segments of its own, and so learn whether the stack has answered the others: whether a connection
// stands (CVE-2016-5696). So each source has a bucket, which a keyed hash finds in a table. All
// sources together have one of four times the size, from which a random number of tokens is missing
// each time that it has been full.
type limiter struct {
	key     [2]uint64
	all     bucket
	sources [256]bucket
}

func (l *limiter) init(key [2]uint64, rate, burst int64) {
	l.key = key
	l.all = bucket{rate: 4 * rate, burst: 4 * burst, noise: key[1] | 1}
	for i := range l.sources {
		l.sources[i] = bucket{rate: rate, burst: burst}
	}
}

// take reports whether one more answer to src is allowed at now.
func (l *limiter) take(src in6Addr, now int64) bool {
	t := tuple{laddr: in6Addr{10: 0xff, 11: 0xff}, faddr: src}
	if !src.is4() {
		t.laddr, t.faddr = in6Addr{}, src.network()
	}
	return l.sources[t.hash(l.key)>>8%uint64(len(l.sources))].take(now) && l.all.take(now)
}
