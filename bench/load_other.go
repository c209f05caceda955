//go:build !linux

package main

import (
	"errors"
	"runtime"
	"syscall"
)

// A load says how busy the machine has been. On this system that is not known, and all is 0.
type load struct{ own float64 }

func readLoad() load             { return load{} }
func (l load) since(o load) load { return load{} }
func (l load) others() float64   { return 0 }
func cpuModel() string           { return runtime.GOARCH }
func kernelVersion() string      { return runtime.GOOS }
func kernelCongestion() string   { return "unknown" }
func slab() (float64, error)     { return 0, errors.New("the kernel's memory is only known on Linux") }
func descriptors(int) int        { return 1000 }

// control fails, because only Linux lets a program choose the congestion control of a socket.
func (c congestion) control(_, _ string, _ syscall.RawConn) error {
	if c.kernel == kernelCongestion() {
		return nil
	}
	return errors.New("only Linux lets a program choose the kernel's congestion control")
}
