package kern

import (
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// SYN cookies (RFC 4987, 3.6): if the syncache has no place for a handshake, the initial sequence
// number of the answer is a keyed hash that the final ACK brings back, with what must be remembered
// in its low bits; the window scale and whether SACK was agreed travel in our timestamp, if the
// peer echoes one. Without a timestamp the number holds all of it (FreeBSD's way): MSS, scale and
// SACK in a byte.
//
//	Iss: 24 bits of hash | 1 bit time | 3 bits MSS | 3 bits scale | 1 bit SACK
//	TS:  clock with its low 6 bits replaced: 1 bit scaled | 4 bits scale | 1 bit SACK

const (
	cookieTick = int64(60 * time.Second) // the hash changes
	cookieLife = 2 * cookieTick
)

var (
	cookieMSS   = [8]uint16{216, 536, 1200, 1360, 1400, 1440, 1452, 1460}
	cookieScale = [8]uint8{0, 0, 2, 4, 6, 7, 8, 14} // the scales in use, rounded down; the first place is: none
)

const cookieBits = 8

// maxScale is the largest window scale: RFC 7323, 2.3.
const maxScale = 14

// cookieMAC is the hash of a cookie: everything that it must not be possible to change.
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
	mss := k.prof.MSSDflt
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
		// The clock that the peer sees shows the options in its low bits at this moment.
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

// cookieCheck rebuilds the entry from the final ACK: scRemove, as it is in no table any more.
// scBadack: it brings no cookie of ours, or so_q is full.
func (k *Kernel) cookieCheck(head *Socket, in *tcpIn) (*scEntry, scVerdict) {
	th := &in.th
	iss, irs := th.Ack-1, th.Seq-1
	low := uint8(iss)
	tick := in.now / cookieTick
	if uint8(tick&1) != low>>7 {
		tick--
	}
	if uint32(iss)&^(1<<cookieBits-1) != k.cookieMAC(&in.t, irs, tick, low) {
		return nil, scBadack
	}
	if head.lq.full() {
		k.Stats.TCP.Listendrop.Inc()
		return nil, scBadack // nobody would send our SYN,ACK again, so the peer is told
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
			o.Scale = min(uint8(bits>>1&15), maxScale) // it is the peer's word
		}
		o.Has |= wire.TofTS
		o.TSVal = th.Opt.TSVal
		offset = th.Opt.TSEcr - tcp.TSClock(in.now, 0) // our clock goes on from what the peer has seen
	} else if i := low >> 1 & 7; i != 0 {
		o.Has |= wire.TofScale
		o.Scale = cookieScale[i]
	}
	e := scEntries.Get().(*scEntry)
	k.newEntry(e, head, &syn)
	e.s.Iss, e.s.Start, e.s.TSOffset = iss, 0, offset
	return e, scRemove
}
