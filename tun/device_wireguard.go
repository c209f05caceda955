//go:build darwin || windows

package tun

import (
	"errors"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

func createDevice(c *Config) (device, string, error) {
	if c.File != nil {
		return nil, "", errors.New("File is for Linux only; give Name")
	}
	name := c.Name
	if name == "" {
		name = defaultName
	}
	dev, err := wgtun.CreateTUN(name, c.MTU)
	if err != nil {
		return nil, "", explain(err)
	}
	// The device reports when it goes up and down. The channel must be read, but nobody needs to
	// know.
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
