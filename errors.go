package bsdnet

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"bsdnet/internal/kern"
)

// This file alone makes package net's errors of the kernel's.

// sysError returns the error that package net makes of an errno of the system call that call names.
// It returns nil if errno is 0.
func sysError(call string, errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.EBADF:
		return net.ErrClosed
	case syscall.EAGAIN:
		return os.ErrDeadlineExceeded
	case kern.EXDEV:
		return errOtherBubble
	case kern.ERANGE:
		return errOtherClock
	}
	return os.NewSyscallError(call, errno)
}

// The errors of calls across the border of a testing/synctest bubble.
var (
	errOtherBubble = errors.New("bsdnet: the stack belongs to another testing/synctest bubble, or to none, " +
		"and has another clock: make a stack with New in the bubble that uses it " +
		"(the first use makes the default stack)")
	errOtherClock = errors.New("bsdnet: the deadline was computed outside of the stack's testing/synctest bubble, " +
		"by another clock: compute it with time.Now in the bubble")
)

// A diagnosed error is a timeout, and what a link says of its cause. It is the timeout to errors.Is
// and errors.As: that a tunnel's peer has refused a datagram must not be taken for the refusal of
// what was dialed.
type diagnosed struct {
	error
	cause error
}

func (e *diagnosed) Error() string   { return e.error.Error() + " (" + e.cause.Error() + ")" }
func (e *diagnosed) Unwrap() error   { return e.error }
func (e *diagnosed) Timeout() bool   { return true }
func (e *diagnosed) Temporary() bool { return true }

// diagnose adds the link's answer to ask, if there is one, to an error that is a timeout. Other
// errors stay as they are.
func diagnose(err error, ask func() error) error {
	sys, isSys := err.(*os.SyscallError)
	switch {
	case isSys && sys.Err == syscall.ETIMEDOUT:
		if cause := ask(); cause != nil {
			return &os.SyscallError{Syscall: sys.Syscall, Err: &diagnosed{sys.Err, cause}}
		}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		if cause := ask(); cause != nil {
			return &diagnosed{err, cause}
		}
	}
	return err
}

// ctxError returns the error that package net makes of a context's.
func ctxError(err error) error {
	switch err {
	case context.Canceled:
		return errCanceled
	case context.DeadlineExceeded:
		return errTimeout
	}
	return err
}

// These are package net's own errors. As it does not export them, calls of it that fail before they
// make a socket provide them.
var (
	errMissingAddress = opErr(net.DialTCP("tcp", nil, nil))
	errCanceled       = dialEnded(context.WithCancel(context.Background()))
	errTimeout        = dialEnded(context.WithDeadline(context.Background(), time.Unix(0, 0)))
)

// dialEnded returns the error of a dial whose context has ended.
func dialEnded(ctx context.Context, cancel context.CancelFunc) error {
	cancel()
	return opErr(new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:1"))
}

// opErr returns the error that the net.OpError of a failed call wraps.
func opErr[T net.Conn](_ T, err error) error {
	if op, ok := err.(*net.OpError); ok {
		return op.Err
	}
	return err
}
