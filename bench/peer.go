package main

import "net"

// A peer is a TCP that is measured, in one set-up.
type peer struct {
	name string
	role role

	// open makes a network for one measurement. All its TCP has the congestion control.
	open func(cc congestion) (*network, error)

	// kinds are the kinds of rows that the peer takes part in; nil means all.
	kinds []string
}

// A role says what a peer is in comparisons.
type role int

const (
	ours    role = iota // bsdnet
	kernel              // what "× kernel" compares with
	gvisor              // "× gVisor" compares with the best of these
	ceiling             // no TCP: the limit of what is possible
	before              // the bsdnet of another build, which "× before" compares with
)

// A network has a server's and a client's side, and carries connections between them.
type network struct {
	listen  func() (net.Listener, error)                  // at the server's side, on a port of its choice
	dial    func(address string) (net.Conn, error)        // from the client's side to a listener's address
	packets func() (client, server packetConn, err error) // sockets of UDP, nil: the peer has none
	close   func()                                        // called after connections and listeners have been closed
	kernel  bool                                          // connections take files, and the kernel's memory
}

// A scene is a place for two ends of TCP.
type scene struct {
	name  string // the prefix of its rows; "" for memory
	title string
	peers []peer

	// check, if it is not nil, returns the reason why the scene is not possible on this system.
	check func() error
}

// scenes returns all scenes.
func scenes() []scene {
	return []scene{
		{name: "", title: "In memory", peers: memoryPeers()},
		{name: "pair", title: "Two stacks, MTU 1500, checksums", peers: pairPeers()},
		{name: "tun", title: "TUN device: the kernel at one end", peers: tunPeers(), check: tunCheck},
		{name: "udp", title: "Through encrypted datagrams", peers: udpPeers()},
	}
}

func memoryPeers() []peer {
	return []peer{
		{name: "bsdnet", role: ours, open: openBsdnet},
		{name: "kernel", role: kernel, open: openKernel},
		{name: "gvisor", role: gvisor, open: openGvisor, kinds: kindsTCP},
		// bufpipe makes new rings for each connection, so it does not measure the cost of a
		// connection. pipe has no buffer, and measures only that.
		{name: "bufpipe", role: ceiling, open: openBufpipe, kinds: []string{kindBulk, kindPingPong, kindHTTP}},
		{name: "pipe", role: ceiling, open: openPipe, kinds: []string{kindConn, kindIdle}},
	}
}

func pairPeers() []peer {
	return []peer{
		{name: "bsdnet", role: ours, open: openBsdnetPair},
		{name: "gvisor", role: gvisor, open: openGvisorPair},
		{name: "gvisor-batch", role: gvisor, open: openGvisorBatchPair},
	}
}
