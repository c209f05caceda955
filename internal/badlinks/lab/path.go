//go:build linux

package lab

import (
	"fmt"
	"time"

	"bsdnet/netem"
)

// A Path is a network path, which is the same in both directions.
type Path struct {
	// Name names the path, in tables and flags.
	Name string

	// About says in a few words what is wrong with the path.
	About string

	// Rate is the bandwidth in bits a second.
	Rate int64

	// RTT is the time that a packet takes there and another one back, without waiting in a queue.
	RTT time.Duration

	// Queue is the size of each direction's drop-tail queue in bytes. If it is 0, it is the
	// bandwidth-delay product, or minQueue if that is more.
	Queue int

	// Impairment has everything else that is wrong. Its Delay, Rate and Queue are replaced by those
	// above.
	Impairment netem.Impairment

	// Scatter is the largest additional delay of a packet. Each packet has its own, which is
	// uniform in [0, Scatter), so packets of one flow overtake each other.
	Scatter time.Duration

	// Lose reports whether a packet is lost, in addition to the Impairment. The argument at is the
	// time since the path was made, and back is true if the packet goes from B to A. Lose is called
	// from several goroutines. If it is nil, it loses none.
	Lose func(at time.Duration, back bool, packet []byte) bool

	// Bytes is the number of bytes to send. It takes Linux a few seconds.
	Bytes int64

	// Sysctls are the variables to set in the namespaces of kernels.
	Sysctls map[string]string
}

// minQueue is the least queue that a path has by default, in bytes: ten packets.
const minQueue = 10 * MTU

// queue returns the size of the queue.
func (p *Path) queue() int {
	if p.Queue != 0 {
		return p.Queue
	}
	return max(int(p.BDP()), minQueue)
}

// BDP returns the bandwidth-delay product in bytes.
func (p *Path) BDP() int64 { return int64(float64(p.Rate) / 8 * p.RTT.Seconds()) }

// impairment returns the impairment of one direction.
func (p *Path) impairment() netem.Impairment {
	i := p.Impairment
	i.Delay, i.Rate, i.Queue = p.RTT/2, p.Rate, p.queue()
	return i
}

// clean returns a path that loses and delays nothing.
func clean(rate int64, rtt time.Duration, bytes int64) Path {
	return Path{Name: "clean", About: "nothing is wrong", Rate: rate, RTT: rtt, Bytes: bytes}
}

// Lossy returns a path that loses packets with a probability of 0 to 1, and is clean otherwise.
func Lossy(rate int64, rtt time.Duration, loss float64) Path {
	p := clean(rate, rtt, 32<<20)
	p.Name = fmt.Sprintf("%g%%", loss*100)
	p.About = "loss of " + p.Name
	p.Impairment.Loss = loss
	return p
}
