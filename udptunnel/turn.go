package udptunnel

// A turn is a mutex, which is unlocked when the channel has an element. One goroutine holds it
// while it reads datagrams, and another may want it meanwhile. In a testing/synctest bubble a
// goroutine that waits for a channel counts as blocked, and one that waits for a sync.Mutex does
// not: then no time would pass until the deadline that ends the read.
type turn chan struct{}

func newTurn() turn {
	t := make(turn, 1)
	t.Unlock()
	return t
}

// Lock waits until it is the caller's turn.
func (t turn) Lock() { <-t }

// TryLock reports whether it is the caller's turn at once.
func (t turn) TryLock() bool {
	select {
	case <-t:
		return true
	default:
		return false
	}
}

// Unlock ends the turn.
func (t turn) Unlock() { t <- struct{}{} }
