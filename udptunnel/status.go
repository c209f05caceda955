package udptunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"bsdnet/internal/link"
)

// The status of the tunnel, and the reason why nothing comes through. The status is for people, and
// the tunnel keeps trying whatever it says, because an ICMP error may be forged, or true only for a
// moment. A datagram that does not prove knowledge of the key changes only counters, and the
// socket's last error.

// A Status describes the state of a [Link] and of its other end. It is for people: the tunnel keeps
// trying whatever the Status says. A datagram that does not prove knowledge of the key changes only
// counters and SocketErr.
type Status struct {
	// Peer is the address of the other end: see [Link.Peer] and [Link.PeerAddr].
	Peer netip.AddrPort

	// Established says that there is a session. Since is when the first session began of those that
	// have followed one another without a gap. Without Key there are no sessions. The session of an
	// idle tunnel ends after three minutes; the next packet starts a handshake.
	Established bool
	Since       time.Time

	// LastHandshake is when the two ends last agreed on a session. LastHeard is when a datagram
	// last arrived that proves knowledge of the key. Each is the zero Time if that has not happened
	// yet.
	LastHandshake, LastHeard time.Time

	// Unanswered is how many handshakes this end has started since the two ends last agreed on a
	// session. While there are packets to send, it starts one per second.
	Unanswered int

	// Unverified is how many datagrams were dropped because they were not made with the key or do
	// not belong to the protocol: the sum of Stats.Forged and Stats.Malformed. If such datagrams
	// arrive instead of the other end's, the other end probably has a different key. Anyone can
	// send them.
	Unverified uint64

	// SocketErr is the system's last error about a datagram to the other end, or nil if there was
	// none, and SocketErrTime is its time. On Linux these errors include what ICMP messages say;
	// for example, syscall.ECONNREFUSED says that no socket has the other end's port.
	SocketErr     error
	SocketErrTime time.Time

	// Err says in a sentence why nothing comes through. If SocketErr is the reason, Err wraps it.
	// Err is nil if the other end answers or if this end has not tried to reach it, and
	// net.ErrClosed if the tunnel is closed. An end that has a different key does not answer, so it
	// cannot be told from an end that is down; its own Status counts Unverified datagrams.
	Err error
}

// socketTrouble is the last error of the socket.
type socketTrouble struct {
	mu       sync.Mutex
	err      error
	at       int64
	received uint64 // how many packets had arrived
}

// note records an error of the socket about a datagram that was sent.
func (l *Link) note(err error) {
	if err == nil || err == errFull || err == errTooLarge || l.state.Load() == link.Closed {
		return
	}
	t := &l.trouble
	now := l.now()
	t.mu.Lock()
	t.err, t.at, t.received = err, now, l.stats.received.Load()
	t.mu.Unlock()
}

// noteICMP records what an ICMP message says about a datagram, if the datagram was sent to the
// peer's address or the configured one.
func (l *Link) noteICMP(err error, to endpoint) {
	mine := to.is(l.plain.noZone())
	if l.m != nil {
		l.mu.Lock()
		mine = to.is(l.m.peer.noZone()) || to.is(l.m.home.noZone())
		l.mu.Unlock()
	}
	if mine {
		l.note(err)
	}
}

// noZone returns e without the zone of its address.
func (e endpoint) noZone() endpoint {
	e.AddrPort = netip.AddrPortFrom(e.Addr().WithZone(""), e.Port())
	return e
}

// isHint reports whether an error that the socket returns may be about a datagram that was sent
// before, as an ICMP message reported it, and not about the socket itself.
func isHint(err error) bool {
	for _, errno := range [...]syscall.Errno{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
		syscall.ENETDOWN, syscall.EACCES, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP, syscall.EMSGSIZE,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Status returns the status of the tunnel.
func (l *Link) Status() Status {
	c := &l.stats
	s := Status{Peer: l.plain.AddrPort, Unverified: c.forged.Load() + c.malformed.Load()}
	l.trouble.mu.Lock()
	err, at, fresh := l.trouble.err, l.trouble.at, l.trouble.received == c.received.Load()
	l.trouble.mu.Unlock()
	if s.SocketErr = err; err != nil {
		s.SocketErrTime = l.wall(at)
	}
	switch {
	case l.state.Load() == link.Closed:
		s.Err = net.ErrClosed
	case l.m == nil && err != nil && fresh:
		s.Err = fmt.Errorf("udptunnel: nothing is heard from %v: %w", l.plain, cause(err))
	}
	if l.m == nil {
		return s
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.m
	m.advance(l.now())
	s.Peer, s.Unanswered = m.peer.AddrPort, m.asked
	if s.Established = m.cur != nil; s.Established {
		s.Since = l.wall(m.upSince)
	}
	if m.shook != longAgo {
		s.LastHandshake = l.wall(m.shook)
	}
	if m.heard != longAgo {
		s.LastHeard = l.wall(m.heard)
	}
	if s.Err == nil {
		if at < m.heard || at < m.askedAt {
			err = nil
		}
		s.Err = m.complaint(l.local, err)
	}
	return s
}

// Diagnose implements bsdnet.DiagnosingLink. It returns the Err of [Link.Status].
func (l *Link) Diagnose(netip.Addr) error { return l.Status().Err }

// wall returns the time of day at t, an instant of the tunnel's time.
func (l *Link) wall(t int64) time.Time { return l.epoch.Add(time.Duration(t)) }

// cause returns the errno in an error, without the text that package net puts around it: the
// sentence has the address already.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// complaint returns an error that says why there is no session that works, or nil. err is the
// system's last error since the peer was last heard from, or nil.
func (m *machine) complaint(local endpoint, err error) error {
	patience := m.asked >= 2 // the first HELLO has had no answer for a second
	switch {
	case m.cur != nil && !(patience && m.heard < m.askedAt):
		return nil
	case m.cur == nil && m.next != nil && !patience, m.cur == nil && m.asked == 0 && m.peer.IsValid():
		return nil
	case !m.peer.IsValid():
		return fmt.Errorf("udptunnel: nobody who has the key has called at %v%s", local, m.badSigns(""))
	}
	what := fmt.Sprintf("udptunnel: no answer from %v", m.peer)
	if m.cur == nil && m.heard >= m.askedAt {
		what = fmt.Sprintf("udptunnel: %v answers, but does not receive what this end sends next", m.peer)
	}
	if m.shook != longAgo {
		what += fmt.Sprintf(" for %v; there was a session before", time.Duration(m.now-m.askedAt).Round(time.Second))
	}
	if err != nil {
		return fmt.Errorf("%s%s: %w", what, m.badSigns(""), cause(err))
	}
	silence := fmt.Sprintf(" to %s: the host is down, something on the way drops the datagrams, "+
		"or the other end has a different key and does not answer", several(uint64(m.asked), "handshake"))
	if m.shook != longAgo {
		silence = ": the other end is gone, or cannot be reached any more"
	}
	return errors.New(what + m.badSigns(silence))
}

// badSigns says what has arrived instead of an answer. If nothing has, it returns otherwise.
func (m *machine) badSigns(otherwise string) string {
	switch {
	case m.forged > 0:
		return fmt.Sprintf("; %s did not verify: the other end has a different key, or somebody else sends them",
			several(m.forged, "datagram"))
	case m.strange > 0:
		return fmt.Sprintf("; %s did not belong to this protocol: another program sends them, "+
			"or the other end has Insecure set", several(m.strange, "datagram"))
	}
	return otherwise
}

// several returns a number of things in words.
func several(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// suspect counts a message of a handshake that proves nothing.
func (m *machine) suspect(v verdict) {
	switch v {
	case verdictForged:
		m.forged++
	case verdictMalformed:
		m.strange++
	}
}

// agreed records that both ends know of a session. What was wrong before does not matter any more.
func (m *machine) agreed() {
	m.shook, m.heard = m.now, m.now
	m.asked, m.askedAt, m.forged, m.strange = 0, longAgo, 0, 0
}
