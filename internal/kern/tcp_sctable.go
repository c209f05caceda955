package kern

import (
	"iter"
	"slices"
)

// The table of half-open connections has 512 buckets, and a bounded number of places in each:
// FreeBSD's net.inet.tcp.syncache.bucketlimit. RFC 4987, 3.5: a cache of this kind is bounded as a
// whole, so that a flood cannot grow it, and its hash is keyed, so that an attacker cannot choose
// the bucket that it fills.
const (
	scBuckets     = 512
	scBucketLimit = 30
)

// An scTable finds half-open connections by their addresses. The bucket of a SYN of a flood is full
// of other entries, so a search that finds nothing must cost little. Therefore a bucket has a tag
// of each entry: 16 bits of its keyed hash. The tags lie side by side in a cache line, and a search
// reads an entry only if the tag is right, which happens by chance once in 65,536 times.
type scTable struct {
	key     [2]uint64
	buckets [scBuckets]scBucket
	n       int
}

// An scBucket holds entries in the order in which they came. At most scBucketLimit of them are from
// the wire. A handshake over the loopback has a place on so_q reserved, and always finds one here.
type scBucket struct {
	tags    []uint16   // of entries, in the same order
	entries []*scEntry // as many as tags
	at      int64      // no entry is due earlier; all may be due later
}

// place returns the bucket that the entry of a connection belongs in, and its tag.
func (st *scTable) place(t *tuple) (b *scBucket, tag uint16) {
	h := t.hash(st.key)
	return &st.buckets[h%scBuckets], uint16(h >> (64 - 16))
}

// find returns the entry of a connection. If there is none, it returns nil, and full says whether
// its bucket is full.
func (st *scTable) find(t *tuple) (e *scEntry, full bool) {
	b, tag := st.place(t)
	for i, x := range b.tags {
		if x == tag && b.entries[i].t == *t {
			return b.entries[i], false
		}
	}
	return nil, len(b.tags) >= scBucketLimit
}

// insert enters an entry of a connection that has none yet. It reports false if the bucket is full.
func (st *scTable) insert(e *scEntry) bool {
	b, tag := st.place(&e.t)
	if len(b.tags) >= scBucketLimit && e.flags&scReserved == 0 {
		return false
	}
	b.tags, b.entries = append(b.tags, tag), append(b.entries, e)
	b.at = min(b.at, e.at)
	st.n++
	return true
}

// schedule changes an entry's time.
func (st *scTable) schedule(e *scEntry, at int64) {
	b, _ := st.place(&e.t)
	e.at = at
	b.at = min(b.at, at)
}

// remove takes out an entry, which must be in the table.
func (st *scTable) remove(e *scEntry) {
	b, _ := st.place(&e.t)
	i := slices.Index(b.entries, e)
	b.tags, b.entries = slices.Delete(b.tags, i, i+1), slices.Delete(b.entries, i, i+1)
	st.n--
}

// all yields the entries. The table must not change while it does.
func (st *scTable) all() iter.Seq[*scEntry] {
	return func(yield func(*scEntry) bool) {
		for i := range st.buckets {
			for _, e := range st.buckets[i].entries {
				if !yield(e) {
					return
				}
			}
		}
	}
}
