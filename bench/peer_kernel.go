package main

import "net"

// openKernel uses package net over the loopback.
func openKernel(cc congestion) (*network, error) {
	return &network{
		listen: func() (net.Listener, error) { return cc.listen("127.0.0.1:0") },
		dial:   cc.dial,
		packets: func() (client, server packetConn, err error) {
			return packetPair(listenKernel, "127.0.0.1:0", listenKernel, "127.0.0.1:0")
		},
		close:  func() {},
		kernel: true,
	}, nil
}

// listenKernel makes a socket of the kernel's UDP.
func listenKernel(address string) (packetConn, error) {
	c, err := net.ListenPacket("udp4", address)
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// packetPair makes a client's and a server's socket.
func packetPair(
	dial func(address string) (packetConn, error), clientAt string,
	listen func(address string) (packetConn, error), serverAt string,
) (client, server packetConn, err error) {
	if client, err = dial(clientAt); err != nil {
		return nil, nil, err
	}
	if server, err = listen(serverAt); err != nil {
		client.Close()
		return nil, nil, err
	}
	return client, server, nil
}
