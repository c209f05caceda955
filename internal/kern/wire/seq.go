package wire

// A Seq is a TCP sequence number; comparisons are modulo 2^32 (RFC 9293, 3.4).
type Seq uint32

// Lt, Leq, Gt and Geq are BSD's SEQ_LT, SEQ_LEQ, SEQ_GT and SEQ_GEQ.
func (a Seq) Lt(b Seq) bool  { return int32(a-b) < 0 }
func (a Seq) Leq(b Seq) bool { return int32(a-b) <= 0 }
func (a Seq) Gt(b Seq) bool  { return int32(a-b) > 0 }
func (a Seq) Geq(b Seq) bool { return int32(a-b) >= 0 }

// Sub returns the distance from b to a, negative where a lies before b.
func (a Seq) Sub(b Seq) int { return int(int32(a - b)) }

// Add returns the sequence number n bytes on.
func (a Seq) Add(n int) Seq { return a + Seq(n) }

// Max returns the later of the two.
func (a Seq) Max(b Seq) Seq {
	if a.Lt(b) {
		return b
	}
	return a
}

// Min returns the earlier of the two.
func (a Seq) Min(b Seq) Seq {
	if a.Gt(b) {
		return b
	}
	return a
}
