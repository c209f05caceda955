package link

import (
	"errors"
	"net"
	"sync/atomic"
)

// A State says how far a link has come: its value is one of New, Started and Closed. The zero State is New.
type State struct{ atomic.Int32 }

// The states of a link.
const (
	New int32 = iota
	Started
	Closed
)

// StartError returns what Start returns in this state if it is given ready, and nil if the link can be started. The error begins with pkg, the name of
// the link's package.
func (s *State) StartError(pkg string, ready func()) error {
	if ready == nil {
		return errors.New(pkg + ": Start needs a ready function")
	}
	switch s.Load() {
	case Started:
		return errors.New(pkg + ": started twice")
	case Closed:
		return net.ErrClosed
	}
	return nil
}

// IOError returns what Read and Write return in this state: nil if the link is started. The error begins with pkg, the name of the link's package.
func (s *State) IOError(pkg string) error {
	switch s.Load() {
	case New:
		return errors.New(pkg + ": not started")
	case Closed:
		return net.ErrClosed
	}
	return nil
}
