//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A sink is a link that records the packets that are written to it, and their times.
type sink struct {
	mu    sync.Mutex
	takes int // packets that it takes at once; 0: all
	got   []int
	at    []time.Time
}

func (s *sink) MTU() int                          { return MTU }
func (s *sink) Start(func()) error                { return nil }
func (s *sink) Read([][]byte, []int) (int, error) { return 0, net.ErrClosed }
func (s *sink) Close() error                      { return nil }

func (s *sink) Write(pkts []net.Buffers) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.takes > 0 {
		pkts = pkts[:min(s.takes, len(pkts))]
	}
	for _, p := range pkts {
		s.got = append(s.got, int(binary.BigEndian.Uint32(flat(p))))
		s.at = append(s.at, time.Now())
	}
	return len(pkts), nil
}

// numbered returns packets from..to-1, each in two pieces.
func numbered(from, to int) (pkts []net.Buffers) {
	for i := from; i < to; i++ {
		b := binary.BigEndian.AppendUint32(nil, uint32(i))
		pkts = append(pkts, net.Buffers{b[:1], b[1:]})
	}
	return pkts
}

// A gate that scatters delays each packet independently, loses none, and repeats itself with the
// same seed.
func TestScatter(t *testing.T) {
	const n, scatter = 1000, 9 * ms
	run := func(t *testing.T, seed uint64) (got []int) {
		synctest.Test(t, func(t *testing.T) {
			var s sink
			g := newGate(&s, nil, scatter, seed)
			begin := time.Now()
			for i := range n {
				if k, err := g.Write(numbered(i, i+1)); k != 1 || err != nil {
					t.Fatalf("Write: %d, %v", k, err)
				}
				time.Sleep(100 * time.Microsecond)
			}
			time.Sleep(scatter + 1)
			synctest.Wait()
			overtakes, least, most := 0, scatter, time.Duration(0)
			for i, k := range s.got {
				d := s.at[i].Sub(begin.Add(time.Duration(k) * 100 * time.Microsecond))
				least, most = min(least, d), max(most, d)
				if i > 0 && k < s.got[i-1] {
					overtakes++
				}
			}
			if overtakes < n/4 || least < 0 || least > ms || most > scatter || most < scatter-ms {
				t.Errorf("%d packets overtaken; delays of %v to %v", overtakes, least, most)
			}
			if sorted := slices.Sorted(slices.Values(s.got)); len(sorted) != n || sorted[0] != 0 || sorted[n-1] != n-1 {
				t.Errorf("%d of %d packets arrived", len(sorted), n)
			}
			got = s.got
		})
		return got
	}
	first := run(t, 1)
	if again := run(t, 1); !slices.Equal(first, again) {
		t.Error("one seed, two orders")
	}
	if other := run(t, 2); slices.Equal(first, other) {
		t.Error("two seeds, one order")
	}
}

// A gate drops the packets that it loses, and passes all others in order, also through a link that
// takes one packet at a time.
func TestLose(t *testing.T) {
	for _, takes := range []int{0, 1, 3} {
		s := sink{takes: takes}
		g := newGate(&s, func(p []byte) bool { return p[3]%3 == 1 }, 0, 1)
		for left := numbered(0, 8); len(left) > 0; {
			k, err := g.Write(left)
			if k == 0 || err != nil {
				t.Fatalf("takes %d: Write: %d, %v", takes, k, err)
			}
			left = left[k:]
		}
		if want := []int{0, 2, 3, 5, 6}; !slices.Equal(s.got, want) {
			t.Errorf("takes %d: %v arrived, want %v", takes, s.got, want)
		}
		if g.lost.Load() < 3 {
			t.Errorf("takes %d: %d packets lost, want 3 at least", takes, g.lost.Load())
		}
	}
}

// A gate sends nothing after Close.
func TestGateClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		g := newGate(&s, nil, 9*ms, 1)
		g.Write(numbered(0, 10))
		g.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(s.got) > 0 {
			t.Errorf("%v arrived", s.got)
		}
		if _, err := g.Write(numbered(0, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
	})
}
