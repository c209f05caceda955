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
		return fmt.Errorf("%w; making a utun device needs root (sudo)", err)
	}
	return fmt.Errorf("%w; Name must be utun, or utun and a number", err)
}
