// Package lab carries a TCP stream over a bad path between two ends, each of which is the Linux
// kernel or a bsdnet stack, and says how fast it came through. Whatever the ends are, the path is
// the same code with the same seed:
//
//	A: TUN device or Pipe <- gate - relay - netem.Impair - gate -> B: TUN device or Pipe
//
// A kernel's end is a network namespace of its own with a TUN device that has no offloads, so
// segments travel as on a wire. A gate is what a packet passes last; it does what Impair
// cannot express: outages, holes for packets of a size, and delays that reorder the packets of one
// flow.
//
// End A dials and sends, from a fixed port: the fate of a packet depends on the seed, its flow and
// its number in the flow, so all combinations of ends meet the same losses. Every byte is compared
// with what was sent.
//
// It needs root and /dev/net/tun, except between two stacks. That pair runs in a testing/synctest
// bubble too.
package lab
