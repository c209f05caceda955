//go:build mbufpoison

package mbuf

import (
	"bytes"
	"testing"
)

func TestPoisonFillsFreedClusters(t *testing.T) {
	for _, size := range classSize {
		var p Pool
		m := p.Getcl(size)
		m.Append(pattern(0, size))
		stale := m.Bytes()
		Free(m)
		if want := bytes.Repeat([]byte{poisonByte}, size); !bytes.Equal(stale, want) {
			t.Errorf("a view on a freed cluster of %d bytes still reads what it held", size)
		}
	}
}

// A write through a view that outlived its cluster is found when the cluster is handed out again,
// wherever in it the write was.
func TestPoisonFindsStaleWrite(t *testing.T) {
	for _, at := range []int{0, 100, ClSmall - 1} {
		found := false
		// Another goroutine may take the cluster, or the store forget it, so that one attempt does
		// not always hit.
		for try := 0; try < 1000 && !found; try++ {
			var p Pool
			m := p.Getcl(ClSmall)
			stale := m.Bytes()[:ClSmall]
			Free(m)
			stale[at] = 1
			if !panics(func() { m = p.Getcl(ClSmall) }) {
				Free(m)
				stale[at] = poisonByte // no trap for other tests
				continue
			}
			found = true
		}
		if !found {
			t.Errorf("a write at %d of a freed cluster was never found", at)
		}
	}
}

// A cluster that is still shared is not poisoned, as it is freed only with its last view.
func TestPoisonSparesSharedClusters(t *testing.T) {
	var p Pool
	m := p.Getcl(ClSmall)
	m.Append(pattern(0, 100))
	v := Copym(m, 10, 50)
	Free(m)
	if !bytes.Equal(v.Bytes(), pattern(10, 50)) {
		t.Error("the view changed when the owner was freed")
	}
	Free(v)
	balanced(t, &p)
}
