package tcp

import "bsdnet/internal/kern/mbuf"

// A window must hold what the path does, or the sender waits: the bandwidth times the round trip
// (RFC 7323, 1.1). Who chooses a buffer's size when the connection begins knows neither, so a
// buffer whose size nobody has set grows with what goes through it, as in FreeBSD (tcp_autorcvbuf,
// tcp_sndbuf_autoscale) and Linux.
//
// What counts is the least round trip, as data that waits in a queue needs no larger window; and of
// what has come in, what the user has read: a peer cannot make a buffer grow that nobody empties.
// Buffers do not grow beyond what the stack's memory allows, and never shrink, as that would take
// back a window (RFC 9293, SHLD-14). The loopback has no way to fill, and is fastest where all that
// is under way is in the processor's cache.

// Both in microseconds. However short the way is, a process may have to wait for a processor:
// autoFloor is the round trip that a buffer is always made for. What comes in a round trip as short
// as that comes in bursts, so it is averaged over autoMean.
const (
	autoFloor = 100
	autoMean  = 4000
)

// autosize looks, at most once in a round trip, how much has gone through the buffers, and doubles
// one that has less room than for twice as much.
func (tp *TCB) autosize(now int64) {
	if tp.flags&local != 0 || tp.rttMin == never {
		return
	}
	t, period := uint32(now/1000), uint32(autoFloor)
	if tp.rttMin > autoFloor*1000 {
		period = uint32(min(tp.rttMin, sec) / 1000)
	}
	elapsed := t - tp.autoTime // it comes round every 71 minutes, which makes one period longer
	if elapsed < max(period, autoMean) {
		return
	}
	read, acked := uint32(tp.bytesRcvd)-uint32(tp.rcv.Cc()), uint32(tp.bytesSent)
	if tp.flags&CantRcvMore == 0 { // what is thrown away has not been read
		n := scaled(read-tp.autoRead, period, elapsed)
		if tp.rttMin >= ms {
			// The sender doubles its window each round trip, and one that waits for a hole to be
			// filled lasts for two: it must have grown before.
			n *= 2
		}
		tp.autoGrow(tp.rcv, AutoRcv, n, min(tp.prof.RecvbufMax, maxWin<<tp.rcvScale))
	}
	tp.autoGrow(&tp.snd.Sockbuf, AutoSnd, scaled(acked-tp.autoAcked, period, elapsed), tp.prof.SendbufMax)
	tp.autoTime, tp.autoRead, tp.autoAcked = t, read, acked
}

// growSendbuf gives the send buffer room for twice the congestion window over a path of some
// length: while a window doubles each round trip, autosize would come a round trip late, and while
// losses are repaired, what has arrived behind them takes up room as well: Linux's
// tcp_sndbuf_expand.
func (tp *TCB) growSendbuf(cwnd int) {
	if tp.flags&AutoSnd == 0 || tp.rttMin == never || tp.rttMin < ms || tp.pool.Pressed() {
		return
	}
	if want := min(2*cwnd, tp.prof.SendbufMax, tp.prof.Maxsockbuf); want > tp.snd.Hiwat() {
		tp.snd.SetHiwat(want)
		tp.sock.Sowwakeup()
	}
}

// scaled returns how many of n bytes in a time are those of a period.
func scaled(n, period, elapsed uint32) int { return int(uint64(n) * uint64(period) / uint64(elapsed)) }

// autoGrow doubles a buffer through which n bytes have gone in a round trip, up to most bytes, or
// what any buffer may have.
func (tp *TCB) autoGrow(sb *mbuf.Sockbuf, auto Flag, n, most int) {
	most = min(most, tp.prof.Maxsockbuf)
	if tp.flags&auto != 0 && 2*n > sb.Hiwat() && sb.Hiwat() < most && !tp.pool.Pressed() {
		sb.SetHiwat(min(2*sb.Hiwat(), most))
	}
}
