// Package dnstest is a small DNS server for tests, over UDP and TCP, on package net or on a stack.
// Its messages are made by golang.org/x/net/dns/dnsmessage, so that a test does not compare our
// codec with itself.
package dnstest

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A Server answers queries. Its fields must not change while it serves. Names in them are absolute,
// in lower case, with a dot at their end.
type Server struct {
	Addrs map[string][]string // addresses of names; a name without any exists
	CNAME map[string]string   // what names are aliases of
	PTR   map[string][]string // names of reverse names
	TXT   map[string][]string
	MX    map[string]string
	SRV   map[string]uint16 // the port of a service, whose target is the name itself

	RCode    map[string]dnsmessage.RCode // instead of an answer
	Truncate map[string]bool             // over UDP
	Silent   map[string]string           // no answer over the network, or over both if it is "udp tcp"
	Delay    time.Duration               // of each answer

	// Twist changes an answer before it is sent over UDP, and may return several datagrams.
	Twist func(query, answer []byte) [][]byte

	mu      sync.Mutex
	queries []string
}

// Queries returns the questions so far, such as "udp A www.example.com.", in the order in which
// they have arrived.
func (s *Server) Queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.queries...)
}

// Reset forgets the questions so far.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = nil
}

// Answer returns the datagrams that answer a query; over TCP there is at most one.
func (s *Server) Answer(network string, query []byte) [][]byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	s.mu.Lock()
	s.queries = append(s.queries, network+" "+strings.TrimPrefix(q.Type.String(), "Type")+" "+q.Name.String())
	s.mu.Unlock()
	if s.Delay > 0 {
		time.Sleep(s.Delay)
	}
	name := strings.ToLower(q.Name.String())
	if strings.Contains(s.Silent[name], network) {
		return nil
	}
	head := dnsmessage.Header{ID: h.ID, Response: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true}
	records, known := s.records(name, q)
	code, coded := s.RCode[name]
	switch {
	case coded:
		head.RCode, records = code, nil
	case !known:
		head.RCode = dnsmessage.RCodeNameError
	case network == "udp" && s.Truncate[name]:
		head.Truncated, records = true, nil
	}
	answer, err := (&dnsmessage.Message{
		Header: head, Questions: []dnsmessage.Question{q}, Answers: records,
	}).Pack()
	if err != nil {
		panic(err) // the test has made a bad table
	}
	if s.Twist != nil && network == "udp" {
		return s.Twist(query, answer)
	}
	return [][]byte{answer}
}

// records returns the answer to a question, and whether the name exists.
func (s *Server) records(name string, q dnsmessage.Question) (list []dnsmessage.Resource, known bool) {
	owner := q.Name
	add := func(typ dnsmessage.Type, body dnsmessage.ResourceBody) {
		list = append(list, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: owner, Type: typ, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   body,
		})
	}
	for target, alias := s.CNAME[name]; alias; target, alias = s.CNAME[name] {
		known = true
		to := dnsmessage.MustNewName(target)
		add(dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: to})
		if q.Type == dnsmessage.TypeCNAME || len(list) > 20 {
			return list, true
		}
		name, owner = target, to
	}
	addrs, ok := s.Addrs[name]
	known = known || ok
	for _, a := range addrs {
		switch ip := netip.MustParseAddr(a); {
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			add(q.Type, &dnsmessage.AResource{A: ip.As4()})
		case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
			add(q.Type, &dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
	ptrs, ok := s.PTR[name]
	known = known || ok
	for _, ptr := range ptrs {
		if q.Type == dnsmessage.TypePTR {
			add(q.Type, &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(ptr)})
		}
	}
	txts, ok := s.TXT[name]
	known = known || ok
	if q.Type == dnsmessage.TypeTXT && ok {
		add(q.Type, &dnsmessage.TXTResource{TXT: txts})
	}
	mx, ok := s.MX[name]
	known = known || ok
	if q.Type == dnsmessage.TypeMX && ok {
		add(q.Type, &dnsmessage.MXResource{Pref: 10, MX: dnsmessage.MustNewName(mx)})
	}
	port, ok := s.SRV[name]
	known = known || ok
	if q.Type == dnsmessage.TypeSRV && ok {
		add(q.Type, &dnsmessage.SRVResource{Port: port, Target: owner})
	}
	return list, known
}

// ServeUDP answers the queries that arrive at c, until c is closed.
func (s *Server) ServeUDP(c net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		query := append([]byte(nil), b[:n]...)
		go func() {
			for _, answer := range s.Answer("udp", query) {
				c.WriteTo(answer, from)
			}
		}()
	}
}

// ServeTCP answers the queries on the connections of l, until l is closed.
func (s *Server) ServeTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go s.ServeConn(c)
	}
}

// ServeConn answers the queries on a connection, until there is an error.
func (s *Server) ServeConn(c net.Conn) {
	defer c.Close()
	var size [2]byte
	for {
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		for _, answer := range s.Answer("tcp", query) {
			b := binary.BigEndian.AppendUint16(nil, uint16(len(answer)))
			if _, err := c.Write(append(b, answer...)); err != nil {
				return
			}
		}
	}
}

// Serve serves on both sockets, which it closes at the end of the test. Either may be nil.
func (s *Server) Serve(t testing.TB, c net.PacketConn, l net.Listener) {
	if c != nil {
		t.Cleanup(func() { c.Close() })
		go s.ServeUDP(c)
	}
	if l != nil {
		t.Cleanup(func() { l.Close() })
		go s.ServeTCP(l)
	}
}
