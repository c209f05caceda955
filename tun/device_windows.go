//go:build windows

package tun

import "fmt"

const defaultName = "bsdnet"

func explain(err error) error {
	return fmt.Errorf("%w; it takes wintun.dll (https://www.wintun.net) beside the program or in System32, and an elevated process", err)
}
