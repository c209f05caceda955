//go:build windows

package link

import "fmt"

const defaultTUN = "bsdnet"

func explainTUN(err error) error {
	return fmt.Errorf("%w; it takes wintun.dll (https://www.wintun.net) beside the program or in System32, and an elevated process", err)
}
