// Package tcp is the TCP protocol machine: RFC 9293 in the shape of 4.4BSD's tcp_output,
// tcp_input's second half (FreeBSD's tcp_do_segment), tcp_timers and tcp_usrclosed. It is pure: it
// takes no lock, starts no goroutine, reads no clock and does no I/O. Time is an argument, in
// nanoseconds since the stack began.
//
//	                         +---------+
//	                         |  CLOSED |<------------------------------+
//	                         +---------+                               |
//	         passive OPEN      |     | Connect / SYN                   |
//	         (kern's syncache) |     v                                 |
//	 LISTEN --- ACK of S. ---> | SYN_SENT --- SYN / S. --+             |
//	                           |     |                   |             |
//	                           v     | S. / ACK          v             |
//	                   SYN_RECEIVED  |             SYN_RECEIVED        |
//	                           |     v                   |             |
//	                           +-> ESTABLISHED <---------+             |
//	                 Usrclosed / FIN |     | FIN / ACK                 |
//	                                 v     v                           |
//	       FIN / ACK    FIN_WAIT_1         CLOSE_WAIT                  |
//	   +--------------------|  | ACK          | Usrclosed / FIN        |
//	   v                       v              v            ACK of FIN  |
//	CLOSING               FIN_WAIT_2       LAST_ACK -------------------+
//	   |                       | FIN / ACK                             |
//	   +---------------------> TIME_WAIT (a record of its own) --------+
//
// A TCB has four kinds of methods, as one should expect of such a machine:
//
//   - from the user: Connect, Passive, Output (after the send buffer has grown or the receive
//     buffer has shrunk), Usrclosed, Orphan, Drop, Reset, Close;
//   - from the network: Input, Ctlinput, Mtudisc, CongestionExperienced, Unblock;
//   - from the clock: Timeout, not before Next;
//   - getters: State, Info, and so on.
//
// Whatever the machine wants done it asks of its Sock. The caller holds the lock that guards the
// TCB and both buffers.
package tcp

import (
	"math"
	"syscall"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/wire"
)

// Seq is a sequence number.
type Seq = wire.Seq

// A State is a state of a connection, numbered as BSD's TCPS_ constants.
type State uint8

// The states (RFC 9293, 3.3.2).
const (
	Closed State = iota
	Listen
	SynSent
	SynReceived
	Established
	CloseWait
	FinWait1
	Closing
	LastAck
	FinWait2
	TimeWait
)

var stateNames = [...]string{"CLOSED", "LISTEN", "SYN_SENT", "SYN_RECEIVED", "ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1",
	"CLOSING", "LAST_ACK", "FIN_WAIT_2", "TIME_WAIT"}

// String returns the state's name in BSD's spelling.
func (s State) String() string { return stateNames[s] }

// HaveRcvdSyn reports whether the peer's SYN has been received: BSD's TCPS_HAVERCVDSYN.
func (s State) HaveRcvdSyn() bool { return s >= SynReceived }

// HaveEstablished reports whether the handshake has been completed: BSD's TCPS_HAVEESTABLISHED.
func (s State) HaveEstablished() bool { return s >= Established }

// haveRcvdFin reports whether the peer's FIN has been processed. BSD's TCPS_HAVERCVDFIN knows only
// TIME_WAIT.
func (s State) haveRcvdFin() bool {
	return s == CloseWait || s == Closing || s == LastAck || s == TimeWait
}

// A Flag is one of a TCB's booleans, under BSD's TF_ names.
type Flag uint32

// The flags.
const (
	AckNow       Flag = 1 << iota // acknowledge at once
	DelAck                        // an acknowledgment is owed; the timer runs
	NoDelay                       // Nagle's algorithm is off
	NoOpt                         // no options at all (TCP_NOOPT)
	NoPush                        // hold back what does not fill a segment (TCP_NOPUSH)
	MoreToCome                    // the user's write goes on
	SentFin                       // our FIN has been sent
	NeedFin                       // send a FIN once SYN_RECEIVED is over
	ReqScale                      // we offer, or have offered, window scaling
	RcvdScale                     // so has the peer
	ReqTstmp                      // the same for timestamps
	RcvdTstmp                     //
	SackPermit                    // SACK is offered, and once the SYN is answered: agreed
	Keepalive                     // SO_KEEPALIVE
	CantRcvMore                   // the user reads no more: SBS_CANTRCVMORE
	UserClosed                    // the user has closed: TF_CLOSED, SS_NOFDREF
	lastIdle                      // idle at the last output, and the write went on
	force                         // send a byte into a closed window: t_force
	rxWin0Sent                    // a window of 0 has been advertised
	fastRecov                     // in fast recovery (RFC 5681)
	ecnOn                         // ECN has been agreed (RFC 3168)
	ecnSndCWR                     // say CWR
	ecnSndECE                     // say ECE until CWR
	blocked                       // the interface's queue holds our share: Output is called when it has drained
	rttTimed                      // rttSeq is being timed
	urgent                        // the urgent pointer has moved, and the peer has not been told
	passive                       // began as a passive open
	whole                         // the way to the peer never cuts segments
	local                         // the peer is on this stack
	AutoRcv                       // the receive buffer may grow: SB_AUTOSIZE
	AutoSnd                       // the send buffer may
	synRexmitted                  // our SYN, or our answer to the peer's, was sent more than once
)

// A flag2 is one of the booleans for which Flag has no room: BSD's t_flags2.
type flag2 uint8

const (
	short flag2 = 1 << iota // data was refused for want of memory: the window says so
	inet6                   // the connection is over IPv6: INP_IPV6
)

// The timers, under BSD's TCPT_ names.
const (
	tRexmt = iota
	tPersist
	tKeep
	t2MSL
	tDelack
	tPace
	nTimers
)

var timerNames = [nTimers]string{"rexmt", "persist", "keep", "2msl", "delack", "pace"}

// A Sock is what the machine asks of the socket above and of IP below. Its methods must not call
// into the TCB.
type Sock interface {
	// Emit sends segment m, which it takes over: a TCP header whose checksum is still to be
	// computed, then payload. It is ip_output.
	Emit(m *mbuf.Mbuf) syscall.Errno
	// Room reports whether the interface's queue takes more data of this connection. If it does
	// not, the owner calls Output when the queue has drained.
	Room() bool
	// The rest are BSD's functions of the same names.
	Soisconnected()
	Soisdisconnected()
	Socantrcvmore()
	Sorwakeup()
	Sowwakeup()
	// Soerror sets so_error.
	Soerror(syscall.Errno)
	// TcpClose: the connection is gone (tcp_close).
	TcpClose()
	// TcpTwstart: the connection is in TIME_WAIT, and what is left of it fits in a TimeWaitRec
	// (tcp_twstart).
	TcpTwstart()
	// Trace tells of an event, if the Env is traced. The Event is lent: it must not be kept.
	Trace(e *Event)
}

// A TCB is a transmission control block: 4.4BSD's struct tcpcb, with its field names in Go's
// spelling. Init makes it usable. Each idle connection has one, so it is packed: fields of a size
// stand together, and TestTCBSize holds the sum.
type TCB struct {
	sock Sock
	*Env // prof, pool, stats
	snd  *mbuf.Sendbuf
	rcv  *mbuf.Sockbuf

	state        State
	backoff      uint8 // t_rxtshift: retransmissions, or window probes, since the last progress
	sndScale     uint8 // shift of windows that we receive
	rcvScale     uint8 // shift of windows that we send
	reqScale     uint8 // what we offer: request_r_scale
	dupacks      uint8 // duplicate acknowledgments in a row, without a scoreboard
	keep         keepalive
	ccWant       uint8 // the congestion controller that was asked for, one of CCNames from 1 on; 0: the profile's
	challenges   uint8 // challenge ACKs since challengeTime
	oowAcks      uint8 // answers to unacceptable acknowledgments since oowTime
	flags2       flag2
	Lport, Fport uint16
	softerr      uint32 // the errno that a time-out will report: t_softerror; no system's have more bits
	flags        Flag
	rexmits      uint32 // segments retransmitted

	// Send sequence space (RFC 9293, 3.3.1), in bytes.
	iss, sndUna, sndNxt, sndMax, sndUp Seq    // sndMax is what sndNxt was at most: it goes back to send again
	sndWl1, sndWl2                     Seq    // sequence number and acknowledgment of the segment that last gave sndWnd
	sndWnd, maxSndwnd                  uint32 // the peer's window, and the largest that it had
	// congestion window, slow start threshold, bytes counted towards the next segment
	sndCwnd, sndSsthresh, cwndBytes uint32
	sndRecover                      Seq // end of the flight in which loss was last found (RFC 6582)
	auto                            autobuf

	mssopt int32 // what we tell the peer
	maxseg int   // payload of a segment without options: t_maxseg
	tsomax int32 // largest chain to emit
	rcvMss int32 // largest segment seen: what the peer calls full

	// Receive sequence space (RFC 9293, 3.3.1).
	irs, rcvNxt, rcvAdv Seq // rcvAdv is the right edge of the window that the peer knows
	lastAckSent         Seq
	rcvFloor            Seq // the edge of the window when its buffer was made smaller

	// Timestamps (RFC 7323).
	tsRecent, tsOffset uint32
	tsRecentAge        uint32 // second in which tsRecent was taken

	reass *reassq // out-of-order data, made when first needed
	snr   *sender // recovery and congestion control of a path that can lose, made when first needed

	rtt           rtt
	rcvTime       int64  // when the last segment was received: t_rcvtime
	clock         int64  // the latest time that it has been told: time never goes back on a connection
	challengeTime uint32 // milliseconds
	oowTime       uint32 // milliseconds
	unackedSince  int64  // when the oldest data in flight was first sent; 0: nothing is in flight
	timers        [nTimers]int64

	// Options of the connection; 0: the profile's value. MaxUnack is the user time-out (RFC 5482).
	Keepinit, Keepidle, Keepintvl, MaxUnack Seconds

	bytesSent, bytesRcvd uint64 // payload acknowledged, and received in order
}

// Never is the time of a timer that is off, and what Next returns if all are.
const Never = math.MaxInt64

const never = Never

// An Env is what a connection shares with others, mostly with all of its stack: what BSD keeps in
// globals.
type Env struct {
	prof   *Profile
	pool   *mbuf.Pool
	stats  *Stats
	traced bool // there is somebody to whom Sock.Trace tells events
}

// NewEnv makes an Env.
func NewEnv(prof *Profile, pool *mbuf.Pool, stats *Stats) *Env {
	return &Env{prof: prof, pool: pool, stats: stats}
}

// SetTraced makes the connections of the Env call Sock.Trace. It is called before the first TCB is
// made.
func (e *Env) SetTraced() { e.traced = true }

// Config is what a TCB is made from.
type Config struct {
	Sock Sock
	Env  *Env
	Snd  *mbuf.Sendbuf
	Rcv  *mbuf.Sockbuf
}

// Init makes tp a TCB in state CLOSED: BSD's tcp_newtcpcb.
func (tp *TCB) Init(c Config) {
	*tp = TCB{sock: c.Sock, Env: c.Env, snd: c.Snd, rcv: c.Rcv}
	for i := range tp.timers {
		tp.timers[i] = never
	}
	tp.maxseg = tp.prof.MSSDflt
	tp.mssopt = int32(tp.prof.MSSDflt)
	tp.rtt.rxtcur = tp.prof.RTOInit
	tp.rtt.min = never
	tp.sndCwnd = maxWin << maxScale
	tp.sndSsthresh = maxWin << maxScale
	if tp.prof.RFC1323 {
		tp.flags |= ReqScale | ReqTstmp
	}
	if tp.prof.Sack {
		tp.flags |= SackPermit
	}
	if tp.prof.Nodelay {
		tp.flags |= NoDelay
	}
	if tp.prof.Keepalive {
		tp.flags |= Keepalive
	}
	if tp.prof.RecvbufAuto {
		tp.flags |= AutoRcv
	}
	if tp.prof.SendbufAuto {
		tp.flags |= AutoSnd
	}
}

const (
	maxWin   = 65535 // TCP_MAXWIN
	maxScale = 14    // TCP_MAX_WINSHIFT
)

// State returns the connection's state.
func (tp *TCB) State() State { return tp.state }

// SetState sets the state without any of its consequences, for LISTEN, which has no machine.
func (tp *TCB) SetState(s State) { tp.state = s }

// setState changes the state of a connection, and tells a tracer.
func (tp *TCB) setState(s State) {
	old := tp.state
	tp.state = s
	tp.traceState(old)
}

// Has reports whether all of flags f are set; Set and Clear change them.
func (tp *TCB) Has(f Flag) bool { return tp.flags&f == f }

// Set sets flags.
func (tp *TCB) Set(f Flag) { tp.flags |= f }

// Clear clears flags.
func (tp *TCB) Clear(f Flag) { tp.flags &^= f }

// Maxseg returns the payload of a full segment without options.
func (tp *TCB) Maxseg() int { return tp.maxseg }

// hdrLen returns the length of the connection's IP header, without options or extension headers.
func (tp *TCB) hdrLen() int {
	if tp.flags2&inet6 != 0 {
		return wire.IPv6Len
	}
	return wire.IPv4MinLen
}

// mssdflt returns the segment size that every path and peer can be expected to take.
func (tp *TCB) mssdflt() int {
	if tp.flags2&inet6 != 0 {
		return tp.prof.V6MSSDflt
	}
	return tp.prof.MSSDflt
}

// SetMaxseg lowers it, for TCP_MAXSEG: EINVAL if that would raise it.
func (tp *TCB) SetMaxseg(n int) syscall.Errno {
	if n <= 0 || n > tp.maxseg || n < tp.prof.MinMSS {
		return syscall.EINVAL
	}
	tp.maxseg = n
	if tp.snr != nil {
		tp.snr.pmtu.full, tp.snr.pmtu.said = n, 0
	}
	return 0
}

// Scale returns what to shift the connection's windows by, received and sent.
func (tp *TCB) Scale() (snd, rcv uint8) { return tp.sndScale, tp.rcvScale }

// Next returns the earliest deadline, or math.MaxInt64.
func (tp *TCB) Next() int64 {
	t := tp.timers[0]
	for _, d := range tp.timers[1:] {
		t = min(t, d)
	}
	if tp.MaxUnack > 0 {
		t = min(t, tp.userDeadline())
	}
	return t
}

// Seconds is a time that is set in whole seconds, as socket options are; a connection has room for
// no more.
type Seconds int32

// softerror is BSD's t_softerror.
func (tp *TCB) softerror() syscall.Errno { return syscall.Errno(tp.softerr) }

func or(a, b int64) int64 {
	if a != 0 {
		return a
	}
	return b
}

// ts returns our timestamp clock: milliseconds, from a random start for each connection (RFC 7323,
// 5.4 and 7.1).
func (tp *TCB) ts(now int64) uint32 { return TSClock(now, tp.tsOffset) }

// TSClock is the timestamp clock at time now of a connection with this offset.
func TSClock(now int64, offset uint32) uint32 { return uint32(now/ms) + offset }

func (tp *TCB) set(timer int, at int64) { tp.timers[timer] = at }
func (tp *TCB) stop(timer int)          { tp.timers[timer] = never }
func (tp *TCB) on(timer int) bool       { return tp.timers[timer] != never }

func (tp *TCB) cancelTimers() {
	for i := range tp.timers {
		tp.timers[i] = never
	}
}
