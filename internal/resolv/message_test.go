package resolv

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// TestReverse tests the names of addresses, both ways.
func TestReverse(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":          "1.2.0.192.in-addr.arpa.",
		"10.20.255.0":        "0.255.20.10.in-addr.arpa.",
		"2001:db8::567:89ab": "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
	} {
		a := netip.MustParseAddr(addr)
		if got := reverse(a); got != want {
			t.Errorf("%s: %s", addr, got)
		}
		if got, ok := unreverse(strings.ToUpper(want)); !ok || got != a {
			t.Errorf("%s: %v", want, got)
		}
	}
	for _, bad := range []string{
		"", "one.test.", "in-addr.arpa.", "2.0.192.in-addr.arpa.", "5.1.2.0.192.in-addr.arpa.",
		"256.2.0.192.in-addr.arpa.",
		strings.Repeat("0.", 31) + "ip6.arpa.", strings.Repeat("0.", 33) + "ip6.arpa.",
		strings.Repeat("0.", 31) + "g.ip6.arpa.", strings.Repeat("0.", 30) + "0-0.ip6.arpa.",
	} {
		if a, ok := unreverse(bad); ok {
			t.Errorf("%q is %v", bad, a)
		}
	}
}

// TestAppendName tests which names can be asked for.
func TestAppendName(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Repeat(label+".", 3) // 192 bytes
	for name, want := range map[string]string{
		"":                    "\x00",
		".":                   "\x00",
		"a.bc":                "\x01a\x02bc\x00",
		"a.bc.":               "\x01a\x02bc\x00",
		long + label[:61]:     "",
		long + label[:62]:     "bad",
		label + "a":           "bad",
		"a..b":                "bad",
		".a":                  "bad",
		"a..":                 "bad",
		long + label + ".a.b": "bad",
	} {
		b, ok := appendName(nil, name)
		if ok != (want != "bad") || ok && want != "" && string(b) != want {
			t.Errorf("%q: %q, %v", name, b, ok)
		}
		if !ok {
			continue
		}
		if got, end, ok := expand(b, 0); !ok || end != len(b) || strings.Trim(got, ".") != strings.Trim(name, ".") {
			t.Errorf("%q: expanded to %q", name, got)
		}
	}
}

// TestExpand tests names that are broken, or too long.
func TestExpand(t *testing.T) {
	label := "\x3f" + strings.Repeat("a", 63)
	long := strings.Repeat(label, 3) // 192 bytes
	for msg, want := range map[string]string{
		"\x00": ".", "\x01a\x00": "a.", "\xc0\x00": "", "\xc0\x02": "", "\xc0": "", "\x01": "",
		"\x01a": "", "\x40a\x00": "",
		"\x80a\x00": "", "\x03a.b\x00": "", long + "\x3c" + strings.Repeat("a", 60) + "\x00": "long",
		long + "\x3d" + strings.Repeat("a", 61) + "\x00": "long", long + "\x3e" + strings.Repeat("a", 62) + "\x00": "",
		long + label + label + label: "",
	} {
		name, end, ok := expand([]byte(msg), 0)
		if want == "long" && len(name) > 250 {
			want = name
		}
		if name != want || ok != (want != "") || ok && end != len(msg) {
			t.Errorf("%q: %q, %d, %v", msg, name, end, ok)
		}
	}
	two := []byte("\x01a\x00\x01b\xc0\x00\x01c\xc0\x03")
	if name, end, ok := expand(two, 7); name != "c.b.a." || end != len(two) || !ok {
		t.Errorf("two pointers: %q, %d, %v", name, end, ok)
	}
	if _, _, ok := expand([]byte("\xc0\x02\xc0\x00"), 2); ok {
		t.Error("a circle of pointers has an end")
	}
}

// FuzzMessage compares what is read of a message with what dnsmessage reads, which also follows
// pointers that lead on.
func FuzzMessage(f *testing.F) {
	s := zone()
	s.Silent = nil
	for name := range strings.FieldsSeq("one.test. both.test. alias.test. loop.test. unknown.test. fail.test.") {
		for _, typ := range []uint16{typeA, typeAAAA, typeCNAME} {
			q, _ := mkquery(name, typ)
			f.Add(s.Answer("tcp", q)[0])
		}
	}
	q, _ := mkquery("one.test.", typeA)
	f.Add(q)
	f.Add(append(bytes.Clone(q[:12]), 0xc0, 12, 0, 1, 0, 1))
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, ours, off, ok := parseQuestion(msg)
		var p dnsmessage.Parser
		_, err := p.Start(msg)
		if err != nil {
			if ok {
				t.Fatalf("dnsmessage: %v", err)
			}
			return
		}
		theirs, err := p.AllQuestions()
		if len(theirs) != 1 {
			if ok {
				t.Fatalf("dnsmessage: %v, %d questions", err, len(theirs))
			}
			return
		}
		if !ok {
			return
		}
		if ours.name != theirs[0].Name.String() || ours.typ != uint16(theirs[0].Type) {
			t.Fatalf("question %+v, dnsmessage has %v", ours, theirs[0].GoString())
		}
		list, _, ok := parseAnswers(msg, off, h.n[1])
		for i := 0; ; i++ {
			h, err := p.AnswerHeader()
			if err == dnsmessage.ErrSectionDone {
				if ok && i != len(list) {
					t.Fatalf("%d answers, dnsmessage has %d", len(list), i)
				}
				break
			}
			if err != nil {
				if ok {
					t.Fatalf("%d answers, dnsmessage: %v", len(list), err)
				}
				return
			}
			if ok && (list[i].name != h.Name.String() || list[i].typ != uint16(h.Type) || list[i].ttl != h.TTL) {
				t.Fatalf("answer %+v, dnsmessage has %v", list[i], h.GoString())
			}
			if err := p.SkipAnswer(); err != nil {
				if ok {
					t.Fatalf("answer %+v, dnsmessage: %v", list[i], err)
				}
				return
			}
		}
		x := exchange{msg: q}
		if x.check(msg) == nil {
			follow(msg, typeA)
		}
		if _, ok := parseHeader(msg); ok {
			New(Env{}).answer(t.Context(), msg) // there is no server
		}
	})
}
