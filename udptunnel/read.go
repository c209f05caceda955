package udptunnel

import (
	"errors"
	"net"
	"os"
	"time"

	"bsdnet/internal/link"
)

// The receiving half. One system call reads up to 64 KiB of datagrams from one sender (UDP_GRO);
// each is decrypted from there into the reader's buffer.

// receiver is the state of the receiving half.
type receiver struct {
	buf  []byte // the datagrams of the last read
	end  int    // where the datagrams in buf end
	off  int    // where the next datagram begins
	size int    // the size of each datagram except the last
	src  endpoint
	errs int // how many reads in a row have failed

	// What the machine does not know yet.
	session      *session
	data, newest bool
	any          bool
	control      bool // the machine has processed a message of a handshake
}

// maxReadErrors is how many reads in a row may fail before Read returns the error.
const maxReadErrors = 100

func (r *receiver) init() {
	r.buf = make([]byte, readBuffer)
}

// Read implements bsdnet.Link. It also processes the messages of handshakes.
func (l *Link) Read(bufs [][]byte, sizes []int) (int, error) {
	if err := l.state.IOError("udptunnel"); err != nil || len(bufs) == 0 || len(sizes) == 0 {
		return 0, err
	}
	l.reading.Add(1)
	defer l.stopReading()
	if !l.rmu.TryLock() {
		l.io.SetReadDeadline(past) // makes the daemon stop reading
		l.rmu.Lock()
	}
	defer l.rmu.Unlock()
	n := min(len(bufs), len(sizes))
	for {
		if k := l.takeICMP(bufs[:n], sizes); k > 0 {
			return k, nil
		}
		if k := l.unpack(bufs[:n], sizes); k > 0 {
			return k, nil
		}
		if err := l.fill(); err != nil {
			return 0, err
		}
	}
}

// stopReading ends a Read. If a session is wanted, the daemon goes on reading instead.
func (l *Link) stopReading() {
	if l.reading.Add(-1) == 0 && l.wanted.Load() {
		l.rouse()
	}
}

// past is a deadline that makes a read return at once.
var past = time.Unix(1, 0)

// fill reads from the socket. Other goroutines set a deadline to make it return; it then clears the
// deadline. l.rmu is held.
func (l *Link) fill() error {
	r := &l.rx
	n, size, src, err := l.io.read(r.buf)
	r.off, r.end, r.size = 0, 0, 0
	switch {
	case err == nil:
		r.errs = 0
		if src.IsValid() { // a net.PacketConn may not know the sender, and then nobody has sent it
			r.end, r.size, r.src = n, size, src
		}
		return nil
	case l.state.Load() == link.Closed || errors.Is(err, net.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.io.SetReadDeadline(time.Time{})
		return nil
	}
	told := l.io.drain() > 0
	if !told {
		l.note(err)
	}
	if told || isHint(err) {
		// ICMP may have reported an error about a datagram that was sent before, for example that
		// no socket has its port. Read does not give up, however many such errors there are: the
		// peer may come later, and anyone can forge an ICMP message.
		return nil
	}
	if r.errs++; r.errs < maxReadErrors {
		// On Linux, if an ICMP message comes while the socket's buffer is full, the runtime's
		// poller reports it as if the socket had ended.
		l.io.waitForRoom()
		return nil
	}
	return err
}

// standIn reads while no goroutine is in Read, until one is or the wait is over. It reports whether
// it has processed anything.
func (l *Link) standIn(wait time.Duration) bool {
	if l.reading.Load() > 0 || wait <= 0 || !l.rmu.TryLock() {
		return false
	}
	defer l.rmu.Unlock()
	if l.rx.off < l.rx.end {
		return false // a Read must take these packets first
	}
	l.io.SetReadDeadline(time.Now().Add(wait))
	defer l.io.SetReadDeadline(time.Time{})
	if l.reading.Load() > 0 {
		return false
	}
	if l.fill() != nil {
		return false
	}
	l.unpack(nil, nil)
	return true
}

// unpack decrypts the remaining datagrams into bufs and returns how many packets there are. If
// there is no buffer left, it stops at the first datagram that may contain a packet. l.rmu is held.
func (l *Link) unpack(bufs [][]byte, sizes []int) int {
	r := &l.rx
	n := 0
	for r.off < r.end {
		b := r.buf[r.off:min(r.off+r.size, r.end)]
		if l.m == nil || b[0] == kindData {
			if n == len(bufs) {
				break
			}
			if size := l.unpackData(bufs[n], b); size > 0 {
				sizes[n] = size
				n++
			}
		} else {
			l.unpackControl(b)
		}
		r.off += len(b)
	}
	if l.m != nil {
		l.tell()
		if r.control {
			r.control = false
			l.settle()
		}
	}
	l.stats.received.Add(uint64(n))
	return n
}

// unpackData decrypts one datagram into a buffer and returns the length of its packet, or 0 if
// there is none.
func (l *Link) unpackData(buf, b []byte) int {
	r := &l.rx
	if l.m == nil {
		switch {
		case !r.src.is(l.plain):
			l.stats.unknown.Add(1)
			return 0
		case len(b) > len(buf):
			l.stats.oversized.Add(1)
			return 0
		}
		return copy(buf, b)
	}
	s := r.session
	if index, ok := parseData(b); s == nil || !ok || index != s.local.index() {
		l.tell()
		l.mu.Lock()
		found, v := l.m.find(l.now(), b)
		l.mu.Unlock()
		if found == nil {
			l.count(v)
			return 0
		}
		s, r.session = found, found
	}
	if len(b)-sealLen > len(buf) {
		l.stats.oversized.Add(1)
		return 0
	}
	n, newest, v := s.open(buf, b)
	if v != verdictPacket {
		l.count(v)
		return 0
	}
	r.any = true
	r.data = r.data || n > 0
	r.newest = r.newest || newest
	return n
}

// tell reports to the machine what has arrived since the last call.
func (l *Link) tell() {
	r := &l.rx
	if r.any {
		l.mu.Lock()
		l.m.opened(l.now(), r.session, r.data, r.newest, r.src)
		r.control = r.control || l.m.empty != nil
		l.rearm()
		l.mu.Unlock()
	}
	r.session, r.any, r.data, r.newest = nil, false, false, false
}

// unpackControl passes a message of a handshake to the machine.
func (l *Link) unpackControl(b []byte) {
	l.tell()
	l.mu.Lock()
	v := l.m.input(l.now(), b, l.rx.src)
	if v == verdictHandshake {
		l.rx.control = true
		l.rearm()
	}
	l.mu.Unlock()
	if v != verdictHandshake {
		l.count(v)
	}
}

// count counts a dropped datagram.
func (l *Link) count(v verdict) {
	c := &l.stats
	switch v {
	case verdictMalformed:
		c.malformed.Add(1)
	case verdictUnknown:
		c.unknown.Add(1)
	case verdictForged:
		c.forged.Add(1)
	case verdictReplayed:
		c.replayed.Add(1)
	}
}
