// Package trace is the textual form of a TCP segment, tcpdump's and packetdrill's, in which tests
// write what they send and what they expect:
//
//	S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 1 ecr 0>
//	P. 1:6(5) ack 1 win 1027 <nop,nop,TS val 5 ecr 3,nop,nop,sack 200:300 400:500>
//	FP.U 6:6(0) ack 1 win 1027 urg 3
//
// Flags come first ("-" if there are none); of the rest a line gives what it wants, in any order.
// Sequence numbers are relative to the sender's initial one, acknowledgments and SACK blocks to the
// receiver's. The window is the field, not scaled. Options are the bytes on the wire, nop and eol
// included; 0x1e02 stands for bytes that have no other form: options that are unknown, malformed or
// cut, and whatever is not zero behind an eol.
package trace

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bsdnet/internal/kern/wire"
)

// Option kinds (IANA).
const (
	optEOL      = 0
	optNOP      = 1
	optMSS      = 2
	optScale    = 3
	optSackperm = 4
	optSack     = 5
	optTS       = 8
)

// flagChars are the letters of the flags, from FIN up, as wire.Flags prints them.
const flagChars = "FSRP.UEW"

// Given says which fields of a Line its line has. The flags always are.
type Given uint8

// The bits of Given.
const (
	GivenSeq Given = 1 << iota // and the length
	GivenAck
	GivenWin
	GivenUrg
	GivenOpt // "<>" if there must be none
)

// A Line is a segment in the textual form. To compare a segment with what a script expects, set
// got.Given = want.Given and compare the Strings.
type Line struct {
	TCP   wire.TCP // sequence numbers are relative
	Len   int      // payload bytes
	Raw   []byte   // the options, exactly as written; SACK blocks are relative
	Given Given
}

// Format returns the textual form of a segment with header th, its options laid out as Put does,
// and n bytes of payload. isn is the initial sequence number of the sender, peerIsn that of the
// receiver; 0 prints absolute numbers.
func Format(th *wire.TCP, n int, isn, peerIsn wire.Seq) string {
	var p [wire.TCPMaxLen]byte
	h := *th // Put sets Hlen
	tr, _ := Of(p[:h.Put(p[:])], n, isn, peerIsn)
	if len(tr.Raw) == 0 {
		tr.Given &^= GivenOpt
	}
	return tr.String()
}

// Of reads the header at the start of p, with its options as they stand there; the segment has n
// bytes of payload.
func Of(p []byte, n int, isn, peerIsn wire.Seq) (tr Line, err error) {
	if err := wire.ParseTCP(p, &tr.TCP); err != nil {
		return tr, err
	}
	tr.Len = n
	tr.Given = GivenSeq | GivenWin | GivenOpt
	tr.TCP.Seq -= isn
	if tr.TCP.Flags&wire.ACK != 0 {
		tr.Given |= GivenAck
		tr.TCP.Ack -= peerIsn
	}
	if tr.TCP.Flags&wire.URG != 0 {
		tr.Given |= GivenUrg
	}
	tr.setRaw(shiftSack(p[wire.TCPMinLen:tr.TCP.Hlen], -peerIsn))
	return tr, nil
}

// setRaw makes raw the options.
func (tr *Line) setRaw(raw []byte) {
	tr.Raw = raw
	tr.TCP.Hlen = wire.TCPMinLen + len(raw)
	// Package wire reads options as a part of a header, so they get one.
	var p [wire.TCPMaxLen]byte
	p[12] = uint8(tr.TCP.Hlen/4) << 4
	p[13] = uint8(tr.TCP.Flags)
	copy(p[wire.TCPMinLen:], raw)
	var th wire.TCP
	if err := wire.ParseTCP(p[:tr.TCP.Hlen], &th); err != nil {
		panic(err) // raw is no longer than 40 bytes, and a multiple of 4
	}
	tr.TCP.Opt = th.Opt
}

// Put writes the header, with the options exactly as they were written, into p, which holds
// TCPMaxLen bytes, and returns its length. The checksum field is zero, and so are the ports unless
// tr.TCP has been given some.
func (tr *Line) Put(p []byte, isn, peerIsn wire.Seq) int {
	th := tr.TCP
	th.Opt = wire.Options{}
	th.Seq += isn
	if th.Flags&wire.ACK != 0 {
		th.Ack += peerIsn
	}
	th.Put(p)
	n := wire.TCPMinLen + copy(p[wire.TCPMinLen:wire.TCPMaxLen], shiftSack(tr.Raw, peerIsn))
	p[12] = uint8(n/4) << 4
	return n
}

// String prints the flags and the fields that are given.
func (tr Line) String() string {
	var b strings.Builder
	b.WriteString(tr.TCP.Flags.String())
	if tr.Given&GivenSeq != 0 {
		fmt.Fprintf(&b, " %d:%d(%d)", tr.TCP.Seq, tr.TCP.Seq.Add(tr.Len), tr.Len)
	}
	if tr.Given&GivenAck != 0 {
		fmt.Fprintf(&b, " ack %d", tr.TCP.Ack)
	}
	if tr.Given&GivenWin != 0 {
		fmt.Fprintf(&b, " win %d", tr.TCP.Win)
	}
	if tr.Given&GivenUrg != 0 {
		fmt.Fprintf(&b, " urg %d", tr.TCP.Urp)
	}
	if tr.Given&GivenOpt != 0 {
		b.WriteString(" <" + FormatOptions(tr.Raw, 0) + ">")
	}
	return b.String()
}

// Parse reads a line of the textual form. Fields that it does not give are zero.
func Parse(line string) (Line, error) {
	var tr Line
	if err := tr.parse(line); err != nil {
		return Line{}, fmt.Errorf("trace: %q: %w", line, err)
	}
	return tr, nil
}

func (tr *Line) parse(line string) (err error) {
	rest, opts, bracket := strings.Cut(line, "<")
	words := strings.Fields(rest)
	if len(words) == 0 {
		return errors.New("no flags")
	}
	if tr.TCP.Flags, err = parseFlags(words[0]); err != nil {
		return err
	}
	for words = words[1:]; len(words) > 0; {
		if words, err = tr.parseField(words); err != nil {
			return err
		}
	}
	// A line that forgets a dot would otherwise test something else than it says.
	if f := tr.TCP.Flags; tr.Given&GivenAck != 0 && f&wire.ACK == 0 || tr.Given&GivenUrg != 0 && f&wire.URG == 0 {
		return errors.New("ack or urg without its flag")
	}
	var raw []byte
	if bracket {
		tr.Given |= GivenOpt
		if raw, err = parseBracket(opts); err != nil {
			return err
		}
	}
	tr.setRaw(raw)
	return nil
}

// parseField reads the field that words begin with, which the line must not have given before. It
// returns the words behind it.
func (tr *Line) parseField(words []string) (rest []string, err error) {
	field, bits := GivenSeq, 32
	switch words[0] {
	case "ack":
		field = GivenAck
	case "win":
		field, bits = GivenWin, 16
	case "urg":
		field, bits = GivenUrg, 16
	}
	if tr.Given&field != 0 {
		return nil, fmt.Errorf("%q: given twice", words[0])
	}
	tr.Given |= field
	if field == GivenSeq {
		tr.TCP.Seq, tr.Len, err = parseRange(words[0])
		return words[1:], err
	}
	if len(words) < 2 {
		return nil, fmt.Errorf("%q wants a number", words[0])
	}
	v, err := strconv.ParseUint(words[1], 10, bits)
	if err != nil {
		return nil, err
	}
	switch field {
	case GivenAck:
		tr.TCP.Ack = wire.Seq(v)
	case GivenWin:
		tr.TCP.Win = uint16(v)
	default:
		tr.TCP.Urp = uint16(v)
	}
	return words[2:], nil
}

// parseBracket reads the options, which stand behind a < and end the line with a >.
func parseBracket(s string) ([]byte, error) {
	opts, end, closed := strings.Cut(s, ">")
	if !closed || strings.TrimSpace(end) != "" {
		return nil, errors.New("the options must end the line with >")
	}
	raw, err := ParseOptions(opts, 0)
	if err != nil {
		return nil, err
	}
	if len(raw) > wire.TCPMaxOptLen || len(raw)%4 != 0 {
		return nil, fmt.Errorf("options of %d bytes: want at most 40, padded by nop or eol to a multiple of 4",
			len(raw))
	}
	return raw, nil
}

func parseFlags(s string) (f wire.Flags, err error) {
	if s == "-" {
		return 0, nil
	}
	for _, c := range s {
		i := strings.IndexRune(flagChars, c)
		if i < 0 || f&(1<<i) != 0 {
			return 0, fmt.Errorf("flags %q", s)
		}
		f |= 1 << i
	}
	return f, nil
}

// parseRange reads "1:6(5)".
func parseRange(s string) (wire.Seq, int, error) {
	l, r, ok := strings.Cut(strings.TrimSuffix(s, ")"), ":")
	r, n, ok2 := strings.Cut(r, "(")
	start, err1 := strconv.ParseUint(l, 10, 32)
	end, err2 := strconv.ParseUint(r, 10, 32)
	length, err3 := strconv.ParseUint(n, 10, 31)
	if !ok || !ok2 || !strings.HasSuffix(s, ")") || errors.Join(err1, err2, err3) != nil {
		return 0, 0, fmt.Errorf("%q: want seq:end(length)", s)
	}
	if wire.Seq(start).Add(int(length)) != wire.Seq(end) {
		return 0, 0, fmt.Errorf("%q: the length contradicts the numbers", s)
	}
	return wire.Seq(start), int(length), nil
}

// optionLen returns the length of the option at the start of p, or 0 if it is cut or too short to
// be one.
func optionLen(p []byte) int {
	switch {
	case p[0] == optEOL || p[0] == optNOP:
		return 1
	case len(p) < 2 || p[1] < 2 || int(p[1]) > len(p):
		return 0
	}
	return int(p[1])
}

// shiftSack returns a copy of options, with d added to the numbers in SACK blocks.
func shiftSack(raw []byte, d wire.Seq) []byte {
	raw = slices.Clone(raw)
	for p := raw; len(p) > 0 && p[0] != optEOL; {
		n := optionLen(p)
		if n == 0 {
			break
		}
		for i := 2; p[0] == optSack && n%8 == 2 && i < n; i += 4 {
			binary.BigEndian.PutUint32(p[i:], binary.BigEndian.Uint32(p[i:])+uint32(d))
		}
		p = p[n:]
	}
	return raw
}

// FormatOptions returns the textual form of options, without brackets, with SACK numbers relative
// to base (0: absolute).
func FormatOptions(raw []byte, base wire.Seq) string {
	var out []string
	be := binary.BigEndian
	ended := false
	for p := shiftSack(raw, -base); len(p) > 0; {
		n := optionLen(p)
		if n == 0 || ended && p[0] != optEOL {
			out = append(out, "0x"+hex.EncodeToString(p))
			break
		}
		s := "0x" + hex.EncodeToString(p[:n])
		switch kind := p[0]; {
		case kind == optEOL:
			s, ended = "eol", true
		case kind == optNOP:
			s = "nop"
		case kind == optMSS && n == 4:
			s = fmt.Sprintf("mss %d", be.Uint16(p[2:]))
		case kind == optScale && n == 3:
			s = fmt.Sprintf("wscale %d", p[2])
		case kind == optSackperm && n == 2:
			s = "sackOK"
		case kind == optTS && n == 10:
			s = fmt.Sprintf("TS val %d ecr %d", be.Uint32(p[2:]), be.Uint32(p[6:]))
		case kind == optSack && n > 2 && n <= 2+8*wire.MaxSack && n%8 == 2:
			s = "sack"
			for i := 2; i < n; i += 8 {
				s += fmt.Sprintf(" %d:%d", be.Uint32(p[i:]), be.Uint32(p[i+4:]))
			}
		}
		out = append(out, s)
		p = p[n:]
	}
	return strings.Join(out, ",")
}

// ParseOptions is the inverse of FormatOptions: it returns the bytes, exactly those that are
// written.
func ParseOptions(s string, base wire.Seq) (raw []byte, err error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	for _, o := range strings.Split(s, ",") {
		w := strings.Fields(o)
		num := func(s string, bits int) (v uint64) {
			if err == nil {
				v, err = strconv.ParseUint(s, 10, bits)
			}
			return v
		}
		is := func(name string, words int) bool { return len(w) == words && w[0] == name }
		switch {
		case is("eol", 1):
			raw = append(raw, optEOL)
		case is("nop", 1):
			raw = append(raw, optNOP)
		case is("mss", 2):
			raw = binary.BigEndian.AppendUint16(append(raw, optMSS, 4), uint16(num(w[1], 16)))
		case is("wscale", 2):
			raw = append(raw, optScale, 3, uint8(num(w[1], 8)))
		case is("sackOK", 1):
			raw = append(raw, optSackperm, 2)
		case is("TS", 5) && w[1] == "val" && w[3] == "ecr":
			raw = binary.BigEndian.AppendUint32(append(raw, optTS, 10), uint32(num(w[2], 32)))
			raw = binary.BigEndian.AppendUint32(raw, uint32(num(w[4], 32)))
		case len(w) >= 2 && len(w) <= 1+wire.MaxSack && w[0] == "sack":
			raw = append(raw, optSack, uint8(2+8*(len(w)-1)))
			for _, block := range w[1:] {
				l, r, _ := strings.Cut(block, ":")
				raw = binary.BigEndian.AppendUint32(raw, uint32(num(l, 32)))
				raw = binary.BigEndian.AppendUint32(raw, uint32(num(r, 32)))
			}
		case len(w) == 1 && strings.HasPrefix(w[0], "0x"):
			var b []byte
			if b, err = hex.DecodeString(w[0][2:]); err == nil {
				raw = append(raw, b...)
			}
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, fmt.Errorf("option %q: %w", o, err)
		}
	}
	return shiftSack(raw, base), nil
}
