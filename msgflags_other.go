//go:build !unix

package bsdnet

// msgTrunc is MSG_TRUNC, as on Linux.
const msgTrunc = 0x20
