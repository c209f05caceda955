//go:build !linux

package main

import (
	"errors"
	"runtime"
	"syscall"
)

// A load is how busy the machine has been. It is not known here: all is 0.
type load struct{ own float64 }

func readLoad() load             { return load{} }
func (l load) since(o load) load { return load{} }
func (l load) others() float64   { return 0 }
func cpuModel() string           { return runtime.GOARCH }
func kernelVersion() string      { return runtime.GOOS }
func kernelCongestion() string   { return "unknown" }
func slab() (float64, error)     { return 0, errors.New("the kernel's memory is not known here") }
func descriptors(int) int        { return 1000 }

// control would give a socket the congestion control, which is Linux's alone to choose.
func (c congestion) control(_, _ string, _ syscall.RawConn) error {
	if c.kernel == kernelCongestion() {
		return nil
	}
	return errors.New("the kernel's congestion control cannot be chosen here")
}
