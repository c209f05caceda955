package main

import "net"

// openKernel uses package net over the loopback.
func openKernel(cc congestion) (*network, error) {
	return &network{
		listen: func() (net.Listener, error) { return cc.listen("127.0.0.1:0") },
		dial:   cc.dial,
		close:  func() {},
		kernel: true,
	}, nil
}
