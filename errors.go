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
	errOtherBubble = errors.New("bsdnet: the stack was made in another testing/synctest bubble, or outside of any, where time is another: " +
		"make one with New in the bubble that uses it (the default stack is made by its first use)")
	errOtherClock = errors.New("bsdnet: the deadline was computed outside of the testing/synctest bubble of the stack, where time is another: " +
		"compute it with time.Now in the bubble")
)

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
