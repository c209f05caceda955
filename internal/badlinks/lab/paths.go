//go:build linux

package lab

import (
	"time"

	"bsdnet/netem"
)

const ms = time.Millisecond

// Paths returns the 21 bad links, and two paths that impair the handshake. They have 200 Mbit/s and
// a round trip of 20 ms unless they say otherwise.
func Paths() []Path {
	bad := func(name, about string, bytes int64, change func(p *Path)) Path {
		p := clean(200e6, 20*ms, bytes)
		p.Name, p.About = name, about
		change(&p)
		return p
	}
	impaired := func(name, about string, bytes int64, i netem.Impairment) Path {
		return bad(name, about, bytes, func(p *Path) { p.Impairment = i })
	}
	burst := &netem.BurstLoss{PEnter: 0.004, PLeave: 0.2, LossInBad: 0.8}
	return []Path{
		clean(200e6, 20*ms, 40<<20),
		impaired("loss1", "1 % of loss", 4<<20, netem.Impairment{Loss: 0.01}),
		impaired("loss5", "5 % of loss", 1<<20, netem.Impairment{Loss: 0.05}),
		impaired("loss10", "10 % of loss", 512<<10, netem.Impairment{Loss: 0.10}),
		impaired("loss20", "20 % of loss", 192<<10, netem.Impairment{Loss: 0.20}),
		impaired("loss30", "30 % of loss", 32<<10, netem.Impairment{Loss: 0.30}),
		impaired("burst", "Gilbert-Elliott: after 250 packets 5 of which 80 % are lost, on average", 8<<20,
			netem.Impairment{Burst: burst}),
		impaired("reorder25", "25 % of packets are 4 ms late", 24<<20,
			netem.Impairment{Reorder: 0.25, ReorderDelay: 4 * ms}),
		bad("jitter9", "each packet is 0 to 9 ms late on its own", 24<<20, func(p *Path) { p.Scatter = 9 * ms }),
		impaired("dup5", "5 % of packets come twice", 40<<20, netem.Impairment{Duplicate: 0.05}),
		impaired("dup50", "50 % of packets come twice", 24<<20, netem.Impairment{Duplicate: 0.50}),
		impaired("corrupt2", "a bit is flipped in 2 % of packets", 2<<20, netem.Impairment{Corrupt: 0.02}),
		bad("all", "1 % lost, 2 % twice, 5 % late by 3 ms, all by 0 to 2 ms, 0.5 % corrupted", 2<<20, func(p *Path) {
			p.Impairment = netem.Impairment{Loss: 0.01, Duplicate: 0.02, Corrupt: 0.005}
			p.Impairment.Reorder, p.Impairment.ReorderDelay = 0.05, 3*ms
			p.Scatter = 2 * ms
		}),
		bad("delay1", "a delay of 1 ms each way", 40<<20, func(p *Path) { p.RTT = 2 * ms }),
		bad("delay150", "a round trip of 150 ms", 24<<20, func(p *Path) { p.RTT = 150 * ms }),
		bad("delay300j", "a round trip of 300 ms, and 0 to 15 ms more each way, in order", 8<<20, func(p *Path) {
			p.RTT = 300 * ms
			p.Impairment.Jitter = 15 * ms
		}),
		bad("rate1m", "1 Mbit/s, a queue of ten packets", 512<<10, func(p *Path) { p.Rate = 1e6 }),
		bad("tinyqueue", "a queue of four packets", 1<<20, func(p *Path) { p.Queue = 4 * MTU }),
		bad("down5s", "nothing passes from 0.2 s to 5.2 s", 16<<20, func(p *Path) {
			p.Lose = func(at time.Duration, _ bool, _ []byte) bool { return at >= 200*ms && at < 5200*ms }
		}),
		bad("tunflap", "nothing passes for 0.2 s, every 2 s, from 0.3 s on", 48<<20, func(p *Path) {
			p.Lose = func(at time.Duration, _ bool, _ []byte) bool {
				return at >= 300*ms && (at-300*ms)%(2000*ms) < 200*ms
			}
		}),
		bad("mtuhole", "packets over 1280 bytes vanish; kernels have tcp_mtu_probing=1", 8<<20, func(p *Path) {
			p.Lose = func(_ time.Duration, _ bool, packet []byte) bool { return len(packet) > 1280 }
			// By default Linux does not look for black holes, and hangs in one as the sender.
			p.Sysctls = map[string]string{"net.ipv4.tcp_mtu_probing": "1"}
		}),
		bad("synack", "SYN,ACKs vanish for 5.5 s, then 5 % of loss", 2<<20, func(p *Path) {
			p.Impairment.Loss = 0.05
			p.Lose = func(at time.Duration, back bool, packet []byte) bool {
				return back && at < 5500*ms && isSyn(packet)
			}
		}),
		bad("syn", "SYNs vanish for 2.5 s, then 1 % of loss", 4<<20, func(p *Path) {
			p.Impairment.Loss = 0.01
			p.Lose = func(at time.Duration, back bool, packet []byte) bool {
				return !back && at < 2500*ms && isSyn(packet)
			}
		}),
	}
}

// Bad is the number of bad links, which are the first of the Paths. The others are about the
// handshake.
const Bad = 21

// isSyn reports whether a packet is a TCP segment over IPv4 with SYN.
func isSyn(packet []byte) bool {
	if len(packet) < 40 || packet[0]>>4 != 4 || packet[9] != 6 {
		return false
	}
	flags := int(packet[0]&15)*4 + 13
	return flags < len(packet) && packet[flags]&2 != 0
}

// Grid returns the paths of the loss grid: 100 Mbit/s, 20 ms, and 0 to 20 % of loss.
func Grid() (paths []Path) {
	for _, loss := range []float64{0, 0.001, 0.01, 0.05, 0.10, 0.20} {
		paths = append(paths, Lossy(100e6, 20*ms, loss))
	}
	return paths
}
