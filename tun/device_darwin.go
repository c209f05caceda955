//go:build darwin

package tun

import (
	"errors"
	"fmt"
	"syscall"
)

const defaultName = "utun"

func explain(err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("%w; a utun device takes root (sudo)", err)
	}
	return fmt.Errorf("%w; the Name of a device is utun, or utun and a number", err)
}
