package kern

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/kern/wire/trace"
)

// This file reads the scripts of script_test.go.

// A step is one line of a script.
type step struct {
	line  string // as written, for reports
	num   int
	after time.Duration // since the step before
	lasts time.Duration // a call that blocks: how long; -1: it does not
	ev    any           // inject, expect, icmpLine, sysCall or directive
}

type (
	// An inject is a segment of the peer's.
	inject struct{ tr trace.Line }
	// An expect is a segment that the stack must send.
	expect struct {
		tr       trace.Line
		tos, ttl uint8
	}
	// An icmpLine is an ICMP error that quotes one of our segments.
	icmpLine struct {
		name string
		seq  wire.Seq
		rest uint32
	}
	// A sysCall is a call with its result.
	sysCall struct {
		name  string
		args  []string
		want  int
		errno syscall.Errno
	}
	// A directive is anything else: a word and its rest.
	directive struct{ word, rest string }
)

// parseScript splits a script into steps. A line without a time follows at once.
func parseScript(text string) (steps []step, err error) {
	for i, l := range strings.Split(text, "\n") {
		if c := strings.Index(l, "//"); c >= 0 {
			l = l[:c]
		}
		l = strings.TrimSpace(l)
		if l == "" {
			continue
		}
		lines, err := parseTrain(l)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", i+1, l, err)
		}
		for _, l := range lines {
			s := step{line: l, num: i + 1, lasts: -1}
			if err := s.parse(l); err != nil {
				return nil, fmt.Errorf("line %d: %q: %w", i+1, l, err)
			}
			steps = append(steps, s)
		}
	}
	return steps, nil
}

// parseTrain makes the lines of one that expects a train of segments: "+0.1 >> P. 1:2501(2500) mss
// 1000 ack 1 win 9" are the segments 1:1001, 1001:2001 and 2001:2501, of which the first comes
// after 0.1 s and only the last has PUSH or FIN. It returns any other line as it is.
func parseTrain(l string) (lines []string, err error) {
	before, train, ok := strings.Cut(l, ">> ")
	if !ok {
		return []string{l}, nil
	}
	var flags string
	var from, to, n, mss int
	head, rest, ok := strings.Cut(train, " ack ")
	if _, err = fmt.Sscanf(head, "%s %d:%d(%d) mss %d", &flags, &from, &to, &n, &mss); err != nil || !ok ||
		n != to-from || n <= 0 || mss <= 0 {
		return nil, fmt.Errorf("want FLAGS FROM:TO(LENGTH) mss SIZE ack ..., %v", err)
	}
	for at := from; at < to; at += mss {
		f, end := strings.Trim(flags, "PF"), min(at+mss, to)
		if end == to {
			f = flags
		}
		lines = append(lines, fmt.Sprintf("%s> %s %d:%d(%d) ack %s", before, f, at, end, end-at, rest))
		before = ""
	}
	return lines, nil
}

func (s *step) parse(l string) (err error) {
	if l[0] == '+' {
		at, rest, ok := strings.Cut(l[1:], " ")
		if !ok {
			return fmt.Errorf("a time and nothing else")
		}
		from, to, lasts := strings.Cut(at, "...")
		if s.after, err = parseSeconds(from); err != nil {
			return err
		}
		if lasts {
			if s.lasts, err = parseSeconds(to); err != nil {
				return err
			}
			s.lasts -= s.after
		}
		l = strings.TrimSpace(rest)
	}
	switch word, rest, _ := strings.Cut(l, " "); {
	case word == "<" && strings.HasPrefix(strings.TrimSpace(rest), "icmp "):
		s.ev, err = parseICMPLine(strings.TrimSpace(rest))
	case word == "<":
		var e inject
		e.tr, err = trace.Parse(rest)
		s.ev = e
	case word == ">":
		s.ev, err = parseExpect(rest)
	case strings.Contains(word, "("):
		s.ev, err = parseCall(l)
	default:
		s.ev = directive{word, strings.TrimSpace(rest)}
	}
	return err
}

func parseSeconds(s string) (time.Duration, error) {
	f, err := strconv.ParseFloat(s, 64)
	return time.Duration(math.Round(f * 1e9)), err
}

// parseExpect reads "[tos 0x10,ttl 5] . 1:1(0) ack 1 win 65535 <...>". All fields must be there; no
// brackets are no options.
func parseExpect(s string) (e expect, err error) {
	e.ttl = 64
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "[") {
		ip, rest, _ := strings.Cut(s[1:], "]")
		s = rest
		for _, o := range strings.Split(ip, ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(o), " ")
			n, err := strconv.ParseUint(v, 0, 8)
			switch {
			case err != nil:
				return e, err
			case k == "tos":
				e.tos = uint8(n)
			case k == "ttl":
				e.ttl = uint8(n)
			default:
				return e, fmt.Errorf("field %q", k)
			}
		}
	}
	if e.tr, err = trace.Parse(s); err != nil {
		return e, err
	}
	if e.tr.TCP.Flags&wire.RST != 0 {
		e.tr.Given |= trace.GivenWin // 0
	}
	e.tr.Given |= trace.GivenOpt
	if e.tr.Given&trace.GivenSeq == 0 || e.tr.Given&trace.GivenWin == 0 ||
		e.tr.TCP.Flags&wire.ACK != 0 && e.tr.Given&trace.GivenAck == 0 {
		return e, fmt.Errorf("seq, ack and win must be given")
	}
	return e, nil
}

// icmpNames are types and codes.
var icmpNames = map[string][2]uint8{
	"net_unreachable": {3, 0}, "host_unreachable": {3, 1}, "protocol_unreachable": {3, 2},
	"port_unreachable": {3, 3}, "frag_needed": {3, 4}, "source_route_failed": {3, 5},
	"net_unknown": {3, 6}, "host_unknown": {3, 7}, "source_host_isolated": {3, 8},
	"net_prohibited": {3, 9}, "host_prohibited": {3, 10}, "net_unreachable_for_tos": {3, 11},
	"host_unreachable_for_tos": {3, 12}, "comm_prohibited": {3, 13}, "host_precedence": {3, 14},
	"precedence_cutoff": {3, 15}, "source_quench": {4, 0}, "redirect_net": {5, 0},
	"redirect_host": {5, 1}, "ttl_exceeded": {11, 0}, "reassembly_exceeded": {11, 1},
	"parameter_problem": {12, 0}, "missing_option": {12, 1}, "bad_length": {12, 2},
}

// icmp6Names are ICMPv6's types and codes. Errors that have the same meaning in both families have
// IPv4's name.
var icmp6Names = map[string][2]uint8{
	"net_unreachable": {1, 0}, "comm_prohibited": {1, 1}, "not_neighbour": {1, 2}, "host_unreachable": {1, 3},
	"port_unreachable": {1, 4}, "source_policy": {1, 5}, "reject_route": {1, 6}, "frag_needed": {2, 0},
	"ttl_exceeded": {3, 0}, "reassembly_exceeded": {3, 1}, "parameter_problem": {4, 0},
	"protocol_unreachable": {4, 1}, "unknown_option": {4, 2}, "unknown_type": {77, 0},
}

// of returns the type and the code of an error in a family, if it has it.
func (e *icmpLine) of(f *family) (typ, code uint8, ok bool) {
	tc, ok := icmpNames[e.name]
	if f == &inet6 {
		tc, ok = icmp6Names[e.name]
	}
	return tc[0], tc[1], ok
}

// parseICMPLine reads "icmp port_unreachable [0:0(0)]", and "icmp frag_needed mtu 1200
// [1:1001(1000)]".
func parseICMPLine(s string) (e icmpLine, err error) {
	s, quoted, ok := strings.Cut(s, "[")
	w := strings.Fields(s)
	_, known := icmpNames[w[1]]
	_, known6 := icmp6Names[w[1]]
	if !ok || !known && !known6 {
		return e, fmt.Errorf("want icmp NAME [SEQ:END(LEN)], %v", w)
	}
	e.name = w[1]
	if len(w) == 4 && w[2] == "mtu" {
		n, err := strconv.Atoi(w[3])
		if err != nil {
			return e, err
		}
		e.rest = uint32(n)
	}
	first, _, _ := strings.Cut(quoted, ":")
	n, err := strconv.ParseInt(first, 10, 64)
	e.seq = wire.Seq(uint32(n))
	return e, err
}

// parseCall reads "name(a, b, [1], {c=1, d=2}) = -1 EINVAL".
func parseCall(s string) (c sysCall, err error) {
	i := strings.Index(s, "(")
	j := strings.LastIndex(s, ")")
	_, result, ok := strings.Cut(s[max(j, 0):], "=")
	if i < 0 || j < i || !ok {
		return c, fmt.Errorf("want name(arguments) = result")
	}
	c.name = s[:i]
	depth := 0
	arg := ""
	for _, r := range s[i+1:j] + "," {
		switch {
		case strings.ContainsRune("[{(", r):
			depth++
		case strings.ContainsRune("]})", r):
			depth--
		case r == ',' && depth == 0:
			c.args = append(c.args, strings.TrimSpace(arg))
			arg = ""
			continue
		}
		arg += string(r)
	}
	w := strings.Fields(result)
	if len(w) == 0 {
		return c, fmt.Errorf("no result")
	}
	if c.want, err = strconv.Atoi(w[0]); err != nil {
		return c, err
	}
	if c.want == -1 {
		if len(w) < 2 || errnos[w[1]] == 0 {
			return c, fmt.Errorf("-1 wants an errno")
		}
		c.errno = errnos[w[1]]
	}
	return c, nil
}

var errnos = map[string]syscall.Errno{
	"EINPROGRESS": syscall.EINPROGRESS, "EWOULDBLOCK": syscall.EAGAIN, "EAGAIN": syscall.EAGAIN,
	"EALREADY": syscall.EALREADY, "ECONNREFUSED": syscall.ECONNREFUSED,
	"ECONNRESET": syscall.ECONNRESET, "ECONNABORTED": syscall.ECONNABORTED,
	"ETIMEDOUT": syscall.ETIMEDOUT, "EHOSTUNREACH": syscall.EHOSTUNREACH,
	"ENETUNREACH": syscall.ENETUNREACH, "EPIPE": syscall.EPIPE, "EINVAL": syscall.EINVAL,
	"ENOTCONN": syscall.ENOTCONN, "EISCONN": syscall.EISCONN, "EADDRINUSE": syscall.EADDRINUSE,
	"EADDRNOTAVAIL": syscall.EADDRNOTAVAIL, "EOPNOTSUPP": syscall.EOPNOTSUPP,
	"ENOPROTOOPT": syscall.ENOPROTOOPT, "EBADF": syscall.EBADF, "ENOBUFS": syscall.ENOBUFS,
	"EDOM": syscall.EDOM, "EPROTONOSUPPORT": syscall.EPROTONOSUPPORT,
	"EPROTOTYPE": syscall.EPROTOTYPE, "EMSGSIZE": syscall.EMSGSIZE,
	"EAFNOSUPPORT": syscall.EAFNOSUPPORT,
}

// names are the constants of calls.
var names = map[string]int{
	"AF_INET": AF_INET, "SOCK_STREAM": SOCK_STREAM, "SOCK_DGRAM": 2, "IPPROTO_TCP": IPPROTO_TCP,
	"IPPROTO_IP": IPPROTO_IP, "SOL_SOCKET": SOL_SOCKET,
	"F_GETFL": F_GETFL, "F_SETFL": F_SETFL, "O_RDWR": O_RDWR, "O_NONBLOCK": O_NONBLOCK,
	"MSG_PEEK": MSG_PEEK, "MSG_DONTWAIT": MSG_DONTWAIT, "MSG_WAITALL": MSG_WAITALL, "MSG_OOB": MSG_OOB,
	"SHUT_RD": SHUT_RD, "SHUT_WR": SHUT_WR, "SHUT_RDWR": SHUT_RDWR,
	"SO_ERROR": SO_ERROR, "SO_RCVBUF": SO_RCVBUF, "SO_SNDBUF": SO_SNDBUF, "SO_TYPE": SO_TYPE,
	"SO_RCVLOWAT": SO_RCVLOWAT, "SO_SNDLOWAT": SO_SNDLOWAT, "SO_REUSEADDR": int(SO_REUSEADDR),
	"SO_REUSEPORT": int(SO_REUSEPORT), "SO_KEEPALIVE": int(SO_KEEPALIVE),
	"SO_LINGER": int(SO_LINGER), "SO_ACCEPTCONN": int(SO_ACCEPTCONN), "TCP_NODELAY": TCP_NODELAY,
	"TCP_MAXSEG": TCP_MAXSEG, "TCP_NOPUSH": TCP_NOPUSH, "TCP_NOOPT": TCP_NOOPT,
	"TCP_KEEPINIT": TCP_KEEPINIT, "TCP_KEEPIDLE": TCP_KEEPIDLE, "TCP_KEEPINTVL": TCP_KEEPINTVL,
	"TCP_KEEPCNT": TCP_KEEPCNT, "TCP_INFO": TCP_INFO,
	"IP_TOS": IP_TOS, "IP_TTL": IP_TTL, "IPPROTO_IPV6": IPPROTO_IPV6, "IPV6_TCLASS": IPV6_TCLASS,
	"IPV6_UNICAST_HOPS": IPV6_UNICAST_HOPS, "IPV6_V6ONLY": IPV6_V6ONLY,
	"TCPI_OPT_TIMESTAMPS": tcp.OptTimestamps, "TCPI_OPT_SACK": tcp.OptSACK, "TCPI_OPT_WSCALE": tcp.OptWscale,
	"TCPI_OPT_ECN": tcp.OptECN,
	"TCP_CA_Open":  int(tcp.Open), "TCP_CA_Disorder": int(tcp.Disorder), "TCP_CA_CWR": int(tcp.CWR),
	"TCP_CA_Recovery": int(tcp.Recovering), "TCP_CA_Loss": int(tcp.Timeout),
	"TCPS_CLOSED": int(tcp.Closed), "TCPS_LISTEN": int(tcp.Listen),
	"TCPS_SYN_SENT": int(tcp.SynSent), "TCPS_SYN_RECEIVED": int(tcp.SynReceived),
	"TCPS_ESTABLISHED": int(tcp.Established), "TCPS_CLOSE_WAIT": int(tcp.CloseWait),
	"TCPS_FIN_WAIT_1": int(tcp.FinWait1), "TCPS_CLOSING": int(tcp.Closing),
	"TCPS_LAST_ACK": int(tcp.LastAck), "TCPS_FIN_WAIT_2": int(tcp.FinWait2),
	"TCPS_TIME_WAIT": int(tcp.TimeWait),
}

// value reads a number, a name, an errno, or names joined by "|", in brackets or not.
func value(s string) (v int, err error) {
	s = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(s), "["), "]")
	for _, w := range strings.Split(s, "|") {
		w = strings.TrimSpace(w)
		if n, ok := names[w]; ok {
			v |= n
		} else if e, ok := errnos[w]; ok {
			v |= int(e)
		} else {
			n, err := strconv.ParseInt(w, 0, 64)
			if err != nil {
				return 0, err
			}
			v |= int(n)
		}
	}
	return v, nil
}

// fields reads "{a=1, b=2}".
func fields(s string) (map[string]int, error) {
	m := map[string]int{}
	for _, f := range strings.Split(strings.Trim(s, "{} "), ",") {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want name=value", f)
		}
		n, err := value(v)
		if err != nil {
			return nil, err
		}
		m[strings.TrimSpace(k)] = n
	}
	return m, nil
}

// TestParseScript: a line that cannot be read is an error, not an empty step.
func TestParseScript(t *testing.T) {
	for _, bad := range []string{
		"+0", "+x close(3) = 0", "+0 close(3)", "+0 close(3) = -1", "+0 close(3) = -1 ENOSUCH", "> . 1:1(0) ack 1",
		"> . 1:1(0) win 5",
		">> . 1:1 ack 1 win 1", ">> . 1:3(3) mss 1 ack 1 win 1", "< icmp port_unreachable",
		"< icmp nonsense [0:0(0)]", "< Q 0:0(0)", "> [tos x] . 1:1(0) ack 1 win 1",
	} {
		if steps, err := parseScript(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, steps)
		}
	}
	steps, err := parseScript("+0.25...1 getsockopt(3, IPPROTO_TCP, TCP_INFO, {tcpi_state=TCPS_LISTEN, a=1}, [4])" +
		" = -1 EPIPE // note")
	if err != nil || len(steps) != 1 {
		t.Fatal(steps, err)
	}
	c := steps[0].ev.(sysCall)
	if steps[0].after != 250*time.Millisecond || steps[0].lasts != 750*time.Millisecond || len(c.args) != 5 ||
		c.errno != syscall.EPIPE || c.want != -1 {
		t.Errorf("%+v", steps[0])
	}
	steps, err = parseScript("+0.1 >> P. 1:2501(2500) mss 1000 ack 1 win 9")
	if err != nil || len(steps) != 3 || steps[0].line != "+0.1 > . 1:1001(1000) ack 1 win 9" || steps[1].after != 0 ||
		steps[2].line != "> P. 2001:2501(500) ack 1 win 9" {
		t.Errorf("%v %+v", err, steps)
	}
}
