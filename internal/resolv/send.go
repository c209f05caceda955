package resolv

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"time"
)

// Limits of the tries, with the defaults of resolv.conf(5).
const (
	timeout  = 5 * time.Second // for one try, "options timeout"
	attempts = 2               // tries of each server, "options attempts"

	// leastTry is the least time of a try when a context's deadline is shared by all of them.
	leastTry = time.Second

	// maxDatagram is the longest answer over UDP that is read.
	maxDatagram = 4096
)

// An exchange is a query on its way to the servers: res_send. Each try has a socket, and so a port,
// of its own, and an ID (RFC 5452, 9.2).
type exchange struct {
	r       *Resolver
	servers []netip.AddrPort
	msg     []byte // the query
	end     int    // where its question ends
	q       question

	try  int // the number of the try
	conn net.Conn
	err  error // of the try, which has ended before an answer was awaited
	skew time.Duration
}

// newExchange makes an exchange of a query, which must have one question.
func (r *Resolver) newExchange(servers []netip.AddrPort, query []byte) (*exchange, bool) {
	h, q, end, ok := parseQuestion(query)
	if !ok || h.flags&(flagQR|opcodeMask) != 0 {
		return nil, false
	}
	return &exchange{r: r, servers: servers, msg: append([]byte(nil), query...), end: end, q: q}, true
}

func (x *exchange) server() netip.AddrPort { return x.servers[x.try%len(x.servers)] }

// begin opens the socket of a try and sends the query. What fails is told by wait. The caller of
// several exchanges begins one after the other, so that their ports and IDs repeat in a
// testing/synctest bubble.
func (x *exchange) begin(ctx context.Context) {
	limit := timeout
	if deadline, ok := ctx.Deadline(); ok {
		left := attempts*len(x.servers) - x.try
		limit = min(limit, max(time.Until(deadline)/time.Duration(left), leastTry))
	}
	binary.BigEndian.PutUint16(x.msg, x.r.randomID())
	if x.conn, x.err = x.r.env.Dial(ctx, "udp", x.server()); x.err != nil {
		x.conn = nil
		return
	}
	// Two exchanges that have begun at the same instant do not time out at the same instant.
	x.conn.SetDeadline(time.Now().Add(limit + x.skew))
	if _, x.err = x.conn.Write(x.msg); x.err != nil {
		x.conn.Close()
		x.conn = nil
		return
	}
	x.r.Stats.Queries.Add(1)
}

// wait waits for the answer to the try, and closes its socket. If the answer is truncated, it asks
// the same server again over TCP.
func (x *exchange) wait(ctx context.Context) ([]byte, error) {
	if x.conn == nil {
		return nil, x.err
	}
	conn := x.conn
	x.conn = nil
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	msg, err := x.readDatagram(conn)
	stop()
	conn.Close()
	if err != nil {
		return nil, err
	}
	if h, _ := parseHeader(msg); h.flags&flagTC != 0 {
		x.r.Stats.Truncated.Add(1)
		return x.overTCP(ctx)
	}
	return msg, nil
}

// readDatagram waits for the answer. Other datagrams may be forged (RFC 5452, 9.1), and are
// ignored; the socket is connected, and so takes none from other addresses.
func (x *exchange) readDatagram(conn net.Conn) ([]byte, error) {
	b := make([]byte, maxDatagram)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return nil, err
		}
		if x.answers(b[:n]) {
			return b[:n], nil
		}
		x.r.Stats.Ignored.Add(1)
	}
}

// answers reports whether a message is the answer to the query. RFC 5452, 9.1: "the question
// section of the reply packet is equivalent to that of a question packet currently waiting for a
// response", and so is its ID.
func (x *exchange) answers(msg []byte) bool {
	h, q, _, ok := parseQuestion(msg)
	return ok && h.flags&(flagQR|opcodeMask) == flagQR && h.id == binary.BigEndian.Uint16(x.msg) &&
		q.typ == x.q.typ && q.class == x.q.class && equalFold(q.name, x.q.name)
}

// overTCP asks the server over TCP (RFC 7766, 5).
func (x *exchange) overTCP(ctx context.Context) ([]byte, error) {
	limit := time.Now().Add(timeout + x.skew)
	dialCtx, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	conn, err := x.r.env.Dial(dialCtx, "tcp", x.server())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(limit)
	b := binary.BigEndian.AppendUint16(nil, uint16(len(x.msg)))
	if _, err := conn.Write(append(b, x.msg...)); err != nil {
		return nil, err
	}
	x.r.Stats.Queries.Add(1)
	if _, err := io.ReadFull(conn, b[:2]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(b))
	if _, err := io.ReadFull(conn, msg); err != nil {
		return nil, err
	}
	if !x.answers(msg) {
		return nil, errInvalid
	}
	return msg, nil
}

// run asks the servers in order until one answers. If begin has been called, run begins with its
// try. An answer that is no use, such as SERVFAIL, is returned with an error if no server has a
// better one. The ID is that of the last try.
func (x *exchange) run(ctx context.Context) (msg []byte, server string, err error) {
	for ; x.try < attempts*len(x.servers); x.try++ {
		if x.conn == nil && x.err == nil {
			x.begin(ctx)
		}
		answer, tryErr := x.wait(ctx)
		x.err = nil
		if answer != nil {
			x.r.Stats.Answers.Add(1)
		} else if te, ok := tryErr.(net.Error); ok && te.Timeout() {
			x.r.Stats.Timeouts.Add(1)
		}
		if err := ended(ctx); err != nil {
			return nil, "", err
		}
		if answer != nil {
			msg = answer
			tryErr = x.check(answer)
		}
		server, err = x.server().String(), tryErr
		if err == nil || err == errNoSuchHost {
			return msg, server, err
		}
	}
	return msg, server, err
}

// check returns what is wrong with an answer, as package net's checkHeader does. If it returns
// errNoSuchHost, the other servers need not be asked.
func (x *exchange) check(msg []byte) error {
	h, _, off, ok := parseQuestion(msg)
	if !ok {
		return errMalformed
	}
	_, end, ok := parseAnswers(msg, off, h.n[1])
	if !ok {
		return errMalformed
	}
	code, additional := rcode(msg, h, end)
	switch {
	case code == rcodeName:
		return errNoSuchHost
	case code == rcodeServer:
		return errServfail
	case code != rcodeSuccess:
		return errMisbehaving
	case h.flags&(flagAA|flagRA) == 0 && h.n[1] == 0 && !additional:
		return errLame
	}
	return nil
}
