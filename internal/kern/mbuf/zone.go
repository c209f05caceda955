package mbuf

import "sync"

// A Zone keeps objects of one type that are out of use, for all stacks together: FreeBSD's
// uma_zone. Its zero value is ready. Nothing in it may belong to a stack or to a synctest bubble.
type Zone[T any] struct{ store sync.Pool }

// Alloc returns an object: a new one, or one as it was when it was freed: BSD's uma_zalloc.
func (z *Zone[T]) Alloc() *T {
	if x, ok := z.store.Get().(*T); ok {
		return x
	}
	return new(T)
}

// Free gives an object back, which must not be used any more: BSD's uma_zfree.
func (z *Zone[T]) Free(x *T) { z.store.Put(x) }
