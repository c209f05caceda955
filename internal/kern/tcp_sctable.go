package kern

import (
	"iter"
	"slices"
)

// The table of half-open connections has a bounded number of places in each of its buckets:
// FreeBSD's net.inet.tcp.syncache.bucketlimit.
const (
	scBuckets     = 512
	scBucketLimit = 30
)

// A scTable finds half-open connections by their addresses. A SYN of a flood finds its bucket full
// of others, so what must cost little is not to find: a bucket has tags of its entries, bits of
// their keyed hashes, side by side in a cache line, and an entry is only looked at if its tag is
// right, which by chance one of 65,536 is.
type scTable struct {
	key     [2]uint64
	buckets [scBuckets]scBucket
	n       int
}

// A scBucket holds entries, those who came first first. From the wire there are scBucketLimit at
// most; a handshake over the loopback has a place on so_q reserved, and always finds one here.
type scBucket struct {
	tags    []uint16   // of the entries, in the same order
	entries []*scEntry // as many
	at      int64      // no entry is due before; it may be long past, until the clock looks
}

// place returns where the entry of a connection belongs, and its tag.
func (st *scTable) place(t *tuple) (b *scBucket, tag uint16) {
	h := t.hash(st.key)
	return &st.buckets[h%scBuckets], uint16(h >> (64 - 16))
}

// find returns the entry of a connection, or nil, and then whether its bucket is full.
func (st *scTable) find(t *tuple) (e *scEntry, full bool) {
	b, tag := st.place(t)
	for i, x := range b.tags {
		if x == tag && b.entries[i].t == *t {
			return b.entries[i], false
		}
	}
	return nil, len(b.tags) >= scBucketLimit
}

// insert enters an entry, which is not there, and reports whether there was a place for it.
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

// remove takes out an entry that is in.
func (st *scTable) remove(e *scEntry) {
	b, _ := st.place(&e.t)
	i := slices.Index(b.entries, e)
	b.tags, b.entries = slices.Delete(b.tags, i, i+1), slices.Delete(b.entries, i, i+1)
	st.n--
}

// all yields the entries. They must not change meanwhile.
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
