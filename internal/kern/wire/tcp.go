package wire

import (
	"encoding/binary"
	"strings"
)

// Flags of a TCP header, under BSD's names (RFC 9293, 3.1; RFC 3168).
type Flags uint8

// The bits of Flags.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PUSH
	ACK
	URG
	ECE
	CWR
)

// flagChars are the flags' letters, from FIN up.
const flagChars = "FSRP.UEW"

// String prints the flags as tcpdump and packetdrill do: "S.", "P.", "FP.", "R", ".".
func (f Flags) String() string {
	if f == 0 {
		return "-"
	}
	var b strings.Builder
	for i, c := range flagChars {
		if f&(1<<i) != 0 {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// Lengths of a TCP header.
const (
	TCPMinLen    = 20
	TCPMaxLen    = 60
	TCPMaxOptLen = 40
)

// TCPSumOff is where the checksum lies in a TCP header.
const TCPSumOff = 16

// A SackBlock is one block of a SACK option: bytes [Left, Right) have arrived (RFC 2018).
type SackBlock struct{ Left, Right Seq }

// MaxSack is the most SACK blocks that fit in the options of one segment.
const MaxSack = 4

// OptFlags says which options are present in Options, under BSD's TOF_ names.
type OptFlags uint8

// The bits of OptFlags.
const (
	TofMSS OptFlags = 1 << iota
	TofScale
	TofSackperm
	TofTS
	TofSack
)

// Options are the TCP options that the stack understands.
type Options struct {
	Has    OptFlags
	Scale  uint8 // shift count, at most 14 (RFC 7323, 2.3)
	Nsack  uint8
	MSS    uint16
	TSVal  uint32
	TSEcr  uint32
	Blocks [MaxSack]SackBlock
}

// Option kinds (IANA).
const (
	optEOL      = 0
	optNOP      = 1
	optMSS      = 2
	optScale    = 3
	optSackperm = 4
	optSack     = 5
	optTS       = 8

	maxScale = 14
)

// TCP is a TCP header in host terms.
type TCP struct {
	Sport, Dport uint16
	Seq, Ack     Seq
	Hlen         int // header length with options, bytes
	Flags        Flags
	Win          uint16
	Urp          uint16
	Opt          Options
}

// ParseTCP reads the header at the start of p into th. It checks all lengths, and passes over
// options that are unknown, repeated, cut short or malformed (RFC 9293, MUST-6 and MUST-7). The
// caller verifies the checksum.
func ParseTCP(p []byte, th *TCP) error {
	if len(p) < TCPMinLen {
		return ErrShort
	}
	hlen := int(p[12]>>4) * 4
	if hlen < TCPMinLen {
		return ErrLength
	}
	if len(p) < hlen {
		return ErrShort
	}
	th.Sport = binary.BigEndian.Uint16(p)
	th.Dport = binary.BigEndian.Uint16(p[2:])
	th.Seq = Seq(binary.BigEndian.Uint32(p[4:]))
	th.Ack = Seq(binary.BigEndian.Uint32(p[8:]))
	th.Hlen = hlen
	th.Flags = Flags(p[13])
	th.Win = binary.BigEndian.Uint16(p[14:])
	th.Urp = binary.BigEndian.Uint16(p[18:])
	th.Opt.Has = 0
	th.Opt.Nsack = 0
	if hlen > TCPMinLen {
		dooptions(p[TCPMinLen:hlen], th.Flags&SYN != 0, &th.Opt)
	}
	return nil
}

// dooptions parses options: BSD's tcp_dooptions. MSS, window scale and SACK-permitted count only on
// a SYN. If an option is repeated, the first one counts.
func dooptions(p []byte, syn bool, o *Options) {
	for len(p) > 0 {
		switch p[0] {
		case optEOL:
			return
		case optNOP:
			p = p[1:]
			continue
		}
		if len(p) < 2 {
			return
		}
		n := int(p[1])
		if n < 2 || n > len(p) {
			return
		}
		o.option(p[0], p[2:n], syn)
		p = p[n:]
	}
}

func (o *Options) option(kind uint8, v []byte, syn bool) {
	first := func(f OptFlags) bool {
		if o.Has&f != 0 {
			return false
		}
		o.Has |= f
		return true
	}
	switch {
	case kind == optMSS && len(v) == 2 && syn && first(TofMSS):
		o.MSS = binary.BigEndian.Uint16(v)
	case kind == optScale && len(v) == 1 && syn && first(TofScale):
		o.Scale = min(v[0], maxScale) // RFC 7323, 2.3: "MUST be limited to 14"
	case kind == optSackperm && len(v) == 0 && syn:
		first(TofSackperm)
	case kind == optTS && len(v) == 8 && first(TofTS):
		o.TSVal = binary.BigEndian.Uint32(v)
		o.TSEcr = binary.BigEndian.Uint32(v[4:])
	case kind == optSack && len(v) > 0 && len(v)%8 == 0 && len(v)/8 <= MaxSack && !syn && first(TofSack):
		o.Nsack = uint8(len(v) / 8)
		for i := range int(o.Nsack) {
			o.Blocks[i] = SackBlock{
				Seq(binary.BigEndian.Uint32(v[8*i:])),
				Seq(binary.BigEndian.Uint32(v[8*i+4:])),
			}
		}
	}
}

// Put writes the options into p, which holds TCPMaxOptLen bytes, in BSD's order and padding
// (tcp_addoptions), and returns their length, a multiple of 4. SACK blocks that do not fit are left
// out.
func (o *Options) Put(p []byte) int {
	n := 0
	nop := func() { p[n] = optNOP; n++ }
	if o.Has&TofMSS != 0 {
		p[n], p[n+1] = optMSS, 4
		binary.BigEndian.PutUint16(p[n+2:], o.MSS)
		n += 4
	}
	if o.Has&TofScale != 0 {
		nop()
		p[n], p[n+1], p[n+2] = optScale, 3, o.Scale
		n += 3
	}
	if o.Has&TofSackperm != 0 {
		p[n], p[n+1] = optSackperm, 2
		n += 2
	}
	if o.Has&TofTS != 0 {
		for n%4 != 2 {
			nop()
		}
		p[n], p[n+1] = optTS, 10
		binary.BigEndian.PutUint32(p[n+2:], o.TSVal)
		binary.BigEndian.PutUint32(p[n+6:], o.TSEcr)
		n += 10
	}
	if o.Has&TofSack != 0 && o.Nsack > 0 && n+4+8 <= TCPMaxOptLen {
		for n%4 != 2 {
			nop()
		}
		k := min(int(o.Nsack), (TCPMaxOptLen-n-2)/8)
		p[n], p[n+1] = optSack, uint8(2+8*k)
		n += 2
		for _, b := range o.Blocks[:k] {
			binary.BigEndian.PutUint32(p[n:], uint32(b.Left))
			binary.BigEndian.PutUint32(p[n+4:], uint32(b.Right))
			n += 8
		}
	}
	for n%4 != 0 {
		p[n] = optEOL
		n++
	}
	return n
}

// Put writes the header with its options into p, which holds TCPMaxLen bytes, and returns its
// length, which it also sets in th.Hlen. The checksum field is zero.
func (th *TCP) Put(p []byte) int {
	n := TCPMinLen
	if th.Opt.Has != 0 {
		n += th.Opt.Put(p[TCPMinLen:])
	}
	th.Hlen = n
	binary.BigEndian.PutUint16(p, th.Sport)
	binary.BigEndian.PutUint16(p[2:], th.Dport)
	binary.BigEndian.PutUint32(p[4:], uint32(th.Seq))
	binary.BigEndian.PutUint32(p[8:], uint32(th.Ack))
	p[12] = uint8(n/4) << 4
	p[13] = uint8(th.Flags)
	binary.BigEndian.PutUint16(p[14:], th.Win)
	p[TCPSumOff], p[TCPSumOff+1] = 0, 0
	binary.BigEndian.PutUint16(p[18:], th.Urp)
	return n
}
