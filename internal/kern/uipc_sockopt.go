package kern

import (
	"syscall"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
)

// soOptions are the boolean options of a socket: so_options.
type soOptions uint16

// Options, with FreeBSD's numbers. Those up to SO_REUSEPORT are bits of so_options.
const (
	SO_ACCEPTCONN soOptions = 0x0002
	SO_REUSEADDR  soOptions = 0x0004
	SO_KEEPALIVE  soOptions = 0x0008
	SO_DONTROUTE  soOptions = 0x0010
	SO_BROADCAST  soOptions = 0x0020
	SO_LINGER     soOptions = 0x0080
	SO_OOBINLINE  soOptions = 0x0100
	SO_REUSEPORT  soOptions = 0x0200

	SO_SNDBUF   = 0x1001
	SO_RCVBUF   = 0x1002
	SO_SNDLOWAT = 0x1003
	SO_RCVLOWAT = 0x1004
	SO_ERROR    = 0x1007
	SO_TYPE     = 0x1008
)

// Levels.
const (
	SOL_SOCKET   = 0xffff
	IPPROTO_IP   = 0
	IPPROTO_TCP  = 6
	IPPROTO_IPV6 = 41
)

// Options of the levels IPPROTO_TCP, IPPROTO_IP and IPPROTO_IPV6. Times are in seconds.
const (
	TCP_NODELAY      = 1
	TCP_MAXSEG       = 2
	TCP_NOPUSH       = 4
	TCP_NOOPT        = 8
	TCP_INFO         = 32 // see Proc.TCPInfo
	TCP_MAXUNACKTIME = 68
	TCP_KEEPINIT     = 128
	TCP_KEEPIDLE     = 256
	TCP_KEEPINTVL    = 512
	TCP_KEEPCNT      = 1024

	IP_TOS = 3
	IP_TTL = 4

	IPV6_UNICAST_HOPS = 4
	IPV6_V6ONLY       = 27
	IPV6_TCLASS       = 61
)

// Sosetopt sets an option: 4.4BSD's sosetopt, with TCP's and IP's ctloutput. It fails with EBADF if
// the socket is closed, with ENOPROTOOPT if there is no such option, with EINVAL if the option
// cannot have the value, with ENOBUFS if a buffer would be larger than kern.ipc.maxsockbuf, and
// with ECONNRESET, in BSD's profiles, if the option is TCP's and the connection is over.
func (so *Socket) Sosetopt(level, name, val int) syscall.Errno {
	so.lock()
	defer so.unlock()
	switch {
	case so.closed():
		return syscall.EBADF
	case so.k.away(so.k.now()):
		return EXDEV
	}
	if so.dg != nil {
		if errno, ok := so.dgCtloutput(level, name, val); ok {
			return errno
		}
	}
	switch level {
	case SOL_SOCKET:
		return so.setSocketOption(name, val)
	case IPPROTO_TCP:
		if so.dg != nil {
			return syscall.ENOPROTOOPT
		}
		if so.dead && !so.k.prof.OptionsLast {
			return syscall.ECONNRESET
		}
		return so.tcpCtloutput(name, val)
	case IPPROTO_IP:
		return so.ipCtloutput(name, val)
	case IPPROTO_IPV6:
		return so.ip6Ctloutput(name, val)
	}
	return syscall.ENOPROTOOPT
}

// ipCtloutput sets one of IP's options: BSD's ip_ctloutput. As on FreeBSD, those of a socket of
// AF_INET6 hold for IPv4 and IPv6.
func (so *Socket) ipCtloutput(name, val int) syscall.Errno {
	if val < 0 || val > 255 || name == IP_TTL && val == 0 {
		return syscall.EINVAL
	}
	switch name {
	case IP_TOS:
		so.inp.tos = uint8(val)
	case IP_TTL:
		so.inp.ttl = uint8(val)
	default:
		return syscall.ENOPROTOOPT
	}
	return 0
}

// ip6Ctloutput sets one of IPv6's options: BSD's ip6_ctloutput. RFC 3493, 5.1, and RFC 3542, 6.5:
// -1 stands for the default. As on Linux, IPV6_V6ONLY cannot change any more once the socket is
// bound: then it is EINVAL.
func (so *Socket) ip6Ctloutput(name, val int) syscall.Errno {
	inp := &so.inp
	if so.proto.domain != AF_INET6 {
		return syscall.ENOPROTOOPT
	}
	switch name {
	case IPV6_UNICAST_HOPS:
		if val < -1 || val == 0 || val > 255 {
			return syscall.EINVAL
		}
		if inp.ttl = uint8(val); val < 0 {
			inp.ttl = defTTL
		}
	case IPV6_TCLASS:
		if val < -1 || val > 255 {
			return syscall.EINVAL
		}
		inp.tos = uint8(max(val, 0))
	case IPV6_V6ONLY:
		if inp.lport != 0 {
			return syscall.EINVAL
		}
		inp.setV6only(val != 0)
	default:
		return syscall.ENOPROTOOPT
	}
	return 0
}

// ip6Getoption reads one of IPv6's options.
func (so *Socket) ip6Getoption(name int) (int, syscall.Errno) {
	if so.proto.domain == AF_INET6 {
		switch name {
		case IPV6_UNICAST_HOPS:
			return int(so.inp.ttl), 0
		case IPV6_TCLASS:
			return int(so.inp.tos), 0
		case IPV6_V6ONLY:
			if so.inp.vflag&inpIPv4 == 0 {
				return 1, 0
			}
			return 0, 0
		}
	}
	return 0, syscall.ENOPROTOOPT
}

func (so *Socket) setSocketOption(name, val int) syscall.Errno {
	switch opt := soOptions(name); opt {
	case SO_KEEPALIVE:
		so.setFlag(opt, val)
		if !so.dead && so.dg == nil {
			so.tp.KeepaliveOn(val != 0, so.k.now())
		}
		return 0
	case SO_REUSEADDR, SO_DONTROUTE, SO_BROADCAST, SO_OOBINLINE, SO_REUSEPORT:
		so.setFlag(opt, val)
		return 0
	}
	switch name {
	case SO_SNDBUF, SO_RCVBUF:
		if val < 1 {
			return syscall.EINVAL
		}
		if val > so.k.sbMax() {
			return syscall.ENOBUFS
		}
		if so.dg != nil {
			so.dgreserve(name, val)
			return 0
		}
		if name == SO_SNDBUF {
			so.sbreserve(&so.snd.Sockbuf, val)
			so.tp.Clear(tcp.AutoSnd)
			so.sowakeup(&so.snd.sleepers)
		} else {
			so.tp.KeepPromise()
			so.sbreserve(&so.rcv.Sockbuf, val)
			so.tp.Clear(tcp.AutoRcv)
		}
		return 0
	case SO_SNDLOWAT, SO_RCVLOWAT:
		if val < 1 {
			return syscall.EINVAL
		}
		if name == SO_SNDLOWAT {
			so.snd.lowat = int32(min(val, so.snd.Hiwat()))
		} else {
			so.rcv.lowat = int32(min(val, so.rcv.Hiwat()))
		}
		return 0
	}
	return syscall.ENOPROTOOPT
}

func (so *Socket) setFlag(opt soOptions, val int) {
	if val != 0 {
		so.options |= opt
	} else {
		so.options &^= opt
	}
}

// Setlinger sets SO_LINGER: whether closing waits until all data has been acknowledged, and for how
// many seconds. With 0 seconds, closing resets the connection instead. It fails with EDOM if
// seconds is less than 0 or more than 65535.
func (so *Socket) Setlinger(on bool, seconds int) syscall.Errno {
	if seconds < 0 || seconds > 65535 {
		return syscall.EDOM
	}
	so.lock()
	defer so.unlock()
	if so.closed() {
		return syscall.EBADF
	}
	so.linger = uint16(seconds)
	if on {
		so.options |= SO_LINGER
	} else {
		so.options &^= SO_LINGER
	}
	return 0
}

// Setcongestion chooses the connection's congestion controller by its name:
// setsockopt(TCP_CONGESTION), whose value is a word. It fails with ENOENT if there is none of that
// name, with EBADF if the socket is closed, and with ECONNRESET, in BSD's
// profiles, if the connection is over.
func (so *Socket) Setcongestion(name string) syscall.Errno {
	so.lock()
	defer so.unlock()
	switch {
	case so.closed():
		return syscall.EBADF
	case so.dg != nil:
		return syscall.ENOPROTOOPT
	case so.dead && !so.k.prof.OptionsLast:
		return syscall.ECONNRESET
	}
	now := so.k.now()
	if so.k.away(now) {
		return EXDEV
	}
	return so.tp.SetCC(name, now)
}

// tcpCtloutput sets one of TCP's options: BSD's tcp_ctloutput.
func (so *Socket) tcpCtloutput(name, val int) syscall.Errno {
	tp := &so.tp
	now := so.k.now()
	seconds := func(p *tcp.Seconds) syscall.Errno {
		if val < 0 || val > 1<<31-1 {
			return syscall.EINVAL
		}
		*p = tcp.Seconds(val) // 0 stands for the profile's
		tp.KeepaliveOn(tp.Has(tcp.Keepalive), now)
		return 0
	}
	flag := func(f tcp.Flag) {
		if val != 0 {
			tp.Set(f)
			return
		}
		had := tp.Has(f)
		tp.Clear(f)
		if had && f == tcp.NoPush && tp.State().HaveEstablished() {
			tp.Output(now) // sends data that was held back
		}
	}
	switch name {
	case TCP_NODELAY:
		flag(tcp.NoDelay)
		if val != 0 && tp.State().HaveEstablished() {
			tp.Output(now)
		}
	case TCP_NOPUSH:
		flag(tcp.NoPush)
	case TCP_NOOPT:
		flag(tcp.NoOpt)
	case TCP_MAXSEG:
		return tp.SetMaxseg(val)
	case TCP_KEEPINIT:
		return seconds(&tp.Keepinit)
	case TCP_KEEPIDLE:
		return seconds(&tp.Keepidle)
	case TCP_KEEPINTVL:
		return seconds(&tp.Keepintvl)
	case TCP_MAXUNACKTIME:
		return seconds(&tp.MaxUnack)
	case TCP_INFO:
		return syscall.EINVAL // it can be read only
	case TCP_KEEPCNT:
		if val < 0 {
			return syscall.EINVAL
		}
		tp.SetKeepcnt(val)
	default:
		return syscall.ENOPROTOOPT
	}
	return 0
}

// Sogetopt reads an option: 4.4BSD's sogetopt. Reading SO_ERROR clears it.
func (so *Socket) Sogetopt(level, name int) (int, syscall.Errno) {
	so.lock()
	defer so.unlock()
	if so.dg != nil {
		if v, ok := so.dgGetoption(level, name); ok {
			return v, 0
		}
	}
	switch level {
	case SOL_SOCKET:
		return so.getSocketOption(name)
	case IPPROTO_TCP:
		if so.dg != nil {
			return 0, syscall.ENOPROTOOPT
		}
		if so.dead && !so.inTimeWait() {
			return 0, syscall.ECONNRESET
		}
		return so.tcpGetoption(name)
	case IPPROTO_IP:
		switch name {
		case IP_TOS:
			return int(so.inp.tos), 0
		case IP_TTL:
			return int(so.inp.ttl), 0
		}
	case IPPROTO_IPV6:
		return so.ip6Getoption(name)
	}
	return 0, syscall.ENOPROTOOPT
}

func (so *Socket) getSocketOption(name int) (int, syscall.Errno) {
	switch opt := soOptions(name); opt {
	case SO_ACCEPTCONN, SO_REUSEADDR, SO_KEEPALIVE, SO_DONTROUTE, SO_BROADCAST, SO_LINGER, SO_OOBINLINE, SO_REUSEPORT:
		return int(so.options & opt), 0
	}
	switch name {
	case SO_SNDBUF:
		return so.snd.Hiwat(), 0
	case SO_RCVBUF:
		return so.rcv.Hiwat(), 0
	case SO_SNDLOWAT:
		return int(so.snd.lowat), 0
	case SO_RCVLOWAT:
		return int(so.rcv.lowat), 0
	case SO_ERROR:
		return int(so.takeError()), 0
	case SO_TYPE:
		return so.proto.typ, 0
	}
	return 0, syscall.ENOPROTOOPT
}

func (so *Socket) tcpGetoption(name int) (int, syscall.Errno) {
	tp, p := &so.tp, &so.k.prof
	flag := func(f tcp.Flag, bit int) (int, syscall.Errno) {
		if tp.Has(f) {
			return bit, 0
		}
		return 0, 0
	}
	seconds := func(v tcp.Seconds, def int64) (int, syscall.Errno) {
		if v == 0 {
			return int(def / 1e9), 0
		}
		return int(v), 0
	}
	switch name {
	case TCP_NODELAY:
		return flag(tcp.NoDelay, 0x4) // an option that is on reads as FreeBSD's flag: TF_NODELAY, TF_NOPUSH, TF_NOOPT
	case TCP_NOPUSH:
		return flag(tcp.NoPush, 0x1000)
	case TCP_NOOPT:
		return flag(tcp.NoOpt, 0x8)
	case TCP_MAXSEG:
		return tp.Maxseg(), 0
	case TCP_KEEPINIT:
		return seconds(tp.Keepinit, p.Keepinit)
	case TCP_KEEPIDLE:
		return seconds(tp.Keepidle, p.Keepidle)
	case TCP_KEEPINTVL:
		return seconds(tp.Keepintvl, p.Keepintvl)
	case TCP_MAXUNACKTIME:
		return seconds(tp.MaxUnack, 0)
	case TCP_KEEPCNT:
		return tp.Keepcnt(), 0
	}
	return 0, syscall.ENOPROTOOPT
}

// TCPInfo returns a snapshot of the connection: getsockopt(TCP_INFO).
func (so *Socket) TCPInfo() tcp.Info {
	so.lock()
	defer so.unlock()
	return so.tcpInfo()
}

// tcpInfo is TCPInfo with the lock held.
func (so *Socket) tcpInfo() tcp.Info {
	if so.dg != nil {
		return tcp.Info{} // its TCB is not used
	}
	i := so.tp.Info()
	if so.dead && !so.inTimeWait() {
		i.State = tcp.Closed // the connection is over, and has no record in TIME_WAIT
	}
	return i
}

// sbMax returns the largest size that a buffer may have. kern.ipc.maxsockbuf counts the memory of a
// buffer: 2304 bytes for 2048 of data (BSD's sb_max_adj). A buffer larger than the largest window
// would be of no use.
func (k *Kernel) sbMax() int { return min(int(int64(k.prof.Maxsockbuf)*2048/2304), mbuf.MaxHiwat) }

// Clampbuf returns the nearest size that a buffer may have.
func (so *Socket) Clampbuf(n int) int { return min(max(n, MinSockbuf), so.k.sbMax()) }

// SetDeadlines sets when calls that read or accept, and calls that write or connect, give up. The
// zero time means never; nil changes nothing. A call that is blocked sees the new deadline.
// SetDeadlines fails with EBADF once the socket is closed, with EXDEV if the caller is in another
// bubble, and with ERANGE if a deadline was computed by another clock than the stack's.
func (so *Socket) SetDeadlines(read, write *time.Time) syscall.Errno {
	so.lock()
	defer so.unlock()
	now := so.k.now()
	switch {
	case so.closed():
		return syscall.EBADF
	case so.k.away(now):
		return EXDEV
	case so.k.foreign(read), so.k.foreign(write):
		return ERANGE
	}
	at := func(t time.Time) int64 {
		if t.IsZero() {
			return never
		}
		d := time.Until(t)
		if int64(d) > never-now {
			return never - 1
		}
		return now + int64(d)
	}
	if read != nil {
		so.setDeadline(&so.rcv.sleepers, at(*read), now)
		if so.dg != nil {
			so.dgnote()
		}
	}
	if write != nil {
		so.setDeadline(&so.snd.sleepers, at(*write), now)
	}
	return 0
}

// Setnbio sets whether calls return at once instead of blocking: fcntl(O_NONBLOCK).
func (so *Socket) Setnbio(on bool) {
	so.lock()
	defer so.unlock()
	if on {
		so.state |= ssNbio
		so.sowakeup(&so.rcv.sleepers)
		so.sowakeup(&so.snd.sleepers)
	} else {
		so.state &^= ssNbio
	}
}
