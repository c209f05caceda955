package simnet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

// A record is a packet in a capture.
type record struct {
	at   time.Duration // since the first packet
	data []byte
}

// records reads a capture.
func records(file []byte) (list []record) {
	le := binary.LittleEndian
	var start int64
	for b := file[24:]; len(b) >= 16; {
		at := int64(le.Uint32(b))*1e9 + int64(le.Uint32(b[4:]))
		n := int(le.Uint32(b[8:]))
		if start == 0 {
			start = at
		}
		list = append(list, record{time.Duration(at - start), b[16 : 16+n]})
		b = b[16+n:]
	}
	return list
}

func (r record) String() string {
	b := r.data
	return fmt.Sprintf("%v %d.%d.%d.%d:%d > %d.%d.%d.%d:%d flags %#x seq %d ack %d win %d length %d %q", r.at,
		b[12], b[13], b[14], b[15], binary.BigEndian.Uint16(b[20:]), b[16], b[17], b[18], b[19],
		binary.BigEndian.Uint16(b[22:]), b[33], binary.BigEndian.Uint32(b[24:]), binary.BigEndian.Uint32(b[28:]),
		binary.BigEndian.Uint16(b[34:]), len(b), b[20+int(b[32]>>4)*4:])
}

// firstDifference describes the first packet in which two captures differ.
func firstDifference(x, y []byte) string {
	a, b := records(x), records(y)
	for i := range a {
		if i >= len(b) || a[i].at != b[i].at || !bytes.Equal(a[i].data, b[i].data) {
			s := ""
			for j := max(i-5, 0); j < i+5; j++ {
				if j < len(a) && j < len(b) {
					s += fmt.Sprintf("packet %d: %v\n     then: %v\n", j, a[j], b[j])
				}
			}
			return s
		}
	}
	return fmt.Sprintf("%d packets, then %d", len(a), len(b))
}
