package trace

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"bsdnet/internal/kern/wire"
)

func TestFormat(t *testing.T) {
	const isn, peer = 1<<32 - 3, 5000 // so that the sender's numbers wrap
	for _, c := range []struct {
		th   wire.TCP
		n    int
		want string
	}{
		{wire.TCP{Seq: isn, Flags: wire.SYN, Win: 65535,
			Opt: wire.Options{Has: wire.TofMSS | wire.TofScale | wire.TofSackperm | wire.TofTS, MSS: 1460, Scale: 6,
				TSVal: 1}}, 0,
			"S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 1 ecr 0>"},
		{wire.TCP{Seq: isn, Ack: peer + 1, Flags: wire.SYN | wire.ACK | wire.ECE, Win: 9}, 0, "S.E 0:0(0) ack 1 win 9"},
		{wire.TCP{Seq: 1<<32 - 2, Ack: peer + 1, Flags: wire.ACK | wire.PUSH, Win: 1027,
			Opt: wire.Options{Has: wire.TofTS | wire.TofSack, TSVal: 5, TSEcr: 3, Nsack: 1,
				Blocks: [wire.MaxSack]wire.SackBlock{{Left: peer + 200, Right: peer + 300}}}}, 5,
			"P. 1:6(5) ack 1 win 1027 <nop,nop,TS val 5 ecr 3,nop,nop,sack 200:300>"},
		// fields without their flags say nothing
		{wire.TCP{Seq: 3, Ack: 77, Flags: wire.RST, Urp: 8}, 0, "R 6:6(0) win 0"},
		{wire.TCP{Seq: isn - 1, Ack: peer - 1, Flags: wire.ACK | wire.FIN | wire.URG, Urp: 3, Win: 1}, 1,
			"F.U 4294967295:0(1) ack 4294967295 win 1 urg 3"},
		{wire.TCP{Seq: isn}, 1 << 20, "- 0:1048576(1048576) win 0"},
	} {
		before := c.th
		if got := Format(&c.th, c.n, isn, peer); got != c.want {
			t.Errorf("%+v prints as\n%s, want\n%s", c.th, got, c.want)
		}
		if c.th != before {
			t.Error("Format changed the header")
		}
		// The way back.
		tr, err := Parse(c.want)
		if err != nil {
			t.Error(err)
			continue
		}
		if tr.String() != c.want || tr.Len != c.n {
			t.Errorf("%q is read as %s", c.want, tr)
		}
		var p [wire.TCPMaxLen]byte
		var got wire.TCP
		if err := wire.ParseTCP(p[:tr.Put(p[:], isn, peer)], &got); err != nil {
			t.Error(err)
		}
		want := c.th
		want.Hlen = got.Hlen
		if want.Flags&wire.ACK == 0 {
			want.Ack = 0
		}
		if want.Flags&wire.URG == 0 {
			want.Urp = 0
		}
		if got != want {
			t.Errorf("%q makes %+v, want %+v", c.want, got, want)
		}
	}
	if got := Format(&wire.TCP{Seq: 100, Ack: 200, Flags: wire.ACK, Win: 3}, 1, 0,
		0); got != ". 100:101(1) ack 200 win 3" {
		t.Errorf("absolute: %s", got)
	}
}

// TestFlags reads every combination of flags as it is printed.
func TestFlags(t *testing.T) {
	for f := range 256 {
		text := wire.Flags(f).String()
		if got, err := Parse(text); err != nil || got.TCP.Flags != wire.Flags(f) {
			t.Errorf("%q is read as %#x, %v; want %#x", text, uint8(got.TCP.Flags), err, f)
		}
	}
}

func TestParseGiven(t *testing.T) {
	for line, want := range map[string]Line{
		"S":          {TCP: wire.TCP{Flags: wire.SYN}},
		"SEW 0:0(0)": {TCP: wire.TCP{Flags: wire.SYN | wire.ECE | wire.CWR}, Given: GivenSeq},
		// the letters in any order
		"SE. 0:0(0)": {TCP: wire.TCP{Flags: wire.SYN | wire.ECE | wire.ACK}, Given: GivenSeq},
		". ack 5":    {TCP: wire.TCP{Flags: wire.ACK, Ack: 5}, Given: GivenAck},
		"  P.  win 7   1:3(2) ": {TCP: wire.TCP{Flags: wire.PUSH | wire.ACK, Seq: 1, Win: 7}, Len: 2,
			Given: GivenSeq | GivenWin},
		"F. 4294967295:1(2)": {TCP: wire.TCP{Flags: wire.FIN | wire.ACK, Seq: 1<<32 - 1}, Len: 2, Given: GivenSeq},
		"R 9:9(0)":           {TCP: wire.TCP{Flags: wire.RST, Seq: 9}, Given: GivenSeq},
		"R. <>":              {TCP: wire.TCP{Flags: wire.RST | wire.ACK}, Given: GivenOpt},
		".U urg 65535 win 0": {TCP: wire.TCP{Flags: wire.ACK | wire.URG, Urp: 65535}, Given: GivenUrg | GivenWin},
		"- 0:0(0)":           {Given: GivenSeq},
		"S <mss 9,nop,wscale 20>": {TCP: wire.TCP{Flags: wire.SYN,
			Opt: wire.Options{Has: wire.TofMSS | wire.TofScale, MSS: 9,
				Scale: 14}}, Given: GivenOpt, Raw: []byte{2, 4, 0, 9, 1, 3, 3, 20}},
	} {
		got, err := Parse(line)
		if err != nil {
			t.Error(err)
			continue
		}
		want.TCP.Hlen = wire.TCPMinLen + len(want.Raw)
		if got.TCP != want.TCP || got.Len != want.Len || got.Given != want.Given || !bytes.Equal(got.Raw, want.Raw) {
			t.Errorf("%q is read as %+v, want %+v", line, got, want)
		}
	}
}

// How a script compares: only what its line gives counts.
func TestCompare(t *testing.T) {
	var p [wire.TCPMaxLen]byte
	th := wire.TCP{Seq: 101, Ack: 201, Flags: wire.ACK | wire.PUSH, Win: 7,
		Opt: wire.Options{Has: wire.TofTS, TSVal: 1, TSEcr: 2}}
	n := th.Put(p[:])
	for line, same := range map[string]bool{
		"P.": true, "P. 1:6(5)": true, "P. ack 1": true, "P. 1:6(5) ack 1 win 7 <nop,nop,TS val 1 ecr 2>": true,
		".": false, "P. 1:5(4)": false, "P. ack 2": false, "P. win 8": false, "P. <>": false,
		"P. <TS val 1 ecr 2,nop,nop>": false,
	} {
		want, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Of(p[:n], 5, 100, 200)
		if err != nil {
			t.Fatal(err)
		}
		got.Given = want.Given
		if (got.String() == want.String()) != same {
			t.Errorf("%q against %q", got, want)
		}
	}
	th = wire.TCP{Flags: wire.ACK, Opt: wire.Options{Has: wire.TofSack, Nsack: 1,
		Blocks: [wire.MaxSack]wire.SackBlock{{Left: 300, Right: 400}}}}
	tr, err := Of(p[:th.Put(p[:])], 0, 0, 200)
	if err != nil || tr.TCP.Opt.Blocks[0] != (wire.SackBlock{Left: 100, Right: 200}) {
		t.Errorf("blocks %v, %v; want them relative", tr.TCP.Opt.Blocks, err)
	}
	if _, err := Of(p[:n-1], 0, 0, 0); err != wire.ErrShort {
		t.Errorf("a cut header: %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	for _, line := range []string{
		"", "  ", "<nop>", "X", "SS", "S-", "S 0:0", "S 0:0(0", "S 0(0)", "S 0:1(0)", "S 1:0(1)", "S 0:0(0) 0:0(0)",
		"S 0:4294967296(4294967296)", "S a:a(0)", "S :(0)", "S 0:0()", "S 0:0(0))", ". ack", ". ack x", ". ack -1",
		". ack 4294967296", ". ack 1 ack 1", "S ack 1", ". urg 1", ".U urg 65536", ". win 65536", ". win",
		". wind 5", ". <nop", ". <nop,nop,nop,nop> win 1", ". <nop>", ". <nop,,nop,nop>", "S <mss>",
		"S <mss 65536>", "S <mss 1 2>", "S <wscale 256,nop>", "S <sackOK 1,nop,nop>", ". <TS val 1,nop,nop>",
		". <TS ecr 1 val 1,nop,nop>", ". <TS val 1 ecr 4294967296,nop,nop>", ". <nop,nop,sack>",
		". <nop,nop,sack 1>", ". <nop,nop,sack 1:2 3>", ". <nop,nop,sack 1:2 1:2 1:2 1:2 1:2>",
		". <nop,nop,sack 1:x>", ". <nop,nop,sack 1 2>", ". <nop,nop,sack 1:2:3>", ". <0x123>", ". <0xgg>",
		". <0x>,", ". <foo 1>", "S <0x" + strings.Repeat("01", 44) + ">",
	} {
		if tr, err := Parse(line); err == nil {
			t.Errorf("%q is read as %s", line, tr)
		} else if !strings.Contains(err.Error(), line) {
			t.Errorf("%q: the error does not show the line: %v", line, err)
		}
	}
}

// The notation of options and their bytes, both ways.
func TestFormatOptions(t *testing.T) {
	for _, c := range []struct {
		hex  string
		base wire.Seq
		want string
	}{
		{"", 0, ""},
		{"020405b4", 0, "mss 1460"},
		{"020405b4 0402 0000", 0, "mss 1460,sackOK,eol,eol"},
		{"0101 080a ffffffff 00000000", 0, "nop,nop,TS val 4294967295 ecr 0"},
		{"0303ff 01", 0, "wscale 255,nop"},
		{"050a 00000064 000000c8 0101", 0, "sack 100:200,nop,nop"},
		{"050a 00000064 000000c8 0101", 50, "sack 50:150,nop,nop"},
		{"050a 00000000 00000005 0101", 0xffffffff, "sack 1:6,nop,nop"},
		{"0512 00000001 00000002 00000003 00000004", 0, "sack 1:2 3:4"},
		// Unknown kinds, known ones of a wrong length, lengths that cannot be, and padding that is
		// not zero.
		{"fe04f989 01", 0, "0xfe04f989,nop"},
		{"1302", 0, "0x1302"},
		{"020305", 0, "0x020305"},
		{"0502 0506 00000001", 7, "0x0502,0x050600000001"},
		{"0302 03040102 0402 040301 0809 00000001000000", 0,
			"0x0302,0x03040102,sackOK,0x040301,0x08090000000100" + "0000"},
		// more than fits in a header
		{"052a" + strings.Repeat("00000001", 10), 0, "0x052a" + strings.Repeat("00000001", 10)},
		{"01 0200 0101", 0, "nop,0x02000101"},
		{"01 0205b4", 0, "nop,0x0205b4"},
		{"0102", 0, "nop,0x02"},
		{"00 00 020405b4", 0, "eol,eol,0x020405b4"},
		{"00 050a 00000064 000000c8 00", 50, "eol,0x050a00000064000000c800"}, // no option any more, so as it is
	} {
		raw, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		orig := bytes.Clone(raw)
		if got := FormatOptions(raw, c.base); got != c.want {
			t.Errorf("%s prints as %q, want %q", c.hex, got, c.want)
		}
		if !bytes.Equal(raw, orig) {
			t.Errorf("FormatOptions changed %x to %x", orig, raw)
		}
		if got, err := ParseOptions(c.want, c.base); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%q is read as %x, %v; want %x", c.want, got, err, raw)
		}
	}
	if got, err := ParseOptions("sack"+strings.Repeat(" 1:2", wire.MaxSack+1), 0); err == nil {
		t.Errorf("too many blocks: %x", got)
	}
	if got, err := ParseOptions(" nop , TS  val 1  ecr 2 ", 0); err != nil ||
		FormatOptions(got, 0) != "nop,TS val 1 ecr 2" {
		t.Errorf("spaces: %x, %v", got, err)
	}
}
