package udptunnel

import (
	"errors"
	"net"
	"slices"

	"bsdnet/internal/link"
)

// The sending half. Write puts sealed packets behind one another into a buffer, as long as they
// have the same size; the last one may be shorter. The kernel cuts the buffer into datagrams in one
// system call (UDP_SEGMENT).

// Limits of a group, that is, of the packets in the buffer.
const (
	groupPackets = 64 // UDP_MAX_SEGMENTS of the first kernels that had UDP_SEGMENT
	groupBytes   = maxPayload
)

// errFull says that the socket's buffer is full. errTooLarge says that a datagram is larger than
// the path's MTU.
var (
	errFull     = errors.New("udptunnel: the socket is full")
	errTooLarge = errors.New("udptunnel: datagram larger than the path carries")
)

// transmitter is the state of the sending half.
type transmitter struct {
	buf    []byte            // the group
	size   int               // the size of its datagrams
	n      int               // how many datagrams it has
	short  bool              // the last datagram is shorter: no other may follow it
	pieces bool              // the group is one datagram, to be sent in fragments
	index  [groupPackets]int // the indexes of the packets in the argument of Write

	held    []net.Buffers // the packets that wait for a session, each in one piece
	full    bool          // a Write has taken less than it was given: ready must be called
	blocked bool          // the socket is full, and a goroutine waits for room
	outbox  []message     // messages of a handshake
	limit   int           // the size of the largest packet that the path carries, at most the MTU
	limited int64         // until when limit is believed
}

// Write implements bsdnet.Link. While there is no session, it takes 32 packets, which wait; then
// the link is full. After three seconds without a session it takes packets and drops them. Packets
// that the system does not send are lost.
func (l *Link) Write(pkts []net.Buffers) (int, error) {
	if err := l.state.IOError("udptunnel"); err != nil || len(pkts) == 0 {
		return 0, err
	}
	l.wmu.Lock()
	n, err := l.write(pkts)
	l.tx.full = l.tx.full || err == nil && n < len(pkts)
	l.wmu.Unlock()
	return n, err
}

// write is Write with l.wmu held.
func (l *Link) write(pkts []net.Buffers) (int, error) {
	t := &l.tx
	if l.m == nil {
		if t.blocked {
			return 0, nil
		}
		return l.transmit(pkts, nil, l.plain)
	}
	l.mu.Lock()
	s := l.m.sender(l.now())
	to, drop := l.m.peer, l.m.dropping()
	l.takeMessages()
	l.rearm()
	l.mu.Unlock()
	l.sendMessages()
	switch {
	case s == nil && drop:
		t.dropHeld()
		l.stats.unsent.Add(uint64(len(pkts)))
		return len(pkts), nil
	case s == nil:
		return l.hold(pkts), nil
	}
	if len(t.held) > 0 {
		l.sendHeld(s, to)
	}
	if t.blocked || len(t.held) > 0 {
		return 0, nil
	}
	return l.transmit(pkts, s, to)
}

// hold keeps packets until there is a session, while there is room, and returns how many it has
// taken.
func (l *Link) hold(pkts []net.Buffers) int {
	for i, bufs := range pkts {
		size := 0
		for _, b := range bufs {
			size += len(b)
		}
		if size == 0 || size > l.mtu {
			continue
		}
		if len(l.tx.held) == heldPackets {
			return i
		}
		l.tx.held = append(l.tx.held, net.Buffers{slices.Concat(bufs...)})
	}
	return len(pkts)
}

// dropHeld drops the packets that wait for a session.
func (t *transmitter) dropHeld() {
	clear(t.held)
	t.held = t.held[:0]
}

// sendHeld sends the packets that have waited, or as many as the socket takes.
func (l *Link) sendHeld(s *session, to endpoint) {
	t := &l.tx
	n, _ := l.transmit(t.held, s, to)
	t.held = slices.Delete(t.held, 0, n)
}

// transmit sends packets on a session, or unencrypted if s is nil, and returns how many it has
// taken. l.wmu is held.
func (l *Link) transmit(pkts []net.Buffers, s *session, to endpoint) (int, error) {
	t := &l.tx
	sent := false
	for i, bufs := range pkts {
		size := 0
		for _, b := range bufs {
			size += len(b)
		}
		if size == 0 || size > l.mtu {
			continue
		}
		if !t.fits(size + l.overhead) {
			if n, ok := l.flush(pkts, to); !ok {
				l.noteSent(s, sent)
				return l.cutShort(n)
			}
		}
		if limit := l.pathLimit(); size <= limit { // flush may just have lowered the limit
			t.add(i, bufs, size, s)
			sent = true
		} else if !inPieces(bufs, size) {
			l.tooLarge(bufs, limit)
		} else if n, ok := l.transmitInPieces(pkts, i, size, s, to); !ok {
			l.noteSent(s, sent)
			return l.cutShort(n)
		} else {
			sent = true
		}
	}
	n, ok := l.flush(pkts, to)
	l.noteSent(s, sent)
	if !ok {
		return l.cutShort(n)
	}
	return len(pkts), nil
}

// transmitInPieces sends packet i, whose datagram the path does not carry whole. It returns what
// flush does.
func (l *Link) transmitInPieces(pkts []net.Buffers, i, size int, s *session, to endpoint) (int, bool) {
	if n, ok := l.flush(pkts, to); !ok {
		return n, false
	}
	l.tx.add(i, pkts[i], size, s)
	l.tx.pieces = true
	return l.flush(pkts, to)
}

// cutShort returns what Write returns if the socket did not take packet n.
func (l *Link) cutShort(n int) (int, error) {
	if l.state.Load() == link.Closed {
		return 0, net.ErrClosed
	}
	return n, nil
}

// noteSent tells the machine that data was sent.
func (l *Link) noteSent(s *session, sent bool) {
	if s == nil || !sent {
		return
	}
	l.mu.Lock()
	l.m.sent(l.now(), s, true)
	l.rearm()
	l.mu.Unlock()
}

// fits reports whether a datagram may be added to the group.
func (t *transmitter) fits(size int) bool {
	return t.n == 0 || !t.short && size <= t.size && t.n < groupPackets && len(t.buf)+size <= groupBytes
}

// add appends packet i to the group, sealed if there is a session.
func (t *transmitter) add(i int, bufs net.Buffers, size int, s *session) {
	if t.buf == nil {
		t.buf = make([]byte, 0, groupBytes+tagLen)
	}
	at := len(t.buf)
	b := t.buf
	if s != nil {
		b = b[:at+hdrLen]
		size += sealLen
	}
	for _, p := range bufs {
		b = append(b, p...)
	}
	if s != nil {
		d := s.seal(b[at:])
		if d == nil {
			return // the session may carry no more packets
		}
		b = b[:at+len(d)]
	}
	if t.n == 0 {
		t.size = size
	}
	t.short = size < t.size
	t.index[t.n] = i
	t.n++
	t.buf = b
}

// flush sends the group. If the socket is full or closed, it returns false and the number of the
// first packet that was not sent. Any other error loses the datagram that it is about.
func (l *Link) flush(pkts []net.Buffers, to endpoint) (int, bool) {
	t := &l.tx
	n, group, pieces := t.n, t.buf, t.pieces
	t.n, t.buf, t.short, t.pieces = 0, t.buf[:0], false, false
	for i := 0; i < n; {
		k, err := 0, error(nil)
		if !pieces {
			k, err = l.io.send(group[i*t.size:], t.size, to)
		} else if err = l.io.sendInPieces(group, to); err == nil {
			k = 1
		}
		l.stats.sent.Add(uint64(k))
		i += k
		switch {
		case err == nil:
		case err == errFull:
			l.waitForRoom()
			return t.index[i], false
		case l.state.Load() == link.Closed:
			return t.index[i], false
		case err == errTooLarge && !pieces:
			l.refused(pkts[t.index[i]], group[i*t.size:min((i+1)*t.size, len(group))], to)
			i++
		default:
			l.note(err)
			l.stats.unsent.Add(1)
			i++
		}
	}
	return 0, true
}

// refused is called when the path does not carry a datagram whole, with the datagram and its
// packet. It sends the datagram in fragments or drops it. l.wmu is held.
func (l *Link) refused(bufs net.Buffers, datagram []byte, to endpoint) {
	size := len(datagram) - l.overhead
	l.learnLimit(to, size)
	if !inPieces(bufs, size) {
		l.tooLarge(bufs, l.tx.limit)
	} else if err := l.io.sendInPieces(datagram, to); err != nil {
		l.note(err)
		l.stats.unsent.Add(1)
	} else {
		l.stats.sent.Add(1)
	}
}

// failed is called when a net.PacketConn has not sent a datagram that counts as sent.
func (l *Link) failed(err error, datagram int, to endpoint) {
	l.note(err)
	l.stats.sent.Add(^uint64(0))
	if err != errTooLarge {
		l.stats.unsent.Add(1)
		return
	}
	l.stats.tooLarge.Add(1)
	l.wmu.Lock()
	if size := datagram - l.overhead; size > 0 && size <= l.tx.limit {
		l.learnLimit(to, size)
	}
	l.wmu.Unlock()
}

// waitForRoom starts a goroutine that waits until the socket takes datagrams again. l.wmu is held.
func (l *Link) waitForRoom() {
	if l.tx.blocked {
		return
	}
	l.tx.blocked, l.tx.full = true, true
	l.spawn(func() {
		l.io.waitForRoom()
		l.wmu.Lock()
		l.tx.blocked = false
		l.wmu.Unlock()
		l.settle()
	})
}

// takeMessages moves the machine's messages to the outbox, from which they can be sent without
// l.mu. l.mu is held.
func (l *Link) takeMessages() {
	if len(l.m.out) > 0 {
		l.tx.outbox = append(l.tx.outbox, l.m.out...)
		l.m.out = l.m.out[:0]
	}
}

// sendMessages sends the messages in the outbox. If one cannot be sent it is lost, like any
// datagram. l.wmu is held.
func (l *Link) sendMessages() {
	for i := range l.tx.outbox {
		o := &l.tx.outbox[i]
		_, err := l.io.send(o.bytes(), o.len, o.to)
		l.note(err)
	}
	l.tx.outbox = l.tx.outbox[:0]
}

// settle sends what the machine wants to send and the packets that have waited for it, and calls
// ready if a Write was cut short. The caller holds neither wmu nor mu.
func (l *Link) settle() {
	l.wmu.Lock()
	t := &l.tx
	if l.m != nil {
		l.settleSession()
	}
	call := t.full && !t.blocked && len(t.held) == 0
	if call {
		t.full = false
	}
	l.wmu.Unlock()
	if call && l.state.Load() == link.Started {
		l.ready()
	}
}

// settleSession sends the machine's messages, its empty packet if it wants one, and the packets
// that have waited for a session. l.wmu is held.
func (l *Link) settleSession() {
	t := &l.tx
	l.mu.Lock()
	l.takeMessages()
	if len(t.held) > 0 && l.m.usable() == nil {
		l.m.wait() // their session may have ended before the socket took them
	}
	empty, to, s, drop := l.m.empty, l.m.peer, l.m.usable(), l.m.dropping()
	if empty != nil {
		l.m.sent(l.now(), empty, false)
	}
	l.rearm()
	l.mu.Unlock()
	l.sendMessages()
	if empty != nil && to.IsValid() {
		var b [sealLen]byte
		if d := empty.seal(b[:hdrLen]); d != nil {
			_, err := l.io.send(d, len(d), to)
			l.note(err)
		}
	}
	switch {
	case len(t.held) == 0:
	case s != nil && !t.blocked:
		l.sendHeld(s, to)
	case s == nil && drop:
		l.stats.unsent.Add(uint64(len(t.held)))
		t.dropHeld()
	}
}
