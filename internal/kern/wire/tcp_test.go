package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestFlagsString(t *testing.T) {
	for f, want := range map[Flags]string{
		0: "-", SYN: "S", SYN | ACK: "S.", ACK: ".", ACK | PUSH: "P.", FIN | ACK: "F.", FIN | PUSH | ACK: "FP.",
		RST:       "R",
		RST | ACK: "R.", SYN | ECE | CWR: "SEW", SYN | ACK | ECE: "S.E", ACK | URG: ".U", 0xff: "FSRP.UEW",
	} {
		if f.String() != want {
			t.Errorf("flags %#x print as %q, want %q", uint8(f), f.String(), want)
		}
	}
	seen := map[string]bool{}
	for f := range 256 {
		s := Flags(f).String()
		if seen[s] {
			t.Errorf("two flags print as %q", s)
		}
		seen[s] = true
	}
}

func TestTCPRoundTrip(t *testing.T) {
	all := Options{Has: TofMSS | TofScale | TofSackperm | TofTS, MSS: 1460, Scale: 14, TSVal: 1<<32 - 1, TSEcr: 7}
	data := Options{Has: TofTS | TofSack, TSVal: 1, TSEcr: 1 << 31, Nsack: 3,
		Blocks: [MaxSack]SackBlock{{1<<32 - 1, 5}, {10, 20}, {30, 40}}}
	for _, th := range []TCP{
		{Flags: ACK},
		{Sport: 1, Dport: 65535, Seq: 1<<32 - 1, Ack: 1 << 31, Flags: 0xff &^ SYN, Win: 65535, Urp: 65535},
		{Sport: 65535, Dport: 1, Seq: 5, Flags: SYN, Win: 1, Opt: all},
		{Seq: 5, Ack: 9, Flags: ACK | PUSH, Win: 1, Opt: data},
		{Flags: ACK, Opt: Options{Has: TofSack, Nsack: 4, Blocks: [MaxSack]SackBlock{{1, 2}, {3, 4}, {5, 6}, {7, 8}}}},
	} {
		p := bytes.Repeat([]byte{0xee}, TCPMaxLen)
		n := th.Put(p)
		if th.Hlen != n || n%4 != 0 || p[16] != 0 || p[17] != 0 {
			t.Errorf("%+v: Put returned %d", th, n)
		}
		if bytes.Contains(p[n:], []byte{0}) {
			t.Error("Put wrote behind the header")
		}
		var got TCP
		if err := ParseTCP(p[:n:n], &got); err != nil || got != th {
			t.Errorf("%+v became %+v, %v", th, got, err)
		}
	}
}

// Put writes the bytes that RFC 9293, 3.1, shows.
func TestTCPBytes(t *testing.T) {
	th := TCP{Sport: 0x0102, Dport: 0x0304, Seq: 0x05060708, Ack: 0x090a0b0c, Flags: ACK | FIN, Win: 0x0d0e,
		Urp: 0x0f10}
	p := make([]byte, TCPMaxLen)
	if got := hex.EncodeToString(p[:th.Put(p)]); got != "0102030405060708090a0b0c50110d0e00000f10" {
		t.Errorf("header %s", got)
	}
}

// Every data offset and captured length (A22), with options that are nothing but NOPs and with ones
// that are all cut.
func TestParseTCPLengths(t *testing.T) {
	for _, fill := range []byte{optNOP, optEOL, optMSS, optSack, optTS, 0xff} {
		hdr := bytes.Repeat([]byte{fill}, 80)
		for doff := range 16 {
			for reserved := range 16 {
				hdr[12] = byte(doff<<4 | reserved) // the reserved bits are ignored
				for captured := 0; captured <= 80; captured++ {
					var want error
					switch {
					case captured < 20:
						want = ErrShort
					case doff < 5:
						want = ErrLength
					case captured < doff*4:
						want = ErrShort
					}
					var th TCP
					err := ParseTCP(hdr[:captured:captured], &th)
					if !errors.Is(err, want) {
						t.Fatalf("offset %d of %d bytes: %v, want %v", doff, captured, err, want)
					}
					if err == nil && th.Hlen != doff*4 {
						t.Fatalf("offset %d: header of %d", doff, th.Hlen)
					}
				}
			}
		}
	}
}

// parseOptions parses options of at most 40 bytes, given in hexadecimal, in a segment with these
// flags, into a header that still holds what an earlier segment had.
func parseOptions(t *testing.T, f Flags, opts string) Options {
	t.Helper()
	raw, err := hex.DecodeString(strings.ReplaceAll(opts, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	for len(raw)%4 != 0 {
		raw = append(raw, 0)
	}
	p := append(make([]byte, TCPMinLen), raw...)
	p[12] = byte(len(p) / 4 << 4)
	p[13] = byte(f)
	th := TCP{Opt: Options{Has: 0xff, Nsack: 4}}
	if err := ParseTCP(p[:len(p):len(p)], &th); err != nil {
		t.Fatal(err)
	}
	return th.Opt
}

func TestParseOptions(t *testing.T) {
	const (
		mss   = "020405b4"
		ws    = "030307"
		sok   = "0402"
		ts    = "080a 00000001 00000002"
		sack1 = "050a 00000010 00000020"
	)
	syn := Options{Has: TofMSS | TofScale | TofSackperm | TofTS, MSS: 1460, Scale: 7, TSVal: 1, TSEcr: 2}
	block := [MaxSack]SackBlock{{0x10, 0x20}}
	for _, c := range []struct {
		name  string
		flags Flags
		opts  string
		want  Options
	}{
		{"none", ACK, "", Options{}},
		{"MSS", SYN, mss, Options{Has: TofMSS, MSS: 1460}},
		{"MSS 0 is reported, for the caller to judge", SYN, "02040000", Options{Has: TofMSS}},
		{"window scale", SYN, ws, Options{Has: TofScale, Scale: 7}},
		{"SACK permitted", SYN, sok, Options{Has: TofSackperm}},
		{"timestamps", ACK, ts, Options{Has: TofTS, TSVal: 1, TSEcr: 2}},
		{"SACK", ACK, sack1, Options{Has: TofSack, Nsack: 1, Blocks: block}},
		{"SACK of 4 blocks", ACK, "0522" + strings.Repeat("00000010 00000020", 4),
			Options{Has: TofSack, Nsack: 4, Blocks: [MaxSack]SackBlock{block[0], block[0], block[0], block[0]}}},
		{"all of a SYN's", SYN, mss + "01" + ws + sok + ts, syn},
		{"in another order, unpadded", SYN, ts + sok + ws + mss, syn},
		{"all on a SYN|ACK", SYN | ACK, mss + ws + sok + ts, syn},

		{"MSS, scale and SACK permitted only on a SYN", ACK, mss + ws + sok, Options{}},
		{"SACK not on a SYN", SYN, sack1, Options{}},

		{"EOL in the middle ends", SYN, mss + "00" + ws, Options{Has: TofMSS, MSS: 1460}},
		{"EOL first", SYN, "00" + mss + ws + sok, Options{}},
		{"40 NOPs", SYN, strings.Repeat("01", 40), Options{}},
		{"36 NOPs and one", SYN, strings.Repeat("01", 36) + mss, Options{Has: TofMSS, MSS: 1460}},

		{"the first MSS counts", SYN, mss + "02040001", Options{Has: TofMSS, MSS: 1460}},
		{"the first scale counts", SYN, ws + "030301", Options{Has: TofScale, Scale: 7}},
		{"SACK permitted twice", SYN, sok + sok, Options{Has: TofSackperm}},
		{"the first timestamps count", ACK, ts + "080a 00000009 00000009", Options{Has: TofTS, TSVal: 1, TSEcr: 2}},
		{"the first SACK counts", ACK, sack1 + "0512 00000001 00000002 00000003 00000004",
			Options{Has: TofSack, Nsack: 1, Blocks: block}},
		{"a malformed one before the first", SYN, "020305" + mss, Options{Has: TofMSS, MSS: 1460}},

		{"MSS too short", SYN, "0203ff" + ws, Options{Has: TofScale, Scale: 7}},
		{"MSS too long", SYN, "020505b4ff" + ws, Options{Has: TofScale, Scale: 7}},
		{"MSS without a body", SYN, "0202" + ws, Options{Has: TofScale, Scale: 7}},
		{"scale too short", SYN, "0302" + mss, Options{Has: TofMSS, MSS: 1460}},
		{"scale too long", SYN, "03040101" + mss, Options{Has: TofMSS, MSS: 1460}},
		{"SACK permitted too long", SYN, "040301" + mss, Options{Has: TofMSS, MSS: 1460}},
		{"timestamps too short", ACK, "0809 00000001 000000" + sack1, Options{Has: TofSack, Nsack: 1, Blocks: block}},
		{"timestamps too long", ACK, "080b 00000001 00000001 ff" + sack1,
			Options{Has: TofSack, Nsack: 1, Blocks: block}},
		{"SACK without a block", ACK, "0502" + ts, Options{Has: TofTS, TSVal: 1, TSEcr: 2}},
		{"SACK with half a block", ACK, "0506 00000001" + ts, Options{Has: TofTS, TSVal: 1, TSEcr: 2}},
		{"SACK with a block and a half", ACK, "050e 00000001 00000002 00000003" + ts,
			Options{Has: TofTS, TSVal: 1, TSEcr: 2}},

		// RFC 9293, MUST-7: a TCP must be prepared for an illegal length, such as zero. What
		// follows has no meaning.
		{"length 0", SYN, "0200" + ws + sok, Options{}},
		{"length 1", SYN, "0201" + ws + sok, Options{}},
		{"length 0 after another", SYN, mss + "0300" + sok, Options{Has: TofMSS, MSS: 1460}},
		{"length 41 of 40", SYN, "0229" + strings.Repeat("01", 38), Options{}},
		{"length 40 of 40", SYN, "fe28" + strings.Repeat("02", 38), Options{}},
		{"length 255", SYN, mss + "02ff05b4", Options{Has: TofMSS, MSS: 1460}},
		{"a kind at the very end", SYN, mss + "010101" + "02", Options{Has: TofMSS, MSS: 1460}},
		{"cut in the body", SYN, mss + "0101" + "0303", Options{Has: TofMSS, MSS: 1460}},
		{"cut timestamps", ACK, "0101 080a 00000001", Options{}},
		{"cut SACK", ACK, "0522" + strings.Repeat("00000010 00000020", 4)[:8+9+8+9], Options{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := parseOptions(t, c.flags, c.opts)
			got = understood(got)
			if got != c.want {
				t.Errorf("%s: %+v, want %+v", c.opts, got, c.want)
			}
		})
	}
}

// understood clears the fields of options that are not there, which hold what they may.
func understood(o Options) Options {
	c := Options{Has: o.Has}
	if o.Has&TofMSS != 0 {
		c.MSS = o.MSS
	}
	if o.Has&TofScale != 0 {
		c.Scale = o.Scale
	}
	if o.Has&TofTS != 0 {
		c.TSVal, c.TSEcr = o.TSVal, o.TSEcr
	}
	if o.Has&TofSack != 0 {
		c.Nsack = o.Nsack
		copy(c.Blocks[:], o.Blocks[:o.Nsack])
	}
	return c
}

// RFC 9293, MUST-6: "A TCP implementation MUST ignore without error any TCP Option it does not
// implement, assuming that the option has a length field." Kinds of every length, between two that
// are understood.
func TestUnknownOptions(t *testing.T) {
	for kind := range 256 {
		switch kind {
		case optEOL, optNOP, optMSS, optScale, optSackperm, optSack, optTS:
			continue
		}
		for n := 2; n <= 36; n++ {
			for _, flags := range []Flags{SYN, ACK} {
				raw := []byte{byte(kind), byte(n)}
				for len(raw) < n {
					raw = append(raw, optMSS) // must not be taken for options
				}
				raw = append(raw, optMSS, 4, 2, 24)
				got := understood(parseOptions(t, flags, hex.EncodeToString(raw)))
				want := Options{}
				if flags == SYN {
					want = Options{Has: TofMSS, MSS: 536}
				}
				if got != want {
					t.Fatalf("kind %d of %d bytes: %+v", kind, n, got)
				}
			}
		}
	}
}

// RFC 7323, 2.3: "If a Window Scale option is received with a shift.cnt value larger than 14, the
// TCP SHOULD log the error but MUST use 14 instead of the specified value."
func TestWindowScaleClamps(t *testing.T) {
	for shift := range 256 {
		got := parseOptions(t, SYN, hex.EncodeToString([]byte{optScale, 3, byte(shift)}))
		if got.Has != TofScale || int(got.Scale) != min(shift, 14) {
			t.Errorf("shift count %d is taken for %d", shift, got.Scale)
		}
	}
}

// Every combination of options stays within the header, also those that no stack sends, and what
// fits is read again.
func TestPutOptionsAll(t *testing.T) {
	for has := range OptFlags(32) {
		for nsack := range uint8(MaxSack + 1) {
			o := Options{Has: has, Nsack: nsack, MSS: 1460, Scale: 6, TSVal: 1, TSEcr: 2,
				Blocks: [MaxSack]SackBlock{{1, 2}, {3, 4}, {5, 6}, {7, 8}}}
			p := make([]byte, TCPMaxOptLen)
			n := o.Put(p)
			if n > TCPMaxOptLen || n%4 != 0 {
				t.Fatalf("options %05b, %d blocks: %d bytes", has, nsack, n)
			}
			for i, c := range []struct {
				flags Flags
				is    OptFlags
			}{{SYN, TofMSS | TofScale | TofSackperm | TofTS}, {ACK, TofTS | TofSack}} {
				want := has & c.is
				if nsack == 0 {
					want &^= TofSack
				}
				if got := parseOptions(t, c.flags, hex.EncodeToString(p[:n])); got.Has != want {
					t.Errorf("options %05b, %d blocks, case %d: %05b arrive", has, nsack, i, got.Has)
				}
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	th := TCP{Flags: ACK, Opt: Options{Has: TofTS | TofSack, Nsack: 3}}
	ip := IPv4{Src: testSrc, Dst: testDst, Len: 60}
	p := make([]byte, TCPMaxLen)
	if n := testing.AllocsPerRun(100, func() {
		ip.Put(p)
		ParseIPv4(p, 60)
		PseudoSum(testSrc, testDst, ProtoTCP, 60)
		n := th.Put(p)
		ParseTCP(p[:n], &th)
		Sum(p, 0)
	}); n != 0 {
		t.Errorf("%v allocations a segment", n)
	}
}
