package tcp

import "math"

// RFC 9438's constants.
const (
	cubicBeta  = 0.7                                   // 4.6: "The parameter β_cubic SHOULD be set to 0.7"
	cubicC     = 0.4                                   // 5.1, segments/s³
	cubicAlpha = 3 * (1 - cubicBeta) / (1 + cubicBeta) // 4.3
)

// A cubicStage is the curve along which the window grows in one stage of congestion avoidance, from
// one reduction to the next. Windows are in bytes, as RFC 9438, 4.1 allows.
type cubicStage struct {
	wMax  float64 // W_max; 0: undefined
	k     float64 // K, seconds
	wEst  float64 // W_est: what Reno would have
	frac  float64 // of cwnd: growth that has not made a byte yet
	prior int     // cwnd_prior
	epoch int64   // t_epoch: when the stage began, less the time that does not count
	begun bool    // the stage has begun: k, wEst and epoch are set
}

// cubic is CUBIC, RFC 9438, with HyStart++ for the first slow start.
type cubic struct {
	h     hystart
	use   usage
	stage cubicStage
	since int64 // when the time ceased to count, if paused is set

	// RFC 9438, 4.9.2: what Undo goes back to, if undoCwnd is not 0.
	undo                   cubicStage
	undoCwnd, undoSsthresh int

	paused   bool // the window is not being used
	timedOut bool // the losses being repaired were found by the timer, so the window grows meanwhile
}

func (q *cubic) Init(v *View, c *Control) {
	c.Cwnd, c.Ssthresh = v.InitialWindow, infinite
}

func (q *cubic) OwnWindow() bool { return false }

func (q *cubic) Acked(v *View, a *Ack, c *Control) {
	if v.InRecovery && !q.timedOut {
		return // the window is proportional rate reduction's
	}
	n, used := a.Delivered, q.use.limited(v, c)
	if c.Cwnd < c.Ssthresh {
		// RFC 9438, 4.10: "CUBIC MUST employ a slow-start algorithm, when cwnd is no more
		// than ssthresh." RFC 3465, 2.3: "a TCP MUST use L=1*SMSS" after a time-out,
		// because an acknowledgment may cover what had arrived before it.
		limit := math.MaxInt
		if q.timedOut {
			limit = v.MSS
		}
		n = slowStart(&q.h, limit, used, v, a, c)
	}
	if c.Cwnd < c.Ssthresh || !used {
		// 4.2: "The elapsed time t MUST NOT include periods during which cwnd has not been
		// updated due to application-limited behavior".
		q.pause(v.Now)
		return
	}
	q.resume(v.Now)
	if !q.stage.begun {
		q.begin(v, c)
	}
	q.grow(v, c, n)
}

func (q *cubic) pause(now int64) {
	if !q.paused {
		q.paused, q.since = true, now
	}
}

func (q *cubic) resume(now int64) {
	if q.paused {
		q.paused = false
		q.stage.epoch += now - q.since
	}
}

// begin starts a stage of congestion avoidance at the present window.
func (q *cubic) begin(v *View, c *Control) {
	s := &q.stage
	cwnd := float64(c.Cwnd)
	s.epoch, s.begun = v.Now, true
	s.wEst = cwnd // 4.3: "W_est is set equal to cwnd_epoch at the start of the congestion avoidance stage."
	s.frac = 0
	if s.prior == 0 {
		s.prior = c.Cwnd // 4.10: without a loss, "CUBIC sets cwnd_prior = cwnd"
	}
	if s.wMax > cwnd {
		s.k = math.Cbrt((s.wMax - cwnd) / (cubicC * float64(v.MSS))) // 4.2, figure 2
		return
	}
	// 4.8 after a time-out and 4.10 after HyStart++: "K is set to 0, and W_max is set to the
	// congestion window size at the beginning of the current congestion avoidance stage." The
	// same is right if the window has outgrown W_max in slow start.
	s.k, s.wMax = 0, cwnd
}

// window returns W_cubic of a time after the stage began, in nanoseconds: 4.2, figure 1.
func (s *cubicStage) window(t int64, mss int) float64 {
	d := float64(t)/float64(sec) - s.k
	return cubicC*float64(mss)*d*d*d + s.wMax
}

// grow moves the window along the curve, for n bytes delivered.
func (q *cubic) grow(v *View, c *Control, n int) {
	s := &q.stage
	t, cwnd := v.Now-s.epoch, float64(c.Cwnd)

	// 4.3: "W_est = W_est + α_cubic * segments_acked / cwnd". "Once W_est has grown to reach
	// the cwnd at the time of most recently setting ssthresh -- that is, W_est >= cwnd_prior --
	// the sender SHOULD set α_cubic to 1".
	alpha := cubicAlpha
	if s.wEst >= float64(s.prior) {
		alpha = 1
	}
	s.wEst += alpha * float64(v.MSS) * float64(n) / cwnd

	// "CUBIC checks whether W_cubic(t) is less than W_est. If so, CUBIC is in the Reno-friendly
	// region and cwnd SHOULD be set to W_est at each reception of a new ACK."
	if s.window(t, v.MSS) < s.wEst {
		c.Cwnd = min(max(c.Cwnd, int(s.wEst)), maxCwnd)
		return
	}

	// 4.2: target is W_cubic(t + RTT), between cwnd and 1.5 * cwnd. 4.4 and 4.5: "In this
	// region, cwnd MUST be incremented by (target - cwnd) / cwnd for each received new ACK".
	target := min(max(s.window(t+v.SRTT, v.MSS), cwnd), 1.5*cwnd)
	s.frac += (target - cwnd) / cwnd * float64(n)
	whole := int(s.frac)
	s.frac -= float64(whole)
	c.Cwnd = min(c.Cwnd+whole, maxCwnd)
}

func (q *cubic) Congested(v *View, sig Signal, c *Control) {
	s := &q.stage
	q.resume(v.Now)
	q.undo, q.undoCwnd, q.undoSsthresh = *s, c.Cwnd, c.Ssthresh

	// 4.7, fast convergence: W_max is cwnd * (1 + β_cubic) / 2 "if cwnd < W_max and fast
	// convergence enabled, further reduce W_max", "otherwise, remember cwnd before reduction".
	cwnd := float64(c.Cwnd)
	if cwnd < s.wMax {
		s.wMax = cwnd * (1 + cubicBeta) / 2
	} else {
		s.wMax = cwnd
	}
	if sig == RTO {
		s.wMax = 0 // 4.8: it will be the window at the beginning of the stage that follows
	}
	s.prior, s.begun = c.Cwnd, false
	q.timedOut = sig == RTO

	// 4.6: "ssthresh = flight_size * β_cubic", "ssthresh is at least 2 MSS".
	c.Ssthresh = max(int(float64(flightSize(v, c))*cubicBeta), 2*v.MSS)
}

func (q *cubic) Undo(v *View, c *Control) {
	// 4.9.2: "In rare cases, when the detection happens long after a spurious loss event and
	// the current cwnd is already higher than cwnd_prior, CUBIC SHOULD continue to use the
	// current and the most recent values of these variables."
	if c.Cwnd <= q.undoCwnd {
		c.Cwnd, c.Ssthresh = q.undoCwnd, q.undoSsthresh
		q.stage = q.undo
		q.paused = false
	}
	q.undoCwnd = 0
	q.timedOut = false
}

func (q *cubic) Recovered(v *View, c *Control) {
	if !q.timedOut && q.undoCwnd != 0 {
		// RFC 6582, 3.2: a full acknowledgment deflates the window to ssthresh, unless that
		// has been taken back.
		c.Cwnd = min(c.Cwnd, c.Ssthresh)
	}
	q.timedOut = false
}

func (q *cubic) Restart(v *View, idle int64, c *Control) {
	q.pause(v.Now - idle)
	restart(v, idle, c)
}
