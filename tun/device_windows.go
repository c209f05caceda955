//go:build windows

package tun

import "fmt"

const defaultName = "bsdnet"

func explain(err error) error {
	return fmt.Errorf("%w; this needs an elevated process, and wintun.dll (https://www.wintun.net) "+
		"in the program's directory or in System32", err)
}
