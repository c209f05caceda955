package tcp

import (
	"testing"
	"time"
)

// What routers say of the MTU of the path: RFC 1191, RFC 5927. Black holes are in
// path_blackhole_test.go.

// RFC 1191, 6.5: a packet that was too large "MUST NOT change the congestion window": it is sent
// again at once in smaller pieces, and what was small enough is not. RFC 1191, 6.3: after ten
// minutes a larger size is tried again.
func TestMtudiscBelieved(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.append(3000)
		k.append(500)
		k.tp.Output(k.now)
		k.during(50e6, segs(1, 3)+" 3001:3501")
		k.tp.Mtudisc(840, k.now)
		k.check()
		k.during(49e6, "1:801 801:1601 1601:2401 2401:3001")
		k.want("ca", Open)
		k.want("cwnd", 10000)
		k.want("ssthresh", infinite)
		k.want("maxseg", 800)
		k.ack(3501)
		k.want("ca", Open)
		if c := k.tp.snr.ctl.Cwnd; c < 10000 {
			t.Fatalf("cwnd is %d", c)
		}
		k.now += int64(10*time.Minute) - 60*ms
		k.write(2000)
		k.during(100e6, "3501:4301 4301:5101 5101:5501")
		k.ack(5501)
		k.write(2000)
		k.during(100e6, "5501:6501 6501:7301 7301:7501")
		k.want("maxseg", 800)
		k.ack(6501)
		k.want("maxseg", 1000)
		k.ack(7501)
	})
}

// RFC 5927, 7.2: if larger segments have been acknowledged since, the message may be forged; it
// waits until the data that it speaks of is found missing by the time-out, and is forgotten if that
// arrives.
func TestMtudiscDoubted(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(3000)
		k.during(100e6, segs(1, 3))
		k.ack(3001)
		k.write(3000)
		k.during(50e6, segs(3001, 3))
		k.tp.Mtudisc(840, k.now)
		k.during(50e6, "")
		k.want("maxseg", 1000)
		k.ack(4001)
		k.want("maxseg", 1000)
		k.during(time.Second, "5001:6001 4001:4801") // the tail's probe, and the time-out
		k.want("maxseg", 800)
		k.ack(6001)

		k = sending(t)
		k.write(3000)
		k.during(100e6, segs(1, 3))
		k.ack(3001)
		k.write(3000)
		k.during(50e6, segs(3001, 3))
		k.tp.Mtudisc(840, k.now)
		k.during(50e6, "")
		k.ack(6001)
		k.write(3000)
		k.during(time.Second, segs(6001, 3)+" 8001:9001 6001:7001")
		k.want("ca", Timeout)
		k.want("maxseg", 1000)
		k.ack(9001)
	})
}

// What waits to be believed is forgotten two gigabytes later too, and never raises what the user
// has set meanwhile (TCP_MAXSEG).
func TestMtudiscForgotten(t *testing.T) {
	each(t, func(t *T) {
		for _, user := range []bool{false, true} {
			k := sending(t)
			k.write(3000)
			k.during(100e6, segs(1, 3))
			k.ack(3001)
			k.write(3000)
			k.during(100e6, segs(3001, 3))
			k.tp.Mtudisc(840, k.now)
			if user {
				k.tp.SetMaxseg(500)
				k.check()
				k.collect(time.Second)
				k.want("maxseg", 500)
				continue
			}
			k.ack(6001)
			if k.tp.snr.pmtu.said != 0 {
				t.Fatal("what ICMP said of data that has arrived is still waited for")
			}
		}
	})
}

// RFC 8899, 4.3, RFC 4821, 7.6: the larger size may come back while the window is small: it is
// still a segment at least.
func TestMTUProbeIntoSmallWindow(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t, withCC("newreno"))
		k.append(1000)
		k.tp.Output(k.now)
		k.collect(0)
		k.tp.Mtudisc(300, k.now)
		k.collect(100e6)
		k.want("maxseg", 260)
		k.ack(1001)
		k.tp.snr.pmtu.raiseAt = k.now
		k.write(2000)
		k.collect(100e6)
		k.tp.snr.ctl.Cwnd, k.tp.snr.ctl.Ssthresh = 520, 520 // as after another loss
		k.acked(2001)
		k.want("maxseg", 1000)
		if c := k.tp.snr.ctl; c.Cwnd < 1000 || c.Ssthresh < 2000 {
			t.Fatalf("window %d, threshold %d", c.Cwnd, c.Ssthresh)
		}
		k.collect(100e6)
		k.acked(3001)
		k.write(3000)
		if k.collect(0) == "" {
			t.Fatal("the window holds no segment")
		}
	})
}

// RFC 1191, 6.3, for a message that is believed only when the time-out has found the data that it
// quotes missing: for ten minutes no segment is larger than the message says. Then one is tried,
// and when it has arrived, all are larger.
func TestMTUBelievedLateIsKept(t *testing.T) {
	each(t, func(t *T) {
		k := sending(t)
		k.write(5000)
		k.collect(100e6)
		k.acked(5001)
		k.write(3000)
		k.collect(0)
		k.tp.Mtudisc(540, k.now)
		k.want("maxseg", 1000) // larger ones have arrived
		for k.tp.maxseg == 1000 {
			k.now = k.tp.Next()
			k.tp.Timeout(k.now)
			k.check()
		}
		k.want("maxseg", 500)
		believed := k.now
		k.sent = nil
		end := 8001
		k.acked(end)
		largest := func() (n int) {
			k.write(2000)
			end += 2000
			for range 20 { // the pacer's trains
				for _, p := range k.sent {
					n = max(n, p.len)
				}
				k.sent = nil
				if k.tp.Next() > k.now+20*ms {
					break
				}
				k.now = k.tp.Next()
				k.tp.Timeout(k.now)
			}
			k.now += 100 * ms
			k.acked(end)
			return n
		}
		for k.now < believed+holeAge-2*sec {
			if n := largest(); n > 500 {
				k.fatalf("%d bytes in a segment after %v", n, time.Duration(k.now-believed))
			}
			k.collect(time.Minute - 2*time.Second)
		}
		k.now = max(k.now, believed+holeAge)
		if n := largest(); n != 1000 {
			k.fatalf("after ten minutes a segment of %d is tried, want 1000", n)
		}
		k.want("maxseg", 1000)
	})
}
