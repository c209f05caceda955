package mbuf

import "sync"

// A Zone keeps objects of one type that are out of use, for all stacks together: FreeBSD's
// uma_zone. Its zero value is ready to use. An object in it must not refer to a stack or to a
// synctest bubble.
type Zone[T any] struct{ store sync.Pool }

// Alloc returns a new object, or one that has been freed, in the state that it was freed in: BSD's
// uma_zalloc.
func (z *Zone[T]) Alloc() *T {
	if x, ok := z.store.Get().(*T); ok {
		return x
	}
	return new(T)
}

// Free gives an object back: BSD's uma_zfree. The caller must not use it after that.
func (z *Zone[T]) Free(x *T) { z.store.Put(x) }
