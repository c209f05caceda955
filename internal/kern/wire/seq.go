package wire

// A Seq is a TCP sequence number. Comparisons are modulo 2^32 (RFC 9293, 3.4).
type Seq uint32

// Lt reports whether a lies before b: BSD's SEQ_LT.
func (a Seq) Lt(b Seq) bool { return int32(a-b) < 0 }

// Leq reports whether a does not lie after b: BSD's SEQ_LEQ.
func (a Seq) Leq(b Seq) bool { return int32(a-b) <= 0 }

// Gt reports whether a lies after b: BSD's SEQ_GT.
func (a Seq) Gt(b Seq) bool { return int32(a-b) > 0 }

// Geq reports whether a does not lie before b: BSD's SEQ_GEQ.
func (a Seq) Geq(b Seq) bool { return int32(a-b) >= 0 }

// Sub returns the distance from b to a, negative if a lies before b.
func (a Seq) Sub(b Seq) int { return int(int32(a - b)) }

// Add returns the sequence number of the byte n bytes after a.
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
