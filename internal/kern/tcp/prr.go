package tcp

// prr is proportional rate reduction: RFC 9937. While losses are repaired it lets out as much as
// has been delivered, scaled so that the flight comes down to ssthresh when all is done, and, if
// the flight has fallen below that by itself, grows back to it.
type prr struct {
	delivered int // bytes delivered since recovery began: prr_delivered
	out       int // bytes sent since then: prr_out
	flight    int // bytes in flight when it began: RecoverFS
}

// enter begins a reduction with flight bytes in the network.
func (p *prr) enter(flight int) { *p = prr{flight: max(flight, 1)} }

// window returns the congestion window after an acknowledgment that has delivered n bytes. safe
// says that it has found nothing lost and has moved the left edge: RFC 9937's SafeACK.
func (p *prr) window(flight, ssthresh, n, mss int, safe bool) int {
	p.delivered += n
	var sndcnt int
	if flight > ssthresh {
		// "sndcnt = CEIL(prr_delivered * ssthresh / RecoverFS) - prr_out"
		sndcnt = int((int64(p.delivered)*int64(ssthresh)+int64(p.flight)-1)/int64(p.flight)) - p.out
	} else {
		// "PRR-CRB by default": conservative, no more than has been delivered; "PRR-SSRB when
		// recovery is in good progress".
		sndcnt = max(p.delivered-p.out, n)
		if safe {
			sndcnt += mss
		}
		// "Attempt to catch up, but never exceed ssthresh."
		sndcnt = min(ssthresh-flight, sndcnt)
	}
	if p.out == 0 && sndcnt < mss {
		// "Force a fast retransmit upon entering recovery."
		sndcnt = mss
	}
	return flight + max(sndcnt, 0)
}
