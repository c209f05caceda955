// Package netem emulates networks, for tests. [Pipe] makes a cable between two stacks of one
// process. [Impair] wraps any link and makes it worse: it adds delay, loss, reordering and other
// faults. [NewSwitch] makes a switch with a [Port] for each of many stacks.
//
//	a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
//	way := netem.Impairment{Delay: 50 * time.Millisecond, Loss: 0.01}
//	bad, err := netem.Impair(a, netem.Path{Write: way, Read: way, Seed: 1})
//	err = stack1.Attach(bad, netip.MustParsePrefix("10.0.0.1/24"))
//	err = stack2.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))
//
// # Changes at run time
//
// Everything but the MTU can be changed while packets flow: Set gives a link another [Path],
// SetFlows gives some flows a Path of their own, Cut and Heal make a blackout of one or both
// directions, and a Script decides about each [Packet]: it can drop the second SYN of a connection,
// or the first retransmission. [Impaired], [Port] and [Trunk] have these methods. [Link], which a
// Pipe's ends are, has SetDelay, Cut and Heal.
//
//	bad.Cut(netem.Both)
//	time.Sleep(30 * time.Second)
//	bad.Heal(netem.Both)
//
//	bad.Script(netem.Write, func(p *netem.Packet) netem.Verdict {
//		return netem.Verdict{Drop: p.Flags&netem.SYN != 0 && p.N == 1}
//	})
//
// # What repeats
//
// In a testing/synctest bubble a run repeats exactly, as far as the program does the same at the
// same virtual times:
//
//   - At most one packet arrives per nanosecond, on an [Impaired] or on all ports of connected
//     switches together, and the bubble comes to rest before the next. Packets that are written at
//     one instant are taken in the order of their flows, and those of a flow in their own order,
//     whichever goroutine was first.
//   - The random choices for a packet are a hash of the seed, the link's direction (for ports and
//     trunks also the name), the flow, and the number of the packet in its flow. They depend on no
//     other flow, and on nothing that changes at run time.
//   - A change is made between two instants, so it makes no difference whether it comes before or
//     after a packet of the same instant. The changes of one goroutine stay in their order; if two
//     goroutines change one thing at the same instant, the order is the program's affair.
//
// If a program's own goroutines race, for example for the order in which a connection's data and
// that of another are read, the bytes of each connection and the virtual times are the same, and
// the order of packets within an instant may not be.
package netem
