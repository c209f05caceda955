package bsdnet

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"
)

// Errors become package net's here and nowhere else.

// sysError gives an errno of system call call the form that package net gives it; nil for 0.
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

// Package net's own errors, which have no exported names, so that it is asked for them: none of the calls gets as far as making a socket.
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

// opErr returns what is in the net.OpError of a call that has failed.
func opErr[T net.Conn](_ T, err error) error {
	if op, ok := err.(*net.OpError); ok {
		return op.Err
	}
	return err
}
