package main

import "net"

// openKernel is package net over the loopback.
func openKernel() (*network, error) {
	return &network{
		listen: func() (net.Listener, error) { return net.Listen("tcp4", "127.0.0.1:0") },
		dial:   func(address string) (net.Conn, error) { return net.Dial("tcp4", address) },
		close:  func() {},
		kernel: true,
	}, nil
}
