package netem

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"bsdnet/internal/kern/wire"
)

// flowKey identifies a flow: one direction of a conversation between two ports or, if the protocol
// has no ports, between two hosts. It consists of the IP version, the protocol, the source and
// destination address (16 bytes each) and the source and destination port. Flows are sorted by
// these bytes. All packets that are not IP belong to the flow with the zero key.
type flowKey [38]byte

// The extension headers of IPv6 (RFC 8200, 4; RFC 4302; numbers assigned by IANA). flowOf looks
// behind all of them.
const (
	protoHopByHop       = 0
	protoRouting        = 43
	protoFragment       = 44
	protoAuthentication = 51
	protoDestination    = 60
	protoMobility       = 135
	protoHIP            = 139
	protoShim6          = 140
)

// flowOf returns the flow of a packet, which may be malformed.
func flowOf(b []byte) (k flowKey) {
	if len(b) == 0 {
		return k
	}
	switch b[0] >> 4 {
	case 4:
		return flowOf4(b)
	case 6:
		return flowOf6(b)
	}
	return k
}

func flowOf4(b []byte) (k flowKey) {
	v, ok := wire.ViewIPv4(b)
	if !ok {
		return k
	}
	k[0] = 4
	k[1] = v.Proto()
	src, dst := v.Src().As4(), v.Dst().As4()
	copy(k[2:], src[:])
	copy(k[18:], dst[:])
	// Only the first fragment has the ports, so the ports of fragments are ignored: all fragments
	// of the conversation are in one flow.
	if v.Flags()&wire.IPMF == 0 && v.Off() == 0 {
		k.setPorts(v.Payload())
	}
	return k
}

func flowOf6(b []byte) (k flowKey) {
	if len(b) < 40 {
		return k
	}
	k[0] = 6
	copy(k[2:], b[8:24])
	copy(k[18:], b[24:40])
	k[1] = b[6]
	for rest := b[40:]; ; {
		n := extensionLen(k[1], rest)
		if n == 0 {
			k.setPorts(rest)
			return k
		}
		if len(rest) < n {
			return k
		}
		// As in IPv4, all fragments of the conversation are in one flow. Every fragment of a packet
		// has the same Next Header value. A packet that is whole in spite of its Fragment header
		// (RFC 6946, an "atomic fragment") has its ports.
		fragment := k[1] == protoFragment && binary.BigEndian.Uint16(rest[2:])&^6 != 0
		k[1] = rest[0]
		if fragment {
			return k
		}
		rest = rest[n:]
	}
}

// extensionLen returns the length of an extension header that begins b, in bytes, which may be more
// than b has. It returns 0 if next is not the number of an extension header.
func extensionLen(next byte, b []byte) int {
	switch next {
	case protoHopByHop, protoRouting, protoDestination, protoMobility, protoHIP, protoShim6:
		if len(b) < 2 {
			return 8
		}
		return (int(b[1]) + 1) * 8
	case protoFragment:
		return 8
	case protoAuthentication:
		if len(b) < 2 {
			return 8
		}
		return (int(b[1]) + 2) * 4 // RFC 4302, 2.2: "in 32-bit words (4-byte units), minus \"2\""
	}
	return 0
}

// setPorts sets the ports from b, the bytes behind the IP headers, if the protocol has ports.
func (k *flowKey) setPorts(b []byte) {
	if (k[1] == wire.ProtoTCP || k[1] == wire.ProtoUDP) && len(b) >= 4 {
		copy(k[34:], b[:4])
	}
}

// dst returns the destination address of a flow, or the zero Addr if it is not IP.
func (k *flowKey) dst() netip.Addr {
	if k[0] == 0 {
		return netip.Addr{}
	}
	_, dst := k.addrs()
	return dst.Addr()
}

// hash mixes a flow with a seed.
func (k *flowKey) hash(seed uint64) uint64 {
	var words [40]byte
	copy(words[:], k[:])
	h := mix(seed)
	for i := 0; i < len(words); i += 8 {
		h = mix(h ^ binary.LittleEndian.Uint64(words[i:]))
	}
	return h
}

// mix adds the increment of SplitMix64 and applies its finalizer (Steele, Lea, Flood: Fast
// Splittable Pseudorandom Number Generators, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// The purposes for which a packet draws a random number. Each purpose has its own number, so no
// draw depends on whether another draw was made.
const (
	drawLoss = iota
	drawState
	drawBurst
	drawDuplicate
	drawCorrupt
	drawBit
	drawReorder
	drawJitter
)

// fate is the random number from which all draws of one packet are derived.
type fate uint64

// draw returns the packet's random number for a purpose, uniform over all of uint64.
func (f fate) draw(purpose uint64) uint64 {
	return mix(uint64(f) + purpose*0xd1342543de82ef95)
}

// below returns a random number for a purpose, uniform over 0 <= x < n.
func (f fate) below(purpose, n uint64) uint64 {
	hi, _ := bits.Mul64(f.draw(purpose), n)
	return hi
}

// chance is a probability in units of 2^-53. It is an integer, because floating point does not give
// the same bits on every machine.
type chance uint64

func chanceOf(p float64) chance { return chance(p * (1 << 53)) }

// hits reports whether an event of probability c happens to the packet.
func (f fate) hits(purpose uint64, c chance) bool {
	return c > 0 && f.draw(purpose)>>11 < uint64(c)
}

// flow is what a line remembers about a flow.
type flow struct {
	key        flowKey
	hash       uint64
	n          uint64 // packets seen
	due        int64  // when the last packet leaves, among those that keep their order
	path       uint64 // the model's path when due was set
	bad        bool   // the state of the Gilbert-Elliott model
	tcp        conversation
	prev, next *flow // in the order of use
}

// maxFlows is how many flows a line remembers.
const maxFlows = 8192

// flowTable holds the flows that a line has seen most recently.
type flowTable struct {
	seed  uint64
	flows map[flowKey]*flow
	used  flow // the head of a ring: next is the most recently used flow, prev the least recently used

	// worn keeps, by hash, how many packets a forgotten flow had seen, so that the flow goes on
	// from there if it comes back. Otherwise a flow that is forgotten between any two of its
	// packets would draw the same number forever.
	worn []uint64
}

func (t *flowTable) init(seed uint64) {
	t.seed = seed
	t.flows = make(map[flowKey]*flow)
	t.used.next, t.used.prev = &t.used, &t.used
}

// get returns the flow with a key. It makes the flow if the table does not have it.
func (t *flowTable) get(key *flowKey) *flow {
	f := t.flows[*key]
	switch {
	case f != nil:
		f.prev.next, f.next.prev = f.next, f.prev
	case len(t.flows) < maxFlows:
		f = new(flow)
		t.begin(f, key)
	default:
		f = t.used.prev
		f.prev.next, f.next.prev = f.next, f.prev
		if t.worn == nil {
			t.worn = make([]uint64, maxFlows)
		}
		worn := &t.worn[f.hash%maxFlows]
		*worn = max(*worn, f.n)
		delete(t.flows, f.key)
		t.begin(f, key)
	}
	f.prev, f.next = &t.used, t.used.next
	f.prev.next, f.next.prev = f, f
	return f
}

func (t *flowTable) begin(f *flow, key *flowKey) {
	*f = flow{key: *key, hash: key.hash(t.seed)}
	if t.worn != nil {
		f.n = t.worn[f.hash%maxFlows]
	}
	t.flows[*key] = f
}
