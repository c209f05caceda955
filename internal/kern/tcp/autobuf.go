package tcp

import "bsdnet/internal/kern/mbuf"

// A window must hold what the path does, or the sender waits: the bandwidth times the round trip
// (RFC 7323, 1.1). When the connection begins nobody knows either, so a buffer whose size nobody
// has set grows with what goes through it, as in FreeBSD (tcp_autorcvbuf, tcp_sndbuf_autoscale) and
// Linux.
//
// What counts is the least round trip, as data that waits in a queue needs no larger window; and of
// what has come in, what the user has read: a peer cannot make a buffer grow that nobody empties.
// Buffers do not grow beyond what the stack's memory allows, and never shrink, as that would take
// back a window (RFC 9293, SHLD-14). The loopback has no way to fill, and is fastest if all that is
// under way is in the processor's cache.

// Both in microseconds. However short the way is, a process may have to wait for a processor:
// autoFloor is the round trip that a buffer is always made for. What comes in a round trip as short
// as that comes in bursts, so it is averaged over autoMean.
const (
	autoFloor = 100
	autoMean  = 4000
)

// An autobuf remembers when the sizes of the buffers were last looked at, and how much had gone
// through them by then. All of it wraps: the time every 71 minutes, which makes one period longer,
// the bytes every 4 GiB, which is more than goes through in a period.
type autobuf struct {
	at          uint32 // microseconds
	read, acked uint32 // bytes that the user has read, and the peer has acknowledged
}

// look returns how many bytes have been read and acknowledged in a round trip since it last looked,
// and reports whether the time for another look has come: at most once in a round trip, of which
// minRTT is the least.
func (a *autobuf) look(now, minRTT int64, read, acked uint32) (readRTT, ackedRTT int, due bool) {
	at, period := uint32(now/1000), uint32(autoFloor)
	if minRTT > autoFloor*1000 {
		period = uint32(min(minRTT, sec) / 1000)
	}
	elapsed := at - a.at
	if elapsed < max(period, autoMean) {
		return 0, 0, false
	}
	readRTT = scaled(read-a.read, period, elapsed)
	ackedRTT = scaled(acked-a.acked, period, elapsed)
	*a = autobuf{at: at, read: read, acked: acked}
	return readRTT, ackedRTT, true
}

// scaled returns how many of n bytes in a time are those of a period.
func scaled(n, period, elapsed uint32) int {
	return int(uint64(n) * uint64(period) / uint64(elapsed))
}

// autosize looks, at most once in a round trip, how much has gone through the buffers, and doubles
// one that has less room than for twice as much.
func (tp *TCB) autosize(now int64) {
	if tp.flags&local != 0 || tp.rtt.min == never {
		return
	}
	read, acked, due := tp.auto.look(now, tp.rtt.min, uint32(tp.bytesRcvd)-uint32(tp.rcv.Cc()), uint32(tp.bytesSent))
	if !due {
		return
	}
	if tp.flags&CantRcvMore == 0 { // what is thrown away has not been read
		if tp.rtt.min >= ms {
			// The sender doubles its window each round trip, and one that waits for a hole to be
			// filled lasts for two: it must have grown before.
			read *= 2
		}
		tp.autoGrow(tp.rcv, AutoRcv, read, min(tp.prof.RecvbufMax, maxWin<<tp.rcvScale))
	}
	tp.autoGrow(&tp.snd.Sockbuf, AutoSnd, acked, tp.prof.SendbufMax)
}

// autoGrow doubles a buffer through which n bytes have gone in a round trip, up to most bytes, or
// what any buffer may have.
func (tp *TCB) autoGrow(sb *mbuf.Sockbuf, auto Flag, n, most int) {
	most = min(most, tp.prof.Maxsockbuf)
	if tp.flags&auto != 0 && 2*n > sb.Hiwat() && sb.Hiwat() < most && !tp.pool.Pressed() {
		sb.SetHiwat(min(2*sb.Hiwat(), most))
	}
}

// growSendbuf gives the send buffer room for twice the congestion window over a path of some
// length: while a window doubles each round trip, autosize would come a round trip late, and while
// losses are repaired, what has arrived behind them takes up room as well: Linux's
// tcp_sndbuf_expand.
func (tp *TCB) growSendbuf(cwnd int) {
	if tp.flags&AutoSnd == 0 || tp.rtt.min == never || tp.rtt.min < ms || tp.pool.Pressed() {
		return
	}
	if want := min(2*cwnd, tp.prof.SendbufMax, tp.prof.Maxsockbuf); want > tp.snd.Hiwat() {
		tp.snd.SetHiwat(want)
		tp.sock.Sowwakeup()
	}
}
