package tcp

import "time"

// A Profile is every value in which one TCP differs from another; the functions are the same for
// all. Times are in nanoseconds, sizes in bytes. The values of a stack may be changed by sysctl
// (package kern), under FreeBSD's names, before the sockets are made.
type Profile struct {
	Name string

	// Buffers.
	Sendspace, Recvspace int // initial SO_SNDBUF and SO_RCVBUF
	Maxsockbuf           int // largest of either; the window scale is chosen for it
	// the receive buffer grows with what is read (net.inet.tcp.recvbuf_auto), up to RecvbufMax
	RecvbufAuto      bool
	SendbufAuto      bool // the send buffer with what is acknowledged (net.inet.tcp.sendbuf_auto), up to SendbufMax
	RecvbufMax       int
	SendbufMax       int
	ReassMaxqueuelen int  // blocks that wait out of order on a connection at most (net.inet.tcp.reass.maxqueuelen)
	RoundBufs        bool // round them up to a multiple of the MSS when the connection stands (tcp_mss)
	// so is the window of the SYN,ACK: Net/3 has the new connection's buffers by then, a syncache
	// the listener's
	RoundSynAck bool
	ScaleByBuf  bool // choose the scale for the socket's own buffer (Net/3), not for Maxsockbuf

	// Options on a SYN.
	RFC1323, Sack bool // window scale and timestamps; selective acknowledgments
	DropOptions   bool // rexmit_drop_options: none of them from the third retransmission of a SYN on
	ECN           int  // 0 never, 1 offered and accepted, 2 accepted (RFC 3168)
	ECNRetries    int  // SYNs retransmitted with the offer
	MSSDflt       int  // if the peer names none (RFC 9293, MUST-15), over IPv4
	V6MSSDflt     int  // the same over IPv6
	MinMSS        int  // floor of what a peer or an ICMP message can make us send

	// Congestion control (RFC 5681).
	InitCwndSegs    int  // initial window in segments; RFC 6928's byte bounds apply above 4
	ABC             bool // grow by bytes acknowledged, at most 2 segments an ACK (RFC 3465), not by ACKs
	LimitedTransmit bool // RFC 3042
	NewReno         bool // RFC 6582; off is Reno with BSD's own deflation
	// recovery by SACK and by time (RFC 6675, RFC 8985), congestion control by CC; off: by
	// duplicate acknowledgments, RFC 5681's
	Scoreboard bool
	CC         string // net.inet.tcp.cc.algorithm: what NewCC knows; "": "cubic"

	// Handshakes.
	AnySynTS bool // any SYN for a half-open connection gives it its timestamp (BSD), not only the same SYN again

	// Windows.
	WindowByAck bool // a smaller window counts only if it comes with something newly acknowledged (BSD)

	// Acknowledgments.
	// full segments that are acknowledged at once; 0: by the timer only (and by the reader's window
	// updates)
	AckEvery     int
	AckBySegs    bool  // count segments of any size (BSD), not bytes
	TruncRespond bool  // tcp_respond rounds the window down, as BSD does
	Delack       int64 // delayed acknowledgment
	ChallengeN   int   // challenge ACKs (RFC 5961, 7) for each connection in each ChallengeT
	ChallengeT   int64

	// Retransmission (RFC 6298).
	RTOInit, RTOMin, RTOMax, RTOSlop int64
	PersMin, PersMax                 int64
	MaxRxtShift                      int // retransmissions before ETIMEDOUT
	SynAckRexmits                    int // retransmissions of a SYN,ACK (net.inet.tcp.syncache.rexmtlimit)

	Blackhole bool // pmtud_blackhole_detection: look for a path that loses large segments without a word

	// Closing.
	RSTUnread bool // close with unread data resets (RFC 2525, 2.17)
	// shutdown(SHUT_RD) ends waiting: what is there, and what comes, can still be read (Linux),
	// instead of being thrown away (BSD)
	ShutRdKeeps bool
	// options can be set on a connection that is over, and change nothing (Linux); BSD's
	// tcp_ctloutput fails with ECONNRESET
	OptionsLast bool
	RepeatFIN   bool // each segment in FIN_WAIT_1, CLOSING and LAST_ACK carries the FIN (BSD)
	MSL         int64
	FinWait2    int64 // after a full close; without ShutRdKeeps also after both halves have been shut down
	// how long a connection that its user has closed may go on at less than orphanRate; 0: as long
	// as any other
	Orphan  int64
	RFC6191 bool // timestamps decide about a SYN in TIME_WAIT
	// one that is too old for a new connection is acknowledged (RFC 9293, 3.10.7.4, fourth), not
	// ignored
	TwAckSyn        bool
	NoLocalTimeWait bool // none for a connection over this stack's loopback

	// Segments that should not be.
	DropSynFin, InsecureRST, InsecureSYN, ICMPMayRST bool

	// Keep-alive.
	Keepalive                     bool // on for every new socket
	Keepinit, Keepidle, Keepintvl int64
	Keepcnt                       int
	// MaxUnack ends a connection on time, and counts closed windows and keep-alive probes: Linux's,
	// not FreeBSD's
	UserTimeout    bool
	KeepHalfClosed bool // in FIN_WAIT_2 too, while somebody reads: BSD's TCP leaves it out

	Nodelay bool // TCP_NODELAY on for every new socket
	V6Only  bool // IPV6_V6ONLY on for every new socket of AF_INET6 (net.inet6.ip6.v6only); Linux: off
}

const (
	ms  = int64(time.Millisecond)
	sec = int64(time.Second)
)

// Default is the profile of a stack that nobody configures: FreeBSD's answers, with Go's and
// Linux's defaults.
func Default() *Profile {
	p := FreeBSD()
	p.Name = "Default"
	p.Sendspace, p.Recvspace, p.Maxsockbuf = 256<<10, 256<<10, 8<<20
	p.RecvbufAuto, p.SendbufAuto = true, true
	p.RecvbufMax, p.SendbufMax = p.Maxsockbuf, p.Maxsockbuf/2
	p.RoundBufs = false
	p.ReassMaxqueuelen = 2048 // holes of a third of the segments in a window of 8 MiB
	p.ABC = true
	p.WindowByAck, p.AnySynTS = false, false
	p.AckBySegs, p.TruncRespond = false, false
	p.RTOMin, p.RTOSlop = 200*ms, 0
	p.Blackhole = true
	p.Scoreboard = true
	p.PersMin = 200 * ms
	p.SynAckRexmits = 5 // 63 s, Linux's: with FreeBSD's 15 s a round trip of 30 s never connects
	p.RSTUnread, p.ShutRdKeeps, p.OptionsLast, p.RepeatFIN = true, true, true, false
	p.Orphan = 100 * sec
	p.RFC6191, p.TwAckSyn, p.NoLocalTimeWait = true, true, true
	p.Keepalive, p.Keepidle, p.Keepintvl, p.Keepcnt = true, 15*sec, 15*sec, 9
	p.KeepHalfClosed, p.UserTimeout = true, true
	p.Nodelay, p.V6Only = true, false
	return p
}

// FreeBSD is the profile of a modern BSD.
func FreeBSD() *Profile {
	return &Profile{
		Name:      "FreeBSD",
		Sendspace: 32 << 10, Recvspace: 64 << 10, Maxsockbuf: 2 << 20, RoundBufs: true, ReassMaxqueuelen: 100,
		RFC1323: true, Sack: true, ECN: 2, ECNRetries: 1, MSSDflt: 536, V6MSSDflt: 1220, MinMSS: 216,
		InitCwndSegs: 10, ABC: true, LimitedTransmit: true, NewReno: true,
		WindowByAck: true, AnySynTS: true,
		AckEvery: 2, AckBySegs: true, TruncRespond: true, Delack: 40 * ms, ChallengeN: 5, ChallengeT: sec,
		RTOInit: sec, RTOMin: 30 * ms, RTOMax: 64 * sec, RTOSlop: 200 * ms,
		PersMin: 5 * sec, PersMax: 60 * sec, MaxRxtShift: 12, SynAckRexmits: 3,
		RepeatFIN: true, MSL: 30 * sec, FinWait2: 60 * sec,
		Keepinit: 75 * sec, Keepidle: 7200 * sec, Keepintvl: 75 * sec, Keepcnt: 8,
		ICMPMayRST: true, V6Only: true,
	}
}

// Net3 is the profile of the book: 4.4BSD-Lite2 as its first test program sets it up, without RFC
// 1323.
func Net3() *Profile {
	p := FreeBSD()
	p.Name = "Net3"
	p.Sendspace, p.Recvspace, p.Maxsockbuf = 8<<10, 8<<10, 256<<10
	p.RoundSynAck, p.ScaleByBuf = true, true
	p.RFC1323, p.Sack, p.ECN, p.MSSDflt, p.MinMSS = false, false, 0, 512, 32
	p.InitCwndSegs, p.ABC, p.LimitedTransmit, p.NewReno = 1, false, false, false
	p.AckEvery, p.Delack = 0, 200*ms
	p.ChallengeN = 0
	p.RTOInit, p.RTOMin, p.RTOSlop = 6*sec, sec, 0
	p.FinWait2 = 600 * sec
	p.InsecureRST, p.InsecureSYN = true, true
	return p
}

// AckWar returns how many answers, in how many nanoseconds, what is not acceptable and brings no
// data may draw: ChallengeN, or if that is 0, which sets no limit to challenges, 5 a second.
// Without any limit two ends that disagree about their numbers would answer each other forever
// (RFC 5961, 7).
func (p *Profile) AckWar() (n int, period int64) {
	if p.ChallengeN == 0 {
		return 5, sec
	}
	return p.ChallengeN, p.ChallengeT
}
