package main

import (
	"fmt"
	"time"
)

// A group is a set of rows and peers that belong together.
type group struct {
	name, title string
	has         func(r row) bool
	peers       []string // nil: all peers of the rows
}

// groups are the groups that -group accepts. Tunnel and wireguard have the same rows, by different
// peers.
var groups = []group{
	{name: "loopback", title: "both ends in one process",
		has: func(r row) bool { return r.scene == "" && r.kind != kindGrow && r.kind != kindDgram }},
	{name: "pair", title: "two stacks on a cable", has: inScene("pair")},
	{name: "tun", title: "the kernel at one end of a TUN device",
		has: func(r row) bool { return r.scene == "tun" && r.kind != kindDgram }},
	{name: "tunnel", title: "bsdnet's UDP tunnel and WireGuard in Go",
		has: inScene("udp"), peers: []string{"bsdnet", "wireguard-go", "wireguard-go-batch"}},
	{name: "wireguard", title: "package wireguard and WireGuard in Go",
		has: inScene("udp"), peers: []string{"bsdnet-wg", "wireguard-go", "wireguard-go-batch"}},
	{name: "dgram", title: "datagrams, and QUIC over them", has: func(r row) bool { return r.kind == kindDgram }},
	{name: "grow", title: "how the cost grows with the connections",
		has: func(r row) bool { return r.kind == kindGrow }},
}

// inScene returns a function that reports whether a row is in a scene.
func inScene(name string) func(r row) bool { return func(r row) bool { return r.scene == name } }

// These are the times that a measurement takes in addition to its warm-up and its window: to set up
// and verify the peer, to make and end each of many connections (twice that for gVisor), and to run
// a process. They were measured on two cores.
const (
	setUpTime      = 100 * time.Millisecond
	connectionTime = 100 * time.Microsecond
	processTime    = 200 * time.Millisecond
)

// estimate returns the number of rows and measurements in the plan, and their approximate time.
func (p *plan) estimate() (n, measurements int, d time.Duration) {
	places := map[string]scene{}
	for _, s := range scenes() {
		places[s.name] = s
	}
	for _, r := range rows() {
		if !p.wants(r) {
			continue
		}
		n++
		for _, q := range places[r.scene].peers {
			if !p.wantsPeer(r, q) ||
				q.role == kernel && r.descriptors > 0 && descriptors(r.descriptors) < r.descriptors {
				continue
			}
			each := p.warm + setUpTime + time.Duration(r.many/p.scale)*connectionTime
			if r.kind != kindIdle { // an idle row has nothing to time
				each += p.time
			}
			rounds := p.rounds
			if p.beside != nil && q.role == ours {
				each += processTime
				rounds *= 2
			}
			measurements += rounds
			d += time.Duration(rounds) * each
		}
	}
	return n, measurements, d
}

// estimateText returns the estimate as a text.
func (p *plan) estimateText() string {
	rows, n, d := p.estimate()
	return fmt.Sprintf("%s, %s: about %v", plural(rows, "row"), plural(n, "measurement"), d.Round(time.Second))
}
