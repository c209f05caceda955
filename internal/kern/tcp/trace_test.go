package tcp

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"bsdnet/internal/kern/wire"
)

// A script has one segment a line, in tcpdump's notation:
//
//	[+time] > flags first:last(length) [ack n] [win n] [urg n] [segs n] [<options>] [// comment]
//
// ">" is due exactly then, and nothing else may be sent before it; "<" is what the peer sends.
// "+40ms" alone lets time pass in silence. What a ">" line does not name (ack, win, urg, options)
// is not compared, except for SACK blocks, which it must name. Sequence numbers are relative to the
// initial ones. If timestamps are agreed, "<" lines carry them without being told ("<nots>"
// leaves them out).

// trace runs a script. At its end nothing unclaimed may have been sent.
func (k *kit) trace(script string) {
	k.t.Helper()
	for _, line := range strings.Split(script, "\n") {
		k.line(line)
	}
	k.nothing()
}

// line runs one line of a script.
func (k *kit) line(line string) {
	k.t.Helper()
	line, _, _ = strings.Cut(line, "//")
	f := strings.Fields(line)
	if len(f) == 0 {
		return
	}
	if f[0][0] == '+' {
		d, err := time.ParseDuration(f[0][1:])
		if err != nil {
			k.fatalf("%q: %v", line, err)
		}
		k.advance(d)
		if f = f[1:]; len(f) == 0 {
			return
		}
	}
	switch f[0] {
	case ">":
		k.expect(line, f[1:])
	case "<":
		k.input(k.parsePkt(line, f[1:]))
	default:
		k.fatalf("bad line %q", line)
	}
}

// fields cuts a segment's words into its parts.
func (k *kit) fields(line string, f []string) (flags, seqs string, m map[string]int, opts string) {
	k.t.Helper()
	if i := strings.IndexByte(strings.Join(f, " "), '<'); i >= 0 {
		s := strings.Join(f, " ")
		opts = strings.Trim(s[i:], "<>")
		f = strings.Fields(s[:i])
		if opts == "" {
			opts = "none"
		}
	}
	if len(f) < 2 || len(f)%2 != 0 {
		k.fatalf("bad line %q", line)
	}
	m = map[string]int{}
	for i := 2; i < len(f); i += 2 {
		switch f[i] {
		case "ack", "win", "urg", "segs":
			m[f[i]] = k.atoi(f[i+1])
		default:
			k.fatalf("bad word %q in %q", f[i], line)
		}
	}
	return f[0], f[1], m, opts
}

// expect compares the next segment that was sent.
func (k *kit) expect(line string, f []string) {
	k.t.Helper()
	if len(k.sent) == 0 {
		k.fatalf("nothing sent, want %s", line)
	}
	p := k.sent[0]
	flags, seqs, m, opts := k.fields(line, f)
	got := k.string(p, true)
	bad := func(what string) { k.t.Helper(); k.fatalf("%s\n got > %s\nwant %s", what, got, line) }
	rel := p.th.Seq.Sub(k.t.iss)
	if p.at != k.now {
		bad("time")
	}
	if p.th.Flags.String() != flags {
		bad("flags")
	}
	if s := fmt.Sprintf("%d:%d(%d)", rel, rel+p.len, p.len); s != seqs {
		bad("sequence numbers")
	}
	if a, ok := m["ack"]; ok && (p.th.Flags&wire.ACK == 0 || p.th.Ack.Sub(k.t.irs) != a) {
		bad("ack")
	}
	if w, ok := m["win"]; ok && int(p.th.Win) != w {
		bad("window")
	}
	if u := m["urg"]; int(p.th.Urp) != u {
		bad("urgent pointer")
	}
	switch {
	case opts == "" && p.th.Opt.Has&wire.TofSack != 0:
		bad("SACK blocks")
	case opts == "none" && p.opts != "", opts != "" && opts != "none" && !sameOptions(p.opts, opts):
		bad("options")
	}
	k.sent = k.sent[1:]
}

// sameOptions compares printed options; "TS" alone stands for any timestamp.
func sameOptions(got, want string) bool {
	g, w := strings.Split(got, ","), strings.Split(want, ",")
	if len(g) != len(w) {
		return false
	}
	for i := range g {
		if g[i] != w[i] && !(w[i] == "TS" && strings.HasPrefix(g[i], "TS ")) {
			return false
		}
	}
	return true
}

// parsePkt makes the segment of a "<" line.
func (k *kit) parsePkt(line string, f []string) *pkt {
	k.t.Helper()
	flags, seqs, m, opts := k.fields(line, f)
	p := &pkt{at: k.now, segs: max(m["segs"], 1)}
	var first, last int
	if n, _ := fmt.Sscanf(seqs, "%d:%d(%d)", &first, &last, &p.len); n != 3 || last-first != p.len {
		k.fatalf("bad sequence numbers in %q", line)
	}
	p.th = wire.TCP{Sport: k.tp.Fport, Dport: k.tp.Lport, Flags: parseFlags(flags), Seq: k.t.irs.Add(first),
		Win: uint16(k.opts.win)}
	if w, ok := m["win"]; ok {
		p.th.Win = uint16(w)
	}
	if a, ok := m["ack"]; ok {
		p.th.Ack = k.t.iss.Add(a)
	} else if p.th.Flags&wire.ACK != 0 {
		k.fatalf("no ack in %q", line)
	}
	p.th.Urp = uint16(m["urg"])
	k.parseOptions(opts, &p.th)
	data := first - 1
	if p.th.Flags&wire.SYN != 0 {
		data++
	}
	p.data = make([]byte, p.len)
	for i := range p.data {
		p.data[i] = k.fill(data + i)
	}
	return p
}

// pkt makes a segment of the peer without a script; claim takes a bare segment that has been sent.
func (k *kit) pkt(flags string, seq, ack, n int) *pkt {
	line := fmt.Sprintf("%s %d:%d(%d)", flags, seq, seq+n, n)
	if strings.Contains(flags, ".") {
		line += fmt.Sprintf(" ack %d", ack)
	}
	return k.parsePkt(line, strings.Fields(line))
}

func (k *kit) claim(flags string, seq, ack int) {
	k.t.Helper()
	k.line(fmt.Sprintf("> %s %d:%d(0) ack %d", flags, seq, seq, ack))
}

func parseFlags(s string) (f wire.Flags) {
	for _, c := range s {
		f |= map[rune]wire.Flags{'F': wire.FIN, 'S': wire.SYN, 'R': wire.RST, 'P': wire.PUSH, '.': wire.ACK,
			'U': wire.URG,
			'E': wire.ECE, 'W': wire.CWR}[c]
	}
	return f
}

// parseOptions reads "mss 1460,nop,wscale 6,sackOK,TS val 5 ecr 6,sack 1:2 3:4".
func (k *kit) parseOptions(s string, th *wire.TCP) {
	o := &th.Opt
	auto := k.tp.Has(RcvdTstmp) || k.opts.ts && th.Flags&wire.SYN != 0
	if auto && th.Flags&wire.RST == 0 && !strings.Contains(s, "nots") && !strings.Contains(s, "TS ") {
		o.Has |= wire.TofTS
		o.TSVal, o.TSEcr = k.peerTS(), k.tsecr
	}
	for _, w := range strings.Split(s, ",") {
		f := strings.Fields(w)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "mss":
			o.Has |= wire.TofMSS
			o.MSS = uint16(k.atoi(f[1]))
		case "wscale":
			o.Has |= wire.TofScale
			o.Scale = uint8(k.atoi(f[1]))
		case "sackOK":
			o.Has |= wire.TofSackperm
		case "TS":
			o.Has |= wire.TofTS
			v, _ := strconv.ParseUint(f[2], 10, 32)
			e, _ := strconv.ParseUint(f[4], 10, 32)
			o.TSVal, o.TSEcr = uint32(v), uint32(e)
		case "sack":
			o.Has |= wire.TofSack
			for i, b := range f[1:] {
				var l, r int
				fmt.Sscanf(b, "%d:%d", &l, &r)
				o.Blocks[i] = wire.SackBlock{Left: k.t.iss.Add(l), Right: k.t.iss.Add(r)}
				o.Nsack++
			}
		case "nop", "eol", "none", "nots":
		default:
			k.fatalf("unknown option %q", w)
		}
	}
}

// printOptions prints options byte by byte, padding and all; SACK blocks are relative to base.
func printOptions(p []byte, base Seq) string {
	var out []string
	for len(p) > 0 {
		if p[0] == 0 {
			out, p = append(out, "eol"), p[1:]
			continue
		}
		if p[0] == 1 {
			out, p = append(out, "nop"), p[1:]
			continue
		}
		v := p[2:p[1]]
		switch p[0] {
		case 2:
			out = append(out, fmt.Sprintf("mss %d", binary.BigEndian.Uint16(v)))
		case 3:
			out = append(out, fmt.Sprintf("wscale %d", v[0]))
		case 4:
			out = append(out, "sackOK")
		case 5:
			s := "sack"
			for i := 0; i < len(v); i += 8 {
				l, r := Seq(binary.BigEndian.Uint32(v[i:])), Seq(binary.BigEndian.Uint32(v[i+4:]))
				s += fmt.Sprintf(" %d:%d", l.Sub(base), r.Sub(base))
			}
			out = append(out, s)
		case 8:
			out = append(out, fmt.Sprintf("TS val %d ecr %d", binary.BigEndian.Uint32(v),
				binary.BigEndian.Uint32(v[4:])))
		default:
			out = append(out, fmt.Sprintf("kind %d", p[0]))
		}
		p = p[p[1]:]
	}
	return strings.Join(out, ",")
}

// string prints a segment, ours or the peer's, in the scripts' notation.
func (k *kit) string(p *pkt, ours bool) string {
	mine, other := k.t.irs, k.t.iss
	if ours {
		mine, other = k.t.iss, k.t.irs
	}
	seq := p.th.Seq.Sub(mine)
	s := fmt.Sprintf("%s %d:%d(%d)", p.th.Flags, seq, seq+p.len, p.len)
	if p.th.Flags&wire.ACK != 0 {
		s += fmt.Sprintf(" ack %d", p.th.Ack.Sub(other))
	}
	s += fmt.Sprintf(" win %d", p.th.Win)
	if p.th.Urp != 0 {
		s += fmt.Sprintf(" urg %d", p.th.Urp)
	}
	if p.opts != "" {
		s += " <" + p.opts + ">"
	}
	return s
}

// want compares a variable of the connection.
func (k *kit) want(name string, want any) {
	k.t.Helper()
	tp := &k.tp
	var got any
	switch name {
	case "state":
		got = tp.state
	case "rexmt", "persist", "keep", "2msl", "delack":
		got = off
		if at, on := tp.Timer(name); on {
			got = time.Duration(at - k.now)
		}
	case "pace":
		got = off
		if tp.on(tPace) {
			got = time.Duration(tp.timers[tPace] - k.now)
		}
	case "cwnd":
		got = int(tp.sndCwnd)
		if tp.snr != nil {
			got = tp.snr.ctl.Cwnd
		}
	case "ssthresh":
		got = int(tp.sndSsthresh)
		if tp.snr != nil {
			got = tp.snr.ctl.Ssthresh
		}
	case "pipe":
		got = tp.pipe()
	case "cc":
		got = tp.CC()
	case "ca":
		got = tp.snr.state
	case "sndwnd":
		got = int(tp.sndWnd)
	case "maxseg":
		got = tp.maxseg
	case "srtt":
		got = time.Duration(tp.rtt.srtt)
	case "rttvar":
		got = time.Duration(tp.rtt.rttvar)
	case "rto":
		got = time.Duration(tp.rtt.rxtcur)
	case "dupacks":
		got = int(tp.dupacks)
	case "backoff":
		got = int(tp.backoff)
	case "inflight":
		got = tp.sndMax.Sub(tp.sndUna)
	case "sndcc":
		got = k.snd.Cc()
	case "rcvcc":
		got = k.rcv.Cc()
	case "rcvnxt":
		got = tp.rcvNxt.Sub(k.t.irs)
	case "tsrecent":
		got = int(tp.tsRecent)
	case "recovery":
		got = tp.Has(fastRecov)
	case "error":
		got = k.errno
	case "eof":
		got = k.eof
	case "gone":
		got = k.gone
	case "softerror":
		got = tp.softerror()
	default:
		k.fatalf("want: no variable %q", name)
	}
	if got != want {
		k.fatalf("%s is %v, want %v", name, got, want)
	}
}

// span prints n bytes from seq.
func (k *kit) span(seq, n int) string { return fmt.Sprintf(" %d:%d(%d)", seq, seq+n, n) }
