//go:build darwin || windows

package link

import (
	"errors"

	"golang.zx2c4.com/wireguard/tun"
)

func createTUN(c *TUNConfig) (tunDevice, string, error) {
	if c.File != nil {
		return nil, "", errors.New("File is for Linux only; give Name")
	}
	name := c.Name
	if name == "" {
		name = defaultTUN
	}
	dev, err := tun.CreateTUN(name, c.MTU)
	if err != nil {
		return nil, "", explainTUN(err)
	}
	// The device tells of its going up and down; nobody needs to know.
	go func() {
		for range dev.Events() {
		}
	}()
	if name, err = dev.Name(); err != nil {
		dev.Close()
		return nil, "", err
	}
	return dev, name, nil
}
