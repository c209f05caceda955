//go:build unix

package bsdnet

import "syscall"

// msgTrunc is the system's MSG_TRUNC.
const msgTrunc = syscall.MSG_TRUNC
