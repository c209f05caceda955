//go:build !linux

package main

func isolate() error { return nil }

func tunCheck() error { return errNotHere }

func tunPeers() []peer {
	none := func() (*network, error) { return nil, errNotHere }
	return []peer{{name: "bsdnet", role: ours, open: none}, {name: "veth", role: kernel, open: none}}
}
