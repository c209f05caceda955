package bsdnet

import (
	"context"
	"net"
	"os"
	"syscall"
)

// Errors become package net's here and nowhere else.

// sysError gives an errno of system call call the form that package net gives it; nil for 0.
func sysError(call string, errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.EBADF:
		return net.ErrClosed
	case syscall.EWOULDBLOCK:
		return os.ErrDeadlineExceeded
	}
	return os.NewSyscallError(call, errno)
}

// ctxError maps a context's error as package net does.
func ctxError(err error) error {
	switch err {
	case context.Canceled:
		return errCanceled
	case context.DeadlineExceeded:
		return errTimeout
	}
	return err
}

type canceledError struct{}

func (canceledError) Error() string        { return "operation was canceled" }
func (canceledError) Is(target error) bool { return target == context.Canceled }

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
func (timeoutError) Is(target error) bool {
	return target == context.DeadlineExceeded || target == os.ErrDeadlineExceeded
}

var (
	errCanceled error = canceledError{}
	errTimeout  error = timeoutError{}
)
