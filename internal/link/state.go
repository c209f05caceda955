package link

import (
	"errors"
	"net"
	"sync/atomic"
)

// A State is the state of a link: New, Started or Closed. The zero State is New.
type State struct{ atomic.Int32 }

// The states of a link.
const (
	New int32 = iota
	Started
	Closed
)

// StartError returns the error with which a link's Start fails in this state, or if ready is nil.
// It returns nil if the link can be started. The error begins with pkg, the name of the link's
// package.
func (s *State) StartError(pkg string, ready func()) error {
	if ready == nil {
		return errors.New(pkg + ": Start: ready is nil; give it a function")
	}
	switch s.Load() {
	case Started:
		return errors.New(pkg + ": Start: the link is started already")
	case Closed:
		return net.ErrClosed
	}
	return nil
}

// IOError returns the error with which Read and Write fail in this state. It returns nil if the
// link is started. The error begins with pkg, the name of the link's package.
func (s *State) IOError(pkg string) error {
	switch s.Load() {
	case New:
		return errors.New(pkg + ": the link is not started; call Start first")
	case Closed:
		return net.ErrClosed
	}
	return nil
}
