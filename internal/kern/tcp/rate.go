package tcp

// rateState measures the rate of delivery: draft-ietf-ccwg-bbr, 4.1. A sample covers the flight of
// one segment: the bytes delivered between its sending and its acknowledgment, divided by the time
// that it took to send them or to have them acknowledged, whichever is longer.
type rateState struct {
	delivered   uint64 // bytes acknowledged or selectively acknowledged so far: C.delivered
	deliveredAt int64  // when the last of them were: C.delivered_time
	firstSent   int64  // when the segment that was acknowledged last had been sent: C.first_send_time
	// until delivered passes it, what is acknowledged was sent when there was no more to send; 0:
	// there was more
	appUntil uint64
	lost     uint64 // bytes found lost so far

	// The sample of the acknowledgment in hand.
	any            bool
	appSample      bool
	flight         int
	priorDelivered uint64
	priorLost      uint64
	priorAt        int64
	sentAt         int64
	end            Seq
	sendElapsed    int64

	last    int64 // bytes a second: the last good sample, for Info
	lastApp bool
}

// restart begins a flight: the pipe was empty.
func (r *rateState) restart(now int64) { r.firstSent, r.deliveredAt = now, now }

// stamp notes in a span that is being sent what has been delivered so far.
func (r *rateState) stamp(sp *span) {
	sp.firstSent, sp.deliveredAt, sp.delivered, sp.lost = r.firstSent, r.deliveredAt, r.delivered, r.lost
	sp.flags &^= spanApp
	if r.appUntil != 0 {
		sp.flags |= spanApp
	}
}

// appLimited notes that there is nothing to send for the rest of the window.
func (r *rateState) appLimited(flight int) { r.appUntil = max(r.delivered+uint64(flight), 1) }

// deliver counts n bytes of a span that has just been acknowledged, in order or selectively. The
// sample is that of the span that was sent last.
func (r *rateState) deliver(sp *span, n int, now int64) {
	if sp.deliveredAt == 0 {
		return
	}
	r.delivered += uint64(n)
	r.deliveredAt = now
	// 4.1.2.3, IsNewestPacket: "P.send_time > C.first_send_time or (P.send_time = C.first_send_time
	// and after(P.end_seq, RS.last_end_seq))".
	same := sp.delivered == r.priorDelivered && after(sp.sent, sp.end, r.sentAt, r.end)
	if !r.any || sp.delivered > r.priorDelivered || same {
		r.any = true
		r.priorDelivered, r.priorAt, r.priorLost = sp.delivered, sp.deliveredAt, sp.lost
		r.appSample = sp.has(spanApp)
		r.sentAt, r.end, r.sendElapsed = sp.sent, sp.end, sp.sent-sp.firstSent
		r.flight = int(sp.flight)
		r.firstSent = sp.sent
	}
}

// sample returns the sample of the acknowledgment in hand, if there is one.
func (r *rateState) sample(now, minRTT int64) (rs RateSample) {
	if r.appUntil != 0 && r.delivered > r.appUntil {
		r.appUntil = 0
	}
	if !r.any {
		return rs
	}
	r.any = false
	rs.Delivered = int(r.delivered - r.priorDelivered)
	rs.Interval = max(r.sendElapsed, now-r.priorAt)
	rs.PriorDelivered, rs.Flight = r.priorDelivered, r.flight
	rs.Lost, rs.AppLimited = int(r.lost-r.priorLost), r.appSample
	// "Normally we expect interval >= MinRTT. Note that rate may still be over-estimated when a
	// spuriously retransmitted skb was first (s)acked because interval is under-estimated up to an
	// RTT": such a sample has no rate.
	if rs.Interval <= 0 || minRTT != never && rs.Interval < minRTT {
		rs.Delivered, rs.Interval = 0, 0
		return rs
	}
	rate := int64(float64(rs.Delivered) * 1e9 / float64(rs.Interval))
	if !rs.AppLimited || rate >= r.last {
		r.last, r.lastApp = rate, rs.AppLimited
	}
	return rs
}
