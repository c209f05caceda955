package kern

import (
	"maps"
	"testing"
)

// ICMP and ICMPv6: RFC 5927, RFC 1122, 4.2.3.9, and RFC 4443.
func TestConfICMP(t *testing.T) {
	const goesOn = `
states SYN_SENT
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
+0.9 > S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 1100 ecr 0>
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
> . 1:1(0) ack 1 win 65535
states ESTABLISHED
`
	scripts := map[string]string{}
	hard := map[string]string{
		"port_unreachable": "ECONNREFUSED", "protocol_unreachable": "ECONNREFUSED", "net_prohibited": "ECONNREFUSED",
		"host_prohibited": "ECONNREFUSED", "comm_prohibited": "ECONNREFUSED", "ttl_exceeded": "EHOSTUNREACH",
		"source_policy": "ECONNREFUSED", "reject_route": "ECONNREFUSED",
	}
	all := maps.Clone(icmpNames)
	maps.Copy(all, icmp6Names)
	for name := range all {
		errno := hard[name]
		icmp := "< icmp " + name
		if name == "frag_needed" {
			icmp += " mtu 1500"
		}
		if errno == "" {
			scripts[name] = scrSynSent + "+0.1 " + icmp + " [0:0(0)]\n" + goesOn
		} else {
			scripts[name] = scrSynSent + "+0.1 " + icmp + " [0:0(0)]\nstates CLOSED\n" +
				"getsockopt(3, SOL_SOCKET, SO_ERROR, [" + errno + "], [4]) = 0\n" +
				"getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0\n"
			scripts[name+", not icmp_may_rst"] = "sysctl net.inet.tcp.icmp_may_rst=0\n" + scrSynSent + "+0.1 " +
				icmp + " [0:0(0)]\n" + goesOn
		}
		// An error that quotes a number outside of SND.UNA..SND.NXT is ignored.
		scripts[name+" left"] = scrSynSent + "+0.1 " + icmp + " [-1:-1(0)]\n" + goesOn
		scripts[name+" right"] = scrSynSent + "+0.1 " + icmp + " [1:1(0)]\n" + goesOn
		// No error ends a connection that stands.
		scripts[name+" later"] = scrConnected + `
send(3, ..., 10, 0) = 10
> P. 1:11(10) ack 1 win 65535
` + icmp + ` [1:11(10)]
states ESTABLISHED
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
< . 1:1(0) ack 11 win 65535
`
		// Nor one that begins on the other side.
		scripts[name+" syncache"] = scrSynRcvd + icmp + ` [0:0(0)]
states LISTEN SYN_RECEIVED
+0.05 < . 1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
`
		scripts[name+" simultaneous open"] = scrSynSent + `
+0.05 < S  0:0(0) win 65535 <mss 1460,sackOK,eol,eol>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
` + icmp + ` [0:0(0)]
states SYN_RECEIVED
`
	}
	scripts["blocking"] = `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
bind(3, ..., ...) = 0
+0...0.1 connect(3, ..., ...) = -1 ECONNREFUSED
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
+0.1 < icmp port_unreachable [0:0(0)]
`
	scripts["soft error tells why"] = scrSocket + `
setsockopt(3, IPPROTO_TCP, TCP_KEEPINIT, [1], 4) = 0
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
+0.1 < icmp host_unreachable [0:0(0)]
+0.9 > S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 1100 ecr 0>
getsockopt(3, SOL_SOCKET, SO_ERROR, [EHOSTUNREACH], [4]) = 0
`
	scripts["path MTU"] = scrConnected + `
send(3, ..., 1460, 0) = 1460
> P. 1:1461(1460) ack 1 win 65535
+0.01 < icmp frag_needed mtu 1000 [1:1461(1460)]
> . 1:961(960) ack 1 win 65535
> P. 961:1461(500) ack 1 win 65535
getsockopt(3, IPPROTO_TCP, TCP_MAXSEG, [960], [4]) = 0
`
	runScripts(t, scripts)
}
