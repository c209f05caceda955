// Package lab carries a TCP stream over a bad path between two ends, each of which is the Linux
// kernel or a bsdnet stack, and reports its speed. For all kinds of ends, the path is the same code
// with the same seed:
//
//	A: TUN device or Pipe <- gate - relay - netem.Impair - gate -> B: TUN device or Pipe
//
// A kernel's end is a network namespace of its own with a TUN device that has no offloads, so
// segments travel as on a wire. A packet passes a gate last. The gate does what Impair cannot:
// outages, holes for packets of a size, and delays that reorder the packets of one flow.
//
// End A dials and sends, from a fixed port: the fate of a packet depends on the seed, its flow and
// its number in the flow, so all combinations of ends meet the same losses. Every received byte is
// compared with the one that was sent.
//
// Package lab needs root and /dev/net/tun, except between two stacks. Two stacks can also run in a
// testing/synctest bubble.
package lab
