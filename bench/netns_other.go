//go:build !linux

package main

import "errors"

var errNotHere = errors.New("this system has no such device; the tun rows need Linux")

func isolate() error { return nil }

func tunCheck() error { return errNotHere }

func tunPeers() []peer {
	none := func(congestion) (*network, error) { return nil, errNotHere }
	return []peer{{name: "bsdnet", role: ours, open: none}, {name: "veth", role: kernel, open: none}}
}
