// Package netem emulates networks, for tests. [Pipe] makes a cable between two stacks of one
// process. [Impair] wraps any link and makes it worse: it adds delay, loss, reordering and other
// faults.
//
//	a, b, err := netem.Pipe(netem.PipeConfig{MTU: 1500})
//	way := netem.Impairment{Delay: 50 * time.Millisecond, Loss: 0.01}
//	bad, err := netem.Impair(a, netem.Path{Write: way, Read: way, Seed: 1})
//	err = stack1.Attach(bad, netip.MustParsePrefix("10.0.0.1/24"))
//	err = stack2.Attach(b, netip.MustParsePrefix("10.0.0.2/24"))
//
// In a testing/synctest bubble a run repeats exactly.
package netem
