package wire

import "encoding/binary"

// Sizes of a capture file's parts, in bytes.
const (
	PcapHeaderLen = 24
	PcapRecordLen = 16
)

// PcapHeader returns the header of a capture file of raw IP packets (LINKTYPE_RAW) with times in
// nanoseconds, as tcpdump and Wireshark read it (draft-ietf-opsawg-pcap).
func PcapHeader(snaplen int) [PcapHeaderLen]byte {
	var h [PcapHeaderLen]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], 0xa1b23c4d)
	le.PutUint16(h[4:], 2)
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], uint32(snaplen))
	le.PutUint32(h[20:], 101)
	return h
}

// PcapRecord returns the header of a packet of size bytes, captured at t (nanoseconds since 1970),
// of which the first n follow.
func PcapRecord(t int64, n, size int) [PcapRecordLen]byte {
	var h [PcapRecordLen]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], uint32(t/1e9))
	le.PutUint32(h[4:], uint32(t%1e9))
	le.PutUint32(h[8:], uint32(n))
	le.PutUint32(h[12:], uint32(size))
	return h
}

// PcapCaptured returns how many bytes of the packet follow the record's header that b begins with.
func PcapCaptured(b []byte) int { return int(binary.LittleEndian.Uint32(b[8:])) }
