package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// How the tunnel stands, and why nothing comes through. A tunnel keeps trying whatever it learns: an ICMP error may be forged, or be true for a moment only. So
// all of this is for people to read. Nothing that arrives without proof of the key changes more of it than a counter, except the socket's last error.

// UDPStatus tells how a [UDPTunnel] stands with its peer.
type UDPStatus struct {
	Peer netip.AddrPort // not valid: there is none yet

	Established   bool      // there is a session; in plain mode there never is
	Since         time.Time // since when there has been one without a break, if there is
	LastHandshake time.Time // when the newest session that both ends know of began; zero: there was none
	LastHeard     time.Time // when something that proves the key was last received; zero: never

	Unanswered int    // handshakes begun since the last that came to an end
	Unverified uint64 // datagrams that were dropped as they were not made with the key, or are not of the protocol

	SocketErr     error     // the system's last error about a datagram to the peer, such as syscall.ECONNREFUSED of an ICMP message; nil: none
	SocketErrTime time.Time // and when

	Err error // why nothing comes through; nil: it does, or nobody has tried
}

// socketTrouble is the last error of the socket.
type socketTrouble struct {
	mu       sync.Mutex
	err      error
	at       int64
	received uint64 // packets, until then
}

// note remembers an error of the socket's about a datagram that was sent.
func (l *UDPTunnel) note(err error) {
	if err == nil || err == errSocketFull || err == errTooLarge || l.state.Load() == stateClosed {
		return
	}
	t := &l.trouble
	now := l.now()
	t.mu.Lock()
	t.err, t.at, t.received = err, now, l.stats.received.Load()
	t.mu.Unlock()
}

// noteICMP remembers what an ICMP message says of a datagram to an address where the peer is or may be.
func (l *UDPTunnel) noteICMP(err error, to netip.AddrPort) {
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

// Status returns how the tunnel stands.
func (l *UDPTunnel) Status() UDPStatus {
	c := &l.stats
	s := UDPStatus{Peer: l.plain, Unverified: c.forged.Load() + c.malformed.Load()}
	l.trouble.mu.Lock()
	err, at, fresh := l.trouble.err, l.trouble.at, l.trouble.received == c.received.Load()
	l.trouble.mu.Unlock()
	if s.SocketErr = err; err != nil {
		s.SocketErrTime = l.wall(at)
	}
	switch {
	case l.state.Load() == stateClosed:
		s.Err = net.ErrClosed
	case l.m == nil && err != nil && fresh:
		s.Err = fmt.Errorf("udp tunnel: nothing is heard from %v: %w", l.plain, cause(err))
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
	if m.shook != udpLongAgo {
		s.LastHandshake = l.wall(m.shook)
	}
	if m.heard != udpLongAgo {
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

// Diagnose says why nothing comes through, wherever it is to go; nil: it does, or nobody has tried.
func (l *UDPTunnel) Diagnose(netip.Addr) error { return l.Status().Err }

// wall is the time of day at an instant of the tunnel's time.
func (l *UDPTunnel) wall(t int64) time.Time { return l.epoch.Add(time.Duration(t)) }

// cause leaves out of an error what package net says about the call, as it stands in the sentence anyway.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// complaint says why there is no session that works, or nil. err is what the system has said of a datagram since the peer was last heard of, or nil.
func (m *udpMachine) complaint(local netip.AddrPort, err error) error {
	patience := m.asked >= 2 // a second has passed without an answer
	switch {
	case m.cur != nil && !(patience && m.heard < m.askedAt):
		return nil
	case m.cur == nil && m.next != nil && !patience, m.cur == nil && m.asked == 0 && m.peer.IsValid():
		return nil
	case !m.peer.IsValid():
		return fmt.Errorf("udp tunnel: nobody who has the key has called at %v%s", local, m.badSigns(""))
	}
	what := fmt.Sprintf("udp tunnel: no answer from %v", m.peer)
	if m.cur == nil && m.heard >= m.askedAt {
		what = fmt.Sprintf("udp tunnel: %v answers, but does not get what this end sends then", m.peer)
	}
	if m.shook != udpLongAgo {
		what += fmt.Sprintf(" for %v; there was a session before", time.Duration(m.now-m.askedAt).Round(time.Second))
	}
	if err != nil {
		return fmt.Errorf("%s%s: %w", what, m.badSigns(""), cause(err))
	}
	silence := fmt.Sprintf(" to %s: the host is down, something on the way drops the datagrams, or its key is another and it does not answer", several(uint64(m.asked), "handshake"))
	if m.shook != udpLongAgo {
		silence = ": the other end has gone, or the way to it"
	}
	return errors.New(what + m.badSigns(silence))
}

// badSigns says what has arrived instead of an answer, or otherwise what it is given.
func (m *udpMachine) badSigns(otherwise string) string {
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
func (m *udpMachine) suspect(v udpVerdict) {
	switch v {
	case udpForged:
		m.forged++
	case udpMalformed:
		m.strange++
	}
}

// agreed takes note of a session that both ends know of: what was wrong before is over.
func (m *udpMachine) agreed() {
	m.shook, m.heard = m.now, m.now
	m.asked, m.askedAt, m.forged, m.strange = 0, udpLongAgo, 0, 0
}
