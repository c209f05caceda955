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

// How the tunnel stands, and why nothing comes through. A tunnel keeps trying whatever it learns: an ICMP error may be forged, or be true for a moment only. So
// all of this is for people to read. Nothing that arrives without proof of the key changes more of it than a counter, except the socket's last error.

// A Status tells how a [Link] stands with its other end. It is for people: a tunnel goes on trying whatever it says, and nothing that arrives without
// proof of the key changes more of it than a counter, except SocketErr, as ICMP messages prove nothing.
type Status struct {
	// Peer is the address of the other end: see [Link.Peer].
	Peer netip.AddrPort

	// Established says that there is a session, and Since is when the first of those began that followed one another without a break. Without Key there never is
	// one. An idle tunnel's session ends after three minutes, and the next packet asks for a new one.
	Established bool
	Since       time.Time

	// LastHandshake is when the two ends last agreed on a session, LastHeard when a datagram last arrived that proves the key. Zero: never.
	LastHandshake, LastHeard time.Time

	// Unanswered is how many handshakes were begun since the last that came to an end; one a second is as long as there is something to send.
	Unanswered int

	// Unverified are the datagrams that were dropped because they were not made with the key, or are not of the protocol: Stats.Forged and Malformed. If they
	// come where the other end's should, its key is another. Anybody can send them.
	Unverified uint64

	// SocketErr is the system's last error about a datagram to the other end, nil if there was none, and SocketErrTime its time. On Linux that is also what ICMP
	// says, such as syscall.ECONNREFUSED: nothing listens there.
	SocketErr     error
	SocketErrTime time.Time

	// Err says in a sentence why nothing comes through. It wraps SocketErr if that is the reason. nil: the other end answers, or nobody has tried.
	// net.ErrClosed: the tunnel is closed. An end with another key does not answer, so that here it looks as if nobody were there; that end counts Unverified.
	Err error
}

// socketTrouble is the last error of the socket.
type socketTrouble struct {
	mu       sync.Mutex
	err      error
	at       int64
	received uint64 // packets, until then
}

// note remembers an error of the socket's about a datagram that was sent.
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

// noteICMP remembers what an ICMP message says of a datagram to an address where the peer is or may be.
func (l *Link) noteICMP(err error, to netip.AddrPort) {
	mine := to == noZone(l.plain)
	if l.m != nil {
		l.mu.Lock()
		mine = to == noZone(l.m.peer) || to == noZone(l.m.home)
		l.mu.Unlock()
	}
	if mine {
		l.note(err)
	}
}

func noZone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// isHint reports whether an error that the socket returns may be of a datagram that was sent before, as ICMP messages tell it: it is none of the socket's own.
func isHint(err error) bool {
	for _, errno := range [...]syscall.Errno{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EACCES,
		syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP, syscall.EMSGSIZE,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Status returns how the tunnel stands with the other end.
func (l *Link) Status() Status {
	c := &l.stats
	s := Status{Peer: l.plain, Unverified: c.forged.Load() + c.malformed.Load()}
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
	s.Peer, s.Unanswered = m.peer, m.asked
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

// Diagnose implements bsdnet.DiagnosingLink: it returns the Err of [Link.Status].
func (l *Link) Diagnose(netip.Addr) error { return l.Status().Err }

// wall is the time of day at an instant of the tunnel's time.
func (l *Link) wall(t int64) time.Time { return l.epoch.Add(time.Duration(t)) }

// cause leaves out of an error what package net says about the call, as it stands in the sentence anyway.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// complaint says why there is no session that works, or nil. err is what the system has said of a datagram since the peer was last heard of, or nil.
func (m *machine) complaint(local netip.AddrPort, err error) error {
	patience := m.asked >= 2 // a second has passed without an answer
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
		what = fmt.Sprintf("udptunnel: %v answers, but does not get what this end sends then", m.peer)
	}
	if m.shook != longAgo {
		what += fmt.Sprintf(" for %v; there was a session before", time.Duration(m.now-m.askedAt).Round(time.Second))
	}
	if err != nil {
		return fmt.Errorf("%s%s: %w", what, m.badSigns(""), cause(err))
	}
	silence := fmt.Sprintf(" to %s: the host is down, something on the way drops the datagrams, or its key is another and it does not answer", several(uint64(m.asked), "handshake"))
	if m.shook != longAgo {
		silence = ": the other end has gone, or the way to it"
	}
	return errors.New(what + m.badSigns(silence))
}

// badSigns says what has arrived instead of an answer, or otherwise what it is given.
func (m *machine) badSigns(otherwise string) string {
	switch {
	case m.forged > 0:
		return fmt.Sprintf("; %s did not verify: the key at the other end is another, or somebody else sends them", several(m.forged, "datagram"))
	case m.strange > 0:
		return fmt.Sprintf("; %s did not verify, being not of this protocol: another program sends them, or an end with Insecure", several(m.strange, "datagram"))
	}
	return otherwise
}

// several is a number of things in words.
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

// agreed takes note of a session that both ends know of: what was wrong before is over.
func (m *machine) agreed() {
	m.shook, m.heard = m.now, m.now
	m.asked, m.askedAt, m.forged, m.strange = 0, longAgo, 0, 0
}
