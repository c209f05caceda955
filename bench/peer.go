package main

import "net"

// A peer is somebody whose TCP is measured, in one set-up.
type peer struct {
	name string
	role role

	// open makes a network for one measurement, all of whose TCP has the congestion control.
	open func(cc congestion) (*network, error)

	// kinds are the kinds of rows that it takes part in; nil: all.
	kinds []string
}

// A role is what a peer is compared as.
type role int

const (
	ours    role = iota // bsdnet
	kernel              // what "× kernel" compares with
	gvisor              // "× gVisor" compares with the best of these
	ceiling             // no TCP: what is possible at all
	before              // the bsdnet of another build, which "× before" compares with
)

// A network is a server's and a client's side of something that carries connections.
type network struct {
	listen func() (net.Listener, error)           // at the server's side, on a port of its choice
	dial   func(address string) (net.Conn, error) // from the client's side to what a listener's Addr says
	close  func()                                 // ends it all; connections and listeners have been closed before
	kernel bool                                   // connections take files, and the kernel's memory
}

// A scene is a place for two ends of TCP.
type scene struct {
	name  string // the prefix of its rows; "" for memory
	title string
	peers []peer

	// check, where it is not nil, reports why the scene cannot be set up on this system.
	check func() error
}

// scenes are all places.
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
		{name: "gvisor", role: gvisor, open: openGvisor},
		// Its rings are made anew for each connection, so it is no measure of what a connection costs; pipe has no buffer, and is one of that only.
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
