package kern

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"bsdnet/internal/kern/tcp"
)

// syscall makes the call that a line names. msg says what is wrong, except for the result.
func (s *script) syscall(c *sysCall) (got int, errno syscall.Errno, msg string) {
	arg := func(i int) int {
		if i >= len(c.args) {
			msg = fmt.Sprintf("argument %d is missing", i+1)
			return 0
		}
		v, err := value(c.args[i])
		if err != nil {
			msg = err.Error()
		}
		return v
	}
	fd := 0
	if c.name != "socket" {
		fd = arg(0)
	}
	p := s.p
	switch c.name {
	case "socket":
		got, errno = p.Socket(s.fam.domain, arg(1), arg(2))
	case "bind":
		errno = p.Bind(fd, netip.AddrPortFrom(s.fam.host(), scriptPort))
	case "listen":
		errno = p.Listen(fd, arg(1))
	case "accept":
		got, _, errno = p.Accept(fd)
	case "connect":
		s.cur.fport = scriptPort
		errno = p.Connect(fd, netip.AddrPortFrom(s.fam.peer, scriptPort))
		if errno == syscall.EINPROGRESS || errno == 0 {
			a, _ := p.Getsockname(fd)
			s.cur.lport = a.Port()
		}
	case "send":
		got, errno = s.write(fd, arg(2), arg(3))
	case "write":
		got, errno = s.write(fd, arg(2), 0)
	case "recv":
		got, errno, msg = s.recv(fd, arg(2), arg(3))
	case "read":
		got, errno, msg = s.recv(fd, arg(2), 0)
	case "shutdown":
		errno = p.Shutdown(fd, arg(1))
	case "close":
		errno = p.Close(fd)
	case "fcntl":
		v := 0
		if len(c.args) > 2 {
			v = arg(2)
		}
		got, errno = p.Fcntl(fd, arg(1), v)
	case "setsockopt":
		if c.args[2] == "SO_LINGER" {
			f, err := fields(c.args[3])
			if err != nil {
				return 0, 0, err.Error()
			}
			errno = p.Setlinger(fd, f["onoff"] != 0, f["linger"])
			break
		}
		errno = p.Setsockopt(fd, s.level(arg(1)), s.option(arg(1), arg(2)), arg(3))
	case "getsockopt":
		return s.getsockopt(c, fd)
	default:
		msg = "unknown call " + c.name
	}
	return got, errno, msg
}

// level and option return the level and the name of an option of the script's family, for those of
// IP.
func (s *script) level(level int) int {
	if level == IPPROTO_IP {
		return s.fam.level
	}
	return level
}

func (s *script) option(level, name int) int {
	switch {
	case level == IPPROTO_IP && name == IP_TOS:
		return s.fam.class
	case level == IPPROTO_IP && name == IP_TTL:
		return s.fam.hop
	}
	return name
}

// write sends the next n bytes of the descriptor's stream.
func (s *script) write(fd, n, flags int) (int, syscall.Errno) {
	b := make([]byte, n)
	for i := range b {
		b[i] = pattern(s.wrote[fd] + i)
	}
	got, errno := s.p.Send(fd, b, flags)
	if errno == 0 {
		s.wrote[fd] += got
	}
	return got, errno
}

// recv reads and checks that it is the next part of the stream.
func (s *script) recv(fd, n, flags int) (got int, errno syscall.Errno, msg string) {
	b := make([]byte, n)
	got, errno = s.p.Recv(fd, b, flags)
	if errno != 0 {
		return got, errno, ""
	}
	for i, c := range b[:got] {
		if at := s.read[fd] + i; c != pattern(at) {
			return got, 0, fmt.Sprintf("byte %d of the stream is %#x, want %#x", at, c, pattern(at))
		}
	}
	if flags&MSG_PEEK == 0 {
		s.read[fd] += got
	}
	return got, 0, ""
}

// getsockopt reads an option and compares it with the fourth argument.
func (s *script) getsockopt(c *sysCall, fd int) (got int, errno syscall.Errno, msg string) {
	level, err1 := value(c.args[1])
	name, err2 := value(c.args[2])
	if err1 != nil || err2 != nil {
		return 0, 0, "unknown option"
	}
	if c.args[2] == "TCP_INFO" {
		return s.tcpInfo(c, fd)
	}
	v, errno := s.p.Getsockopt(fd, s.level(level), s.option(level, name))
	if errno != 0 || c.errno != 0 {
		return 0, errno, ""
	}
	want, err := value(c.args[3])
	if err != nil {
		return 0, 0, err.Error()
	}
	if v != want {
		return 0, 0, fmt.Sprintf("the option is %d (%s)", v, errnoName(syscall.Errno(v)))
	}
	return 0, 0, ""
}

func (s *script) tcpInfo(c *sysCall, fd int) (got int, errno syscall.Errno, msg string) {
	info, errno := s.p.TCPInfo(fd)
	if errno != 0 || c.errno != 0 {
		return 0, errno, ""
	}
	want, err := fields(c.args[3])
	if err != nil {
		return 0, 0, err.Error()
	}
	return 0, 0, infoDiffers(&info, want)
}

// infoDiffers says in which field, of Linux's names, a struct tcp_info is not what a script wants.
// Windows and what is in flight are in bytes; tcpi_lost is what has been found lost and not been
// sent again.
func infoDiffers(i *tcp.Info, want map[string]int) string {
	have := map[string]int{
		"tcpi_state": int(i.State), "tcpi_options": int(i.Options),
		"tcpi_snd_wscale": int(i.SndWscale), "tcpi_rcv_wscale": int(i.RcvWscale),
		"tcpi_snd_mss": i.SndMSS, "tcpi_snd_cwnd": i.SndCwnd, "tcpi_snd_ssthresh": i.SndSsthresh,
		"tcpi_snd_wnd": i.SndWnd, "tcpi_rto": int(i.RTO.Microseconds()),
		"tcpi_rtt": int(i.RTT.Microseconds()), "tcpi_min_rtt": int(i.MinRTT.Microseconds()),
		"tcpi_backoff": i.Backoff, "tcpi_unacked": i.InFlight, "tcpi_sacked": i.Sacked,
		"tcpi_lost": i.Lost, "tcpi_retrans": i.Retransmitted, "tcpi_total_retrans": i.Rexmits,
		"tcpi_reord_seen": b2i(i.ReorderSeen), "tcpi_dsack_dups": i.DSACKs,
		"tcpi_ca_state": int(slices.IndexFunc(caStates[:],
			func(r tcp.Recovery) bool { return r.String() == i.Recovery })),
	}
	for k, v := range want {
		h, ok := have[k]
		switch {
		case !ok:
			return "unknown field " + k
		case h == v:
		case k == "tcpi_state":
			return fmt.Sprintf("%s is %v", k, i.State)
		case k == "tcpi_ca_state":
			return fmt.Sprintf("%s is %s", k, i.Recovery)
		default:
			return fmt.Sprintf("%s is %d", k, h)
		}
	}
	return ""
}

// caStates are the states of loss recovery.
var caStates = [...]tcp.Recovery{tcp.Open, tcp.Disorder, tcp.CWR, tcp.Recovering, tcp.Timeout}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
