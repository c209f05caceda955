package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/kern/wire/trace"
)

// BSD's order and padding, which others tell stacks apart by (tcp_addoptions).
func TestPutOptions(t *testing.T) {
	blocks := [wire.MaxSack]wire.SackBlock{{Left: 1, Right: 2}, {Left: 3, Right: 4}, {Left: 5, Right: 6},
		{Left: 7, Right: 8}}
	o := wire.Options{MSS: 1460, Scale: 6, TSVal: 0x11, TSEcr: 0x22, Blocks: blocks, Nsack: 4}
	for _, c := range []struct {
		has   wire.OptFlags
		nsack uint8
		want  string
	}{
		{0, 0, ""},
		{wire.TofMSS, 0, "mss 1460"},
		{wire.TofMSS | wire.TofScale, 0, "mss 1460,nop,wscale 6"},
		{wire.TofMSS | wire.TofSackperm, 0, "mss 1460,sackOK,eol,eol"},
		{wire.TofMSS | wire.TofTS, 0, "mss 1460,nop,nop,TS val 17 ecr 34"},
		{wire.TofMSS | wire.TofScale | wire.TofSackperm, 0, "mss 1460,nop,wscale 6,sackOK,eol,eol"},
		{wire.TofMSS | wire.TofScale | wire.TofTS, 0, "mss 1460,nop,wscale 6,nop,nop,TS val 17 ecr 34"},
		{wire.TofMSS | wire.TofSackperm | wire.TofTS, 0, "mss 1460,sackOK,TS val 17 ecr 34"},
		{wire.TofMSS | wire.TofScale | wire.TofSackperm | wire.TofTS, 0,
			"mss 1460,nop,wscale 6,sackOK,TS val 17 ecr 34"},
		{wire.TofScale, 0, "nop,wscale 6"},
		{wire.TofSackperm, 0, "sackOK,eol,eol"},
		{wire.TofTS, 0, "nop,nop,TS val 17 ecr 34"},
		{wire.TofTS | wire.TofSack, 1, "nop,nop,TS val 17 ecr 34,nop,nop,sack 1:2"},
		{wire.TofTS | wire.TofSack, 3, "nop,nop,TS val 17 ecr 34,nop,nop,sack 1:2 3:4 5:6"},
		{wire.TofTS | wire.TofSack, 4, "nop,nop,TS val 17 ecr 34,nop,nop,sack 1:2 3:4 5:6"}, // what fits
		{wire.TofSack, 1, "nop,nop,sack 1:2"},
		{wire.TofSack, 4, "nop,nop,sack 1:2 3:4 5:6 7:8"},
		{wire.TofSack, 0, ""},
		{wire.TofTS | wire.TofSack, 0, "nop,nop,TS val 17 ecr 34"},
	} {
		o.Has, o.Nsack = c.has, c.nsack
		var p [wire.TCPMaxOptLen]byte
		n := o.Put(p[:])
		want, err := trace.ParseOptions(c.want, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p[:n], want) {
			t.Errorf("options %05b, %d blocks: %s (%x), want %s", c.has, c.nsack, trace.FormatOptions(p[:n], 0),
				p[:n], c.want)
		}
	}
	// The notation is ours: one of each as bytes.
	o.Has, o.Nsack = wire.TofMSS|wire.TofScale|wire.TofSackperm|wire.TofTS, 0
	var p [wire.TCPMaxOptLen]byte
	if got := hex.EncodeToString(p[:o.Put(p[:])]); got != "020405b4"+"01030306"+"0402"+"080a0000001100000022" {
		t.Errorf("SYN options %s", got)
	}
	o.Has, o.Nsack = wire.TofSack, 1
	if got := hex.EncodeToString(p[:o.Put(p[:])]); got != "0101050a"+"0000000100000002" {
		t.Errorf("SACK %s", got)
	}
}

// A header that has been parsed is the same after it has been written and parsed again. The textual
// form keeps all options.
func FuzzParseTCP(f *testing.F) {
	p := make([]byte, wire.TCPMaxLen)
	th := wire.TCP{Sport: 1, Dport: 2, Seq: 3, Ack: 4, Flags: wire.SYN | wire.ACK, Win: 5,
		Opt: wire.Options{Has: wire.TofMSS | wire.TofScale | wire.TofSackperm | wire.TofTS, MSS: 1460, Scale: 7,
			TSVal: 8, TSEcr: 9}}
	f.Add(bytes.Clone(p[:th.Put(p)]))
	th = wire.TCP{Flags: wire.ACK | wire.PUSH | wire.URG, Urp: 3,
		Opt: wire.Options{Has: wire.TofTS | wire.TofSack, Nsack: 3}}
	f.Add(bytes.Clone(p[:th.Put(p)]))
	th = wire.TCP{Flags: wire.ACK, Opt: wire.Options{Has: wire.TofSack, Nsack: 4}}
	f.Add(bytes.Clone(p[:th.Put(p)]))
	f.Add(append(bytes.Repeat([]byte{0xf0}, 20), bytes.Repeat([]byte{2, 0}, 20)...))
	f.Add(append(bytes.Repeat([]byte{0x62}, 20), 3, 3, 255, 0, 7))
	f.Fuzz(func(t *testing.T, p []byte) {
		p = p[:len(p):len(p)]
		var th wire.TCP
		if wire.ParseTCP(p, &th) != nil {
			return
		}
		if th.Hlen < wire.TCPMinLen || th.Hlen > min(len(p), wire.TCPMaxLen) || th.Hlen != int(p[12]>>4)*4 ||
			th.Opt.Nsack > wire.MaxSack || th.Opt.Scale > 14 {
			t.Fatalf("%x was accepted as %+v", p, th)
		}
		var q [wire.TCPMaxLen]byte
		var again wire.TCP
		put := th
		n := put.Put(q[:])
		if err := wire.ParseTCP(q[:n:n], &again); err != nil || again != put {
			t.Fatalf("%+v became %+v, %v", put, again, err)
		}
		put.Hlen = th.Hlen
		if put != th {
			t.Fatalf("Put changed %+v to %+v", th, put)
		}

		isn, peer := wire.Seq(binary.BigEndian.Uint32(p)), wire.Seq(binary.BigEndian.Uint32(p[8:]))
		tr, err := trace.Of(p, 7, isn, peer)
		if err != nil {
			t.Fatal(err)
		}
		read, err := trace.Parse(tr.String())
		if err != nil || read.String() != tr.String() {
			t.Fatalf("%s is read as %s, %v", tr, read, err)
		}
		n = read.Put(q[:], isn, peer)
		if !bytes.Equal(q[wire.TCPMinLen:n], p[wire.TCPMinLen:th.Hlen]) {
			t.Fatalf("%s: options %x, were %x", tr, q[wire.TCPMinLen:n], p[wire.TCPMinLen:th.Hlen])
		}
		if err := wire.ParseTCP(q[:n], &again); err != nil || again.Seq != th.Seq || again.Flags != th.Flags ||
			again.Win != th.Win ||
			again.Opt != th.Opt || th.Flags&wire.ACK != 0 && again.Ack != th.Ack || th.Flags&wire.URG != 0 &&
			again.Urp != th.Urp {
			t.Fatalf("%s: %+v became %+v", tr, th, again)
		}
	})
}
