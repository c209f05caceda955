package bsdnet

import (
	"net/netip"
	"time"

	"bsdnet/internal/kern"
)

// A ConnInfo describes a connection, or a listener, as of one moment: what netstat and struct
// tcp_info tell. A connection that is in TIME_WAIT or half open has only its addresses and its
// State; a listener has, besides those, only what its connections will inherit.
type ConnInfo struct {
	// ID is the connection's number, which no other connection of the stack has and which is the
	// ConnID of its TraceEvents. It is 0 if there is no socket (TIME_WAIT, half open).
	ID uint32

	Local, Remote netip.AddrPort // Remote is 0.0.0.0:0 or [::]:0, which stands for any, if there is no connection
	State         string         // in BSD's spelling: "ESTABLISHED"

	// Options that both ends have agreed on in the handshake (RFC 7323, RFC 2018, RFC 3168).
	Timestamps, SACK, WindowScale, ECN bool
	SendScale, RecvScale               uint8 // shifts of the windows that arrive, and of those sent

	// Buffers, in bytes.
	SendQueue, RecvQueue   int // sent and not acknowledged, or waiting to be sent; received and not read
	SendBuffer, RecvBuffer int // sizes of the buffers

	// Segments, in bytes.
	MSS     int // payload and TCP options of a full segment that is sent
	PeerMSS int // the same for what the peer may send
	PMTU    int // largest IP packet that is sent

	// Round trips.
	RTT     time.Duration // smoothed (RFC 6298); 0: not measured yet
	RTTVar  time.Duration // mean deviation
	MinRTT  time.Duration // the least so far; 0: not measured yet
	RTO     time.Duration // retransmission time-out
	Backoff int           // time-outs since the last progress, each of which has doubled RTO

	// Congestion control.
	CongestionControl  string // the algorithm
	Recovery           string // of losses: "Open", "Disorder", "CWR", "Recovery" or "Loss", as in Linux
	Cwnd               int    // congestion window, bytes
	Ssthresh           int    // slow start threshold, bytes; 0: there is none, as nothing has been lost yet
	PacingRate         int64  // bytes a second; 0: segments are not paced
	DeliveryRate       int64  // what has arrived at the peer lately, bytes a second; 0: not measured yet
	DeliveryAppLimited bool   // DeliveryRate was measured when there was no more to send

	// What is under way, in bytes.
	InFlight      int           // sent and not acknowledged
	Sacked        int           // of that, acknowledged selectively
	Lost          int           // of that, found lost
	Retransmitted int           // of that, sent again
	ReorderWindow time.Duration // how long an overtaken segment counts as late, not lost (RFC 8985)
	Reordering    bool          // segments have overtaken each other

	// Flow control, in bytes.
	SendWindow int    // the window that the peer has given us
	RecvWindow int    // the window that we have given the peer
	SendNext   uint32 // the next sequence number to be sent, as in a capture
	RecvNext   uint32 // the next that is expected

	// Totals.
	Sent, Recv         uint64 // bytes acknowledged by the peer, and received in order
	Delivered          uint64 // bytes acknowledged, in order or selectively
	Retransmits        int    // segments sent again
	BytesRetransmitted uint64
	DSACKs             int // duplicates that the peer has reported (RFC 2883)

	// What has limited the speed.
	BusyTime      time.Duration // how long there has been data to send, or to be acknowledged
	RwndLimited   time.Duration // how much of that time the peer's window has held data back
	SndbufLimited time.Duration // how much of that time the send buffer was too small
}

// connInfo translates a description of the kernel's.
func connInfo(c *kern.Conn) ConnInfo {
	i := &c.Info
	has := func(option uint8) bool { return i.Options&option != 0 }
	return ConnInfo{
		ID: c.ID, Local: orAny(c.Local, c.Local.Addr()), Remote: orAny(c.Remote, c.Local.Addr()),
		State:      c.State.String(),
		Timestamps: has(kern.OptTimestamps), SACK: has(kern.OptSACK), WindowScale: has(kern.OptWscale),
		ECN:       has(kern.OptECN),
		SendScale: i.SndWscale, RecvScale: i.RcvWscale,
		SendQueue: c.SndQ, RecvQueue: c.RcvQ, SendBuffer: c.SndBuf, RecvBuffer: c.RcvBuf,
		MSS: i.SndMSS, PeerMSS: i.RcvMSS, PMTU: i.PMTU,
		RTT: i.RTT, RTTVar: i.RTTVar, MinRTT: i.MinRTT, RTO: i.RTO, Backoff: i.Backoff,
		CongestionControl: i.CC, Recovery: i.Recovery, Cwnd: i.SndCwnd, Ssthresh: ssthresh(i.SndSsthresh),
		PacingRate: i.PacingRate, DeliveryRate: i.DeliveryRate, DeliveryAppLimited: i.DeliveryApp,
		InFlight: i.InFlight, Sacked: i.Sacked, Lost: i.Lost, Retransmitted: i.Retransmitted,
		ReorderWindow: i.ReorderWindow, Reordering: i.ReorderSeen,
		SendWindow: i.SndWnd, RecvWindow: i.RcvWnd, SendNext: i.SndNxt, RecvNext: i.RcvNxt,
		Sent: i.BytesSent, Recv: i.BytesRcvd, Delivered: i.Delivered,
		Retransmits: i.Rexmits, BytesRetransmitted: i.BytesRexmit, DSACKs: i.DSACKs,
		BusyTime: i.BusyTime, RwndLimited: i.RwndLimited, SndbufLimited: i.SndbufLimited,
	}
}

// orAny returns a, or for none the unspecified address of the family of local, and port 0.
func orAny(a netip.AddrPort, local netip.Addr) netip.AddrPort {
	switch {
	case a.IsValid():
		return a
	case local.Is6():
		return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

// Info returns a description of the connection.
func (c *TCPConn) Info() ConnInfo {
	k := c.so.Conn()
	return connInfo(&k)
}

// Conns lists the stack's connections and listeners, half-open ones and TIME_WAIT included, in
// the order of their addresses: netstat -a.
func (s *Stack) Conns() []ConnInfo {
	var list []ConnInfo
	for _, c := range s.k.Pcblist() {
		list = append(list, connInfo(&c))
	}
	return list
}

// A UDPInfo describes a UDP socket as of one moment: what "netstat -u" tells.
type UDPInfo struct {
	// ID is the socket's number, which no other socket of the stack has.
	ID uint32

	Local, Remote netip.AddrPort // Remote is 0.0.0.0:0 or [::]:0, which stands for any, if there is no peer

	SendQueue  int // bytes that wait on an interface's queue
	RecvQueue  int // memory of the datagrams that have not been read, in bytes: more than their data
	SendBuffer int // the most that SendQueue may be before Write waits, in bytes
	RecvBuffer int // the most that RecvQueue may be before datagrams are dropped, in bytes

	Drops uint64 // datagrams dropped because the receive buffer was full, or memory short
}

// udpInfo translates a description of the kernel's.
func udpInfo(d *kern.Dgram) UDPInfo {
	return UDPInfo{
		ID: d.ID, Local: orAny(d.Local, d.Local.Addr()), Remote: orAny(d.Remote, d.Local.Addr()),
		SendQueue: d.SndQ, RecvQueue: d.RcvQ, SendBuffer: d.SndBuf, RecvBuffer: d.RcvBuf, Drops: d.Drops,
	}
}

// Info returns a description of the socket.
func (c *UDPConn) Info() UDPInfo {
	d := c.so.Dgram()
	return udpInfo(&d)
}

// UDPConns lists the stack's UDP sockets, in the order of their addresses: netstat -u -a.
func (s *Stack) UDPConns() []UDPInfo {
	var list []UDPInfo
	for _, d := range s.k.UDPPcblist() {
		list = append(list, udpInfo(&d))
	}
	return list
}
