package tcp

import (
	"testing"
)

// Samples of the delivery rate: draft-ietf-ccwg-bbr, 4.1.

// A spy is a controller that notes the samples that it is given.
type spy struct {
	CC
	acks  []Ack
	views []View
}

func (s *spy) Acked(v *View, a *Ack, c *Control) {
	s.acks, s.views = append(s.acks, *a), append(s.views, *v)
	s.CC.Acked(v, a, c)
}

// spied makes the connection tell what its controller is told. It has sent and had acknowledged a
// segment.
func spied(t *T, opts ...any) (*kit, *spy) {
	k := sending(t, append([]any{withCC("bbr")}, opts...)...)
	k.write(1000)
	k.collect(100e6)
	k.ack(1001)
	s := &spy{CC: k.tp.snr.cc}
	k.tp.snr.cc = s
	return k, s
}

func (s *spy) last() Ack { return s.acks[len(s.acks)-1] }

// 4.1.2.3: "delivery_rate = data_acked / delivery_interval", over "MAX(send_elapsed, ack_elapsed)"
// of the flight of the segment that was sent last.
func TestRateSample(t *testing.T) {
	each(t, func(t *T) {
		k, s := spied(t)
		k.write(5000)
		k.collect(100e6)
		k.ack(3001)
		if r := s.last().Rate; r.Delivered != 2000 || r.Interval != 100*ms || r.PriorDelivered != 1000 ||
			r.Flight != 2000 {
			t.Fatalf("sample %+v", r)
		}
		k.advance(50e6)
		k.ack(6001) // three more, 50 ms later: five in 150 ms
		if r := s.last().Rate; r.Delivered != 5000 || r.Interval != 150*ms || r.PriorDelivered != 1000 ||
			r.Flight != 5000 {
			t.Fatalf("sample %+v", r)
		}
		if r := k.tp.Info().DeliveryRate; r != 5000*1000/150 {
			t.Fatalf("delivery rate %d", r)
		}
		if v := s.views[len(s.views)-1]; v.Delivered != 6000 || v.PriorFlight != 3000 || v.Flight != 0 {
			t.Fatalf("view %+v", v)
		}
	})
}

// 4.1.1.3: "the send rate should provide an upper bound": what was sent slowly and acknowledged at
// once was delivered at the rate at which it was sent.
func TestRateSendElapsed(t *testing.T) {
	each(t, func(t *T) {
		k, s := spied(t)
		k.write(1000)
		k.collect(60e6)
		k.write(1000)
		k.collect(40e6)
		k.ack(2001)
		k.write(1000)
		k.collect(95e6)
		k.ack(4001) // what was sent in 100 ms is acknowledged in 95
		if r := s.last().Rate; r.Delivered != 2000 || r.Interval != 100*ms {
			t.Fatalf("sample %+v", r)
		}
		k.write(1000)
		k.collect(90e6)
		k.write(1000)
		k.collect(5e6)
		k.ack(5001)
		k.write(1000)
		k.collect(85e6)
		k.ack(7001) // 95 ms after the one before it was sent, and acknowledged in 85
		if r := s.last().Rate; r.Delivered != 2000 || r.Interval != 95*ms {
			t.Fatalf("sample %+v", r)
		}
	})
}

// A chain that is acknowledged piece by piece is one flight, whose stamp all pieces have.
func TestRateOfChain(t *testing.T) {
	each(t, func(t *T) {
		k, s := spied(t, "tso 65000")
		k.write(8000)
		k.during(100e6, "1001:3001 3001:5001 5001:7001 7001:9001") // trains
		k.ack(1001, "3001:5001")
		if r := s.last().Rate; r.Delivered != 2000 || r.Interval != 100*ms || r.PriorDelivered != 1000 {
			t.Fatalf("sample %+v", r)
		}
		k.advance(10e6)
		k.ack(2001, "3001:5001")
		if r := s.last().Rate; r.Delivered != 3000 || r.Interval != 110*ms || r.PriorDelivered != 1000 {
			t.Fatalf("sample %+v", r)
		}
		k.ack(9001)
		if r := s.last().Rate; r.Delivered != 8000 || s.last().Delivered != 5000 {
			t.Fatalf("sample %+v", r)
		}
		if d := k.tp.snr.rate.delivered; d != 9000 {
			t.Fatalf("%d bytes delivered, want 9000", d)
		}
		k.collect(0)
	})
}

// 4.1.2.4: samples of a flight during which there was nothing more to send are marked, "until the
// application-limited flight has passed".
func TestRateAppLimited(t *testing.T) {
	each(t, func(t *T) {
		k, s := spied(t)
		k.write(3000)
		k.collect(100e6)
		k.ack(4001)
		if r := s.last().Rate; !r.AppLimited {
			t.Fatalf("sample %+v of a sender that had nothing to send", r)
		}
		k.write(100000)
		k.collect(99e6)
		if !k.tp.Info().DeliveryApp {
			t.Fatal("the rate in Info is not marked")
		}
		k.collect(1e6)
		at := 4001
		first := k.tp.sndMax.Sub(t.iss) // what was sent before anything of it had been delivered is part of that flight
		for at < first {
			at += 1000
			k.acked(at)
			k.collect(5e6)
			if r := s.last().Rate; r.Delivered > 0 && !r.AppLimited {
				t.Fatalf("the sample %+v of what followed an empty pipe is not marked", r)
			}
		}
		for range 5 {
			at += 1000
			k.acked(at)
			k.collect(5e6)
			if r := s.last().Rate; r.Delivered > 0 && r.AppLimited {
				t.Fatalf("the sample %+v of a sender with a full window is marked", r)
			}
		}
	})
}

// 4.1.2.3: "if (RS.interval < C.min_rtt) RS.has_data = false": an acknowledgment that comes earlier
// than any can is that of an original, or forged.
func TestRateTooShort(t *testing.T) {
	for _, c := range []struct{ now, minRTT, want int64 }{{99, 100, 0}, {100, 100, 100}, {99, never, 99},
		{0, never, 0}} {
		var r rateState
		r.restart(sec)
		sp := span{start: 1, end: 1001, sent: sec}
		r.stamp(&sp)
		r.deliver(&sp, 1000, sec+c.now)
		if rs := r.sample(sec+c.now, c.minRTT); rs.Interval != c.want || (rs.Delivered == 1000) != (c.want > 0) ||
			(r.last > 0) != (c.want > 0) {
			t.Errorf("after %d of %d: sample %+v, rate %d", c.now, c.minRTT, rs, r.last)
		}
	}
}

// What was found lost since is in the sample as well.
func TestRateLost(t *testing.T) {
	each(t, func(t *T) {
		k, s := spied(t)
		k.write(10000)
		k.collect(100e6)
		k.acked(1001, "3001:7001")
		if r := s.last().Rate; r.Lost != 2000 || s.last().Lost != 2000 {
			t.Fatalf("sample %+v", s.last())
		}
		if v := s.views[len(s.views)-1]; v.Lost != 2000 || !v.InRecovery {
			t.Fatalf("view %+v", v)
		}
		k.collect(0)
	})
}
