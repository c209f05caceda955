package netem

import (
	"encoding/binary"
	"math/bits"

	"bsdnet/internal/kern/wire"
)

// flowKey names a flow: one direction of a conversation between two ports, or between two hosts where there are none. It
// is the IP version, the protocol, source and destination address (16 bytes each) and source and destination port. Its
// byte order is the order of flows. The zero key is the flow of everything that is not IP.
type flowKey [38]byte

// The extension headers of IPv6 that are looked behind, or not, as assigned by IANA.
const (
	protoHopByHop    = 0
	protoRouting     = 43
	protoFragment    = 44
	protoDestination = 60
)

// flowOf returns the flow of a packet, of which it believes nothing.
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
	// Only the first fragment has the ports, so none is asked for them: all fragments are in one flow.
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
	next := b[6]
	for rest := b[40:]; ; {
		k[1] = next
		switch next {
		case protoHopByHop, protoRouting, protoDestination:
			if len(rest) < 2 || len(rest) < (int(rest[1])+1)*8 {
				return k
			}
			next, rest = rest[0], rest[(int(rest[1])+1)*8:]
		default:
			k.setPorts(rest)
			return k
		}
	}
}

// setPorts sets the ports from the bytes behind the IP headers, if the protocol has some.
func (k *flowKey) setPorts(b []byte) {
	if (k[1] == wire.ProtoTCP || k[1] == wire.ProtoUDP) && len(b) >= 4 {
		copy(k[34:], b[:4])
	}
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

// mix is the finalizer of SplitMix64 behind its increment (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
// Generators, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// The purposes for which a packet draws. Each has a number of its own, so that no draw depends on whether another was
// made.
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

// fate is what all draws of one packet come from.
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

// chance is a probability in units of 2^-53: an integer, since floating point does not give the same bits on every
// machine.
type chance uint64

func chanceOf(p float64) chance { return chance(p * (1 << 53)) }

// hits reports whether what has chance c happens to the packet.
func (f fate) hits(purpose uint64, c chance) bool {
	return c > 0 && f.draw(purpose)>>11 < uint64(c)
}

// flow is what a line remembers of a flow.
type flow struct {
	key        flowKey
	hash       uint64
	n          uint64 // packets seen
	due        int64  // when the last of those in order leaves
	bad        bool   // the state of the Gilbert-Elliott model
	prev, next *flow  // in the order of use
}

// maxFlows is how many flows a line remembers.
const maxFlows = 8192

// flowTable is the flows that a line has seen last.
type flowTable struct {
	seed  uint64
	flows map[flowKey]*flow
	used  flow // the head of a ring: next is the flow used last, prev the one to be forgotten first

	// worn keeps, by hash, how many packets a forgotten flow had seen, so that it goes on there if it comes back. If it
	// began anew a flow that is forgotten between any two of its packets would draw one number for ever.
	worn []uint64
}

func (t *flowTable) init(seed uint64) {
	t.seed = seed
	t.flows = make(map[flowKey]*flow)
	t.used.next, t.used.prev = &t.used, &t.used
}

// get returns the flow with a key, made if need be.
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
