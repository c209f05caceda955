package kern

import (
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// SYN cookies (RFC 4987, 3.6): if the syncache has no place for a handshake, the stack keeps no
// state of it. The initial sequence number of its SYN,ACK is a keyed hash, whose low bits say what
// the stack must remember; the final ACK brings the number back. If the peer uses timestamps, the
// window scale and SACK travel in the low bits of our timestamp, which the peer echoes. If it does
// not, the sequence number holds all of them, as FreeBSD's does: MSS, scale and SACK in a byte.
//
//	Iss: 24 bits of hash | 1 bit time | 3 bits MSS | 3 bits scale | 1 bit SACK
//	TS:  clock with its low 6 bits replaced: 1 bit scaled | 4 bits scale | 1 bit SACK

const (
	cookieTick = int64(60 * time.Second) // the hash changes this often
	cookieLife = 2 * cookieTick
)

var (
	cookieMSS   = [8]uint16{216, 536, 1200, 1360, 1400, 1440, 1452, 1460}
	cookieScale = [8]uint8{0, 0, 2, 4, 6, 7, 8, 14} // the first place stands for no scale; others are rounded down
)

const cookieBits = 8

// maxScale is the largest window scale: RFC 7323, 2.3.
const maxScale = 14

// cookieMAC returns the hash of a cookie. It covers all that an attacker must not be able to
// change: the addresses, the peer's initial sequence number, the time and the low bits.
func (k *Kernel) cookieMAC(t *tuple, irs tcp.Seq, tick int64, low uint8) uint32 {
	extra := uint64(irs)<<32 | uint64(uint32(tick))<<8&0xffffff00 | uint64(low)
	return uint32(prf(k.seed.cookie, t, extra)) &^ (1<<cookieBits - 1)
}

// cookie returns the sequence number that stands for the entry, and the timestamp offset that
// encodes the rest.
func (k *Kernel) cookie(e *scEntry, now int64) (iss tcp.Seq, tsOffset uint32) {
	o := &e.s.Opt
	tick := now / cookieTick
	low := uint8(tick&1) << 7
	mss := k.mssdflt(&e.t)
	if o.Has&wire.TofMSS != 0 {
		mss = int(o.MSS)
	}
	low |= uint8(rounddown(cookieMSS[:], uint16(min(mss, 65535)))) << 4
	if o.Has&wire.TofScale != 0 {
		low |= uint8(1+rounddown(cookieScale[1:], o.Scale)) << 1
	}
	if o.Has&wire.TofSackperm != 0 {
		low |= 1
	}
	if o.Has&wire.TofTS != 0 {
		tsOffset = k.tsOffset(&e.t)
		// The offset is chosen so that the timestamp of this SYN,ACK says in its low bits which
		// options were agreed.
		bits := uint32(0)
		if o.Has&wire.TofScale != 0 {
			bits = 1<<5 | uint32(o.Scale)<<1
		}
		bits |= uint32(low & 1)
		base := tcp.TSClock(now, tsOffset)
		tsOffset += (base&^63 | bits) - base
	}
	return tcp.Seq(k.cookieMAC(&e.t, e.s.Irs, tick, low) | uint32(low)), tsOffset
}

func rounddown[T uint8 | uint16](tab []T, v T) int {
	i := len(tab) - 1
	for i > 0 && tab[i] > v {
		i--
	}
	return i
}

// cookieCheck makes the entry again from the final ACK, and returns it with scRemove, as for an
// entry that has been taken out of the table. It returns scBadack if the ACK brings no valid
// cookie, or if so_q is full.
func (k *Kernel) cookieCheck(head *Socket, in *tcpIn) (*scEntry, scVerdict) {
	th := &in.th
	iss, irs := th.Ack-1, th.Seq-1
	low := uint8(iss)
	tick := in.now / cookieTick
	// The cookie says whether its minute was even. So a cookie of this minute or the one before is
	// valid, and an older one fails the hash.
	if uint8(tick&1) != low>>7 {
		tick--
	}
	// RFC 9293, 3.10.7.2, second: "Any acknowledgment is bad if it arrives on a connection still in
	// the LISTEN state", so an ACK without a valid cookie draws a reset.
	if uint32(iss)&^(1<<cookieBits-1) != k.cookieMAC(&in.t, irs, tick, low) {
		return nil, scBadack
	}
	if head.lq.full() {
		k.Stats.TCP.Listendrop.Inc()
		// There is no entry whose SYN,ACK would be sent again. The peer takes the connection for
		// established, so a reset tells it that it is not.
		return nil, scBadack
	}
	k.Stats.TCP.ScRecvcookie.Inc()
	syn := *in
	syn.th.Seq = irs
	o := &syn.th.Opt
	*o = wire.Options{Has: wire.TofMSS, MSS: cookieMSS[low>>4&7]}
	if low&1 != 0 {
		o.Has |= wire.TofSackperm
	}
	var offset uint32
	if th.Opt.Has&wire.TofTS != 0 {
		bits := th.Opt.TSEcr & 63
		if bits>>5 != 0 {
			o.Has |= wire.TofScale
			// The peer may have changed the low bits of the timestamp it echoes, which no hash
			// covers. RFC 7323, 2.3: the scale "MUST be limited to 14".
			o.Scale = min(uint8(bits>>1&15), maxScale)
		}
		o.Has |= wire.TofTS
		o.TSVal = th.Opt.TSVal
		// Our timestamps must not go back, so the clock goes on from the one that the peer echoes.
		offset = th.Opt.TSEcr - tcp.TSClock(in.now, 0)
	} else if i := low >> 1 & 7; i != 0 {
		o.Has |= wire.TofScale
		o.Scale = cookieScale[i]
	}
	e := scEntries.Get().(*scEntry)
	k.newEntry(e, head, &syn)
	// When the handshake began is not known, so it gives no measurement of the round-trip time.
	e.s.Iss, e.s.Start, e.s.TSOffset = iss, 0, offset
	return e, scRemove
}
