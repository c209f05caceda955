//go:build !linux

package main

import "errors"

var errNotHere = errors.New("there is no such device on this system")

func isolate() error { return nil }

func tunCheck() error { return errNotHere }

func tunPeers() []peer {
	none := func(congestion) (*network, error) { return nil, errNotHere }
	return []peer{{name: "bsdnet", role: ours, open: none}, {name: "veth", role: kernel, open: none}}
}
