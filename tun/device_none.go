//go:build !linux && !darwin && !windows

package tun

import (
	"errors"
	"fmt"
	"runtime"
)

func createDevice(*Config) (device, string, error) {
	return nil, "", fmt.Errorf("%w: there is no driver for %s, only for Linux, macOS and Windows; "+
		"use package udptunnel or wireguard", errors.ErrUnsupported, runtime.GOOS)
}
