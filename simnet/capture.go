package simnet

import (
	"bufio"
	"io"
	"slices"
	"sync"

	"bsdnet/internal/kern/wire"
	"bsdnet/netem"
)

// capture is a capture that is under way.
type capture struct {
	n     *Net
	w     *bufio.Writer
	hosts []*Host

	once   sync.Once
	result error
}

// Capture writes packets to w as a pcap file with nanosecond times, which tcpdump and Wireshark
// read. Without hosts, it writes each packet once for each host or router that sends it, at the
// time at which the network takes it, also if the packet is lost later: the capture of the whole
// network. With hosts, it writes what these hosts send and what arrives at them, as if each ran
// tcpdump. Loopbacks are not captured; see [bsdnet.Stack.Capture].
//
// The packets are in the order of their times. With the same seed and a test that does the same,
// the file is the same, byte for byte.
//
// stop ends the capture and returns the first error of w. When the test ends, captures are stopped
// before hosts are closed. w is called with a lock of the network held, so it must not call the
// network.
func (n *Net) Capture(w io.Writer, hosts ...*Host) (stop func() error) {
	c := &capture{n: n, w: bufio.NewWriterSize(w, 1<<16), hosts: hosts}
	h := wire.PcapHeader(wire.MaxPacket)
	c.w.Write(h[:])
	n.mu.Lock()
	defer n.mu.Unlock()
	n.captures = append(n.captures, c)
	n.apply(func() { n.taps = append(n.taps, c) })
	return c.stop
}

func (c *capture) stop() error {
	c.once.Do(func() {
		done := make(chan error, 1)
		c.n.apply(func() {
			c.n.taps = slices.DeleteFunc(c.n.taps, func(o *capture) bool { return o == c })
			done <- c.w.Flush()
		})
		c.result = <-done
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		c.n.captures = slices.DeleteFunc(c.n.captures, func(o *capture) bool { return o == c })
	})
	return c.result
}

// tap shows a packet to the captures. The network is locked.
func (n *Net) tap(at *nic, e *netem.Event) {
	sent := e.Kind == netem.EventSent && e.Direction == netem.Write
	if !sent && !(e.Kind == netem.EventArrived && e.Direction == netem.Read) {
		return
	}
	for _, c := range n.taps {
		if len(c.hosts) == 0 && sent || slices.Contains(c.hosts, at.host) {
			c.write(e)
		}
	}
}

func (c *capture) write(e *netem.Event) {
	b := e.Packet.Data
	h := wire.PcapRecord(e.Time.UnixNano(), len(b), len(b))
	c.w.Write(h[:]) // the first error stays with c.w
	c.w.Write(b)
}
