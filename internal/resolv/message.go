package resolv

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Types of records, RFC 1035, 3.2.2, RFC 3596 and RFC 6891.
const (
	typeA     = 1
	typeCNAME = 5
	typePTR   = 12
	typeAAAA  = 28
	typeOPT   = 41
)

const classIN = 1

// Response codes, RFC 1035, 4.1.1.
const (
	rcodeSuccess = 0
	rcodeServer  = 2 // SERVFAIL
	rcodeName    = 3 // NXDOMAIN
)

// Flags of a header, RFC 1035, 4.1.1.
const (
	flagQR = 0x8000 // a response
	flagAA = 0x0400 // the server is an authority for the name
	flagTC = 0x0200 // the message was truncated
	flagRD = 0x0100 // recursion is desired
	flagRA = 0x0080 // recursion is available

	opcodeMask = 0x7800
	rcodeMask  = 0x000f
)

const (
	headerLen = 12

	// maxName is the longest name in the form with dots, including the one at its end: RFC 1035,
	// 3.1, allows 255 octets on the wire, of which the first length and the root are not shown.
	maxName = 254

	// maxUDP is the largest answer that we ask for over UDP, which fits into the least MTU of IPv6.
	// It is package net's.
	maxUDP = 1232
)

// A header is the header of a message.
type header struct {
	id, flags uint16
	n         [4]int // the numbers of questions, answers, authorities and additional records
}

// A question is the one question of a query.
type question struct {
	name       string // absolute, with a dot at its end
	typ, class uint16
}

// A record is a resource record.
type record struct {
	name       string
	typ, class uint16
	ttl        uint32
	data       int // where its data begins in the message
	end        int // and ends
}

func parseHeader(msg []byte) (h header, ok bool) {
	if len(msg) < headerLen {
		return h, false
	}
	h.id, h.flags = binary.BigEndian.Uint16(msg), binary.BigEndian.Uint16(msg[2:])
	for i := range h.n {
		h.n[i] = int(binary.BigEndian.Uint16(msg[4+2*i:]))
	}
	return h, true
}

// parseQuestion parses the header and the question of a message, which has exactly one. The records
// begin at end.
func parseQuestion(msg []byte) (h header, q question, end int, ok bool) {
	if h, ok = parseHeader(msg); !ok || h.n[0] != 1 {
		return h, q, 0, false
	}
	if q.name, end, ok = expand(msg, headerLen); !ok || end+4 > len(msg) {
		return h, q, 0, false
	}
	q.typ, q.class = binary.BigEndian.Uint16(msg[end:]), binary.BigEndian.Uint16(msg[end+2:])
	return h, q, end + 4, true
}

// parseRecord parses the record at off.
func parseRecord(msg []byte, off int) (r record, ok bool) {
	if r.name, off, ok = expand(msg, off); !ok || off+10 > len(msg) {
		return r, false
	}
	r.typ, r.class = binary.BigEndian.Uint16(msg[off:]), binary.BigEndian.Uint16(msg[off+2:])
	r.ttl = binary.BigEndian.Uint32(msg[off+4:])
	r.data = off + 10
	r.end = r.data + int(binary.BigEndian.Uint16(msg[off+8:]))
	return r, r.end <= len(msg)
}

// parseAnswers parses the records of the answer section, which begins at off. They end at end.
func parseAnswers(msg []byte, off, n int) (list []record, end int, ok bool) {
	for range n {
		r, ok := parseRecord(msg, off)
		if !ok {
			return nil, 0, false
		}
		list = append(list, r)
		off = r.end
	}
	return list, off, true
}

// expand returns the name at off, and where what follows it begins: dn_expand. A pointer leads back
// only, so a name has an end.
func expand(msg []byte, off int) (name string, end int, ok bool) {
	var b [maxName]byte
	n := 0
	for part := off; off < len(msg); {
		c := int(msg[off])
		switch {
		case c == 0:
			if end == 0 {
				end = off + 1
			}
			if n == 0 {
				return ".", end, true
			}
			return string(b[:n]), end, true
		case c < 0x40:
			label := off + 1
			if off = label + c; off > len(msg) || n+c+1 > maxName {
				return "", 0, false
			}
			for _, x := range msg[label:off] {
				if x == '.' {
					return "", 0, false // it would look like two labels
				}
				b[n] = x
				n++
			}
			b[n] = '.'
			n++
		case c >= 0xc0 && off+1 < len(msg):
			if end == 0 {
				end = off + 2
			}
			// RFC 1035, 4.1.4: "a pointer to a prior occurance of the same name".
			if off = c&0x3f<<8 | int(msg[off+1]); off >= part {
				return "", 0, false
			}
			part = off
		default: // RFC 1035, 4.1.4: "The 10 and 01 combinations are reserved for future use."
			return "", 0, false
		}
	}
	return "", 0, false
}

// appendName appends a name to a message: dn_comp, without compression.
func appendName(b []byte, name string) ([]byte, bool) {
	name = strings.TrimSuffix(name, ".")
	if len(name) >= maxName {
		return b, false
	}
	for name != "" {
		label, rest, dot := strings.Cut(name, ".")
		if label == "" || len(label) > 63 || dot && rest == "" {
			return b, false
		}
		b = append(append(b, byte(len(label))), label...)
		name = rest
	}
	return append(b, 0), true
}

// mkquery makes a query with the ID 0: res_mkquery. The OPT record says that we take answers of
// maxUDP bytes (RFC 6891, 6.1.2).
func mkquery(name string, typ uint16) ([]byte, bool) {
	b := []byte{0, 0, flagRD >> 8, 0, 0, 1, 0, 0, 0, 0, 0, 1}
	b, ok := appendName(b, name)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = append(b, 0, 0, typeOPT, maxUDP>>8, maxUDP&0xff, 0, 0, 0, 0, 0, 0)
	return b, ok
}

// mkanswer begins an answer to a query, of which it gets the header and the question: it has the
// same ID and question, and no records.
func mkanswer(query []byte, rcode uint16) []byte {
	b := append([]byte(nil), query...)
	rd := binary.BigEndian.Uint16(query[2:]) & flagRD
	binary.BigEndian.PutUint16(b[2:], flagQR|flagRA|rd|rcode)
	for i := 4; i < headerLen; i++ {
		b[i] = 0
	}
	b[5] = 1
	return b
}

// appendAnswer appends a record to an answer that mkanswer has begun. If owner is empty, it is the
// question's name.
func appendAnswer(b []byte, owner string, typ uint16, data []byte) []byte {
	if owner == "" {
		b = append(b, 0xc0, headerLen)
	} else {
		b, _ = appendName(b, owner)
	}
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, 0) // nobody keeps it
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	binary.BigEndian.PutUint16(b[6:], binary.BigEndian.Uint16(b[6:])+1)
	return append(b, data...)
}

// appendAddr appends the A or AAAA record of an address.
func appendAddr(b []byte, owner string, a netip.Addr) []byte {
	if a.Is4() {
		return appendAnswer(b, owner, typeA, a.AsSlice())
	}
	return appendAnswer(b, owner, typeAAAA, a.AsSlice())
}

// rcode returns the response code, with the upper bits that an OPT record has (RFC 6891, 6.1.3),
// and whether there is any additional record. The records that follow the answers begin at off.
func rcode(msg []byte, h header, off int) (code uint16, additional bool) {
	code = h.flags & rcodeMask
	for i := range h.n[2] + h.n[3] {
		r, ok := parseRecord(msg, off)
		if !ok {
			break
		}
		additional = additional || i >= h.n[2]
		if i >= h.n[2] && r.typ == typeOPT {
			return code | uint16(r.ttl>>24)<<4, additional
		}
		off = r.end
	}
	return code, additional
}

const hexDigits = "0123456789abcdef"

// reverse returns the name under which the names of an address are found, with a dot at its end:
// RFC 1035, 3.5, and RFC 3596, 2.5.
func reverse(a netip.Addr) string {
	var b []byte
	if a.Is4() {
		v := a.As4()
		for i := len(v) - 1; i >= 0; i-- {
			b = append(strconv.AppendUint(b, uint64(v[i]), 10), '.')
		}
		return string(b) + "in-addr.arpa."
	}
	v := a.As16()
	for i := len(v) - 1; i >= 0; i-- {
		b = append(b, hexDigits[v[i]&15], '.', hexDigits[v[i]>>4], '.')
	}
	return string(b) + "ip6.arpa."
}

// unreverse returns the address of which name is the reverse name.
func unreverse(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		octets := strings.Split(rest, ".")
		slices.Reverse(octets)
		a, err := netip.ParseAddr(strings.Join(octets, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var v [16]byte
	for i := range 32 {
		x := strings.IndexByte(hexDigits, rest[2*i])
		if x < 0 || i > 0 && rest[2*i-1] != '.' {
			return netip.Addr{}, false
		}
		v[15-i/2] |= byte(x) << (4 * (i % 2))
	}
	return netip.AddrFrom16(v), true
}
