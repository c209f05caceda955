package bsdnet

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"
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
	}
	return os.NewSyscallError(call, errno)
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
