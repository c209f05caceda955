package kern

import (
	"strings"
	"testing"
)

const scrSendFull1460 = scrSendFull + `
< S 0:0(0) win 32792 <mss 1460,sackOK,nop,nop,nop,wscale 7>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8,sackOK,eol,eol>
+0.1 < . 1:1(0) ack 1 win 320
accept(3, ..., ...) = 4
`

// The stack believes a router about the path's MTU (RFC 1191) at once if no larger segment has
// arrived before, and otherwise if the data that the error quotes stays missing (RFC 5927, 7.2).
// The error is no sign of congestion.
func TestConfPathMTU(t *testing.T) {
	runSenders(t, map[string]string{
		"at the start": scrSendFull1460 + `
write(4, ..., 5840) = 5840
>> P. 1:5841(5840) mss 1460 ack 1 win 1024
+0.05 < icmp frag_needed mtu 1200 [1:1461(1460)]
>> P. 1:5841(5840) mss 1160 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=14600, tcpi_snd_ssthresh=2147483647}
+0.1 < . 1:1(0) ack 5841 win 320
write(4, ..., 5840) = 5840
>> P. 5841:11681(5840) mss 1160 ack 1 win 1024
`,
		"while larger segments arrive": scrSendFull1460 + `
write(4, ..., 5840) = 5840
>> P. 1:5841(5840) mss 1460 ack 1 win 1024
+0.1 < . 1:1(0) ack 5841 win 320
write(4, ..., 5840) = 5840
>> P. 5841:11681(5840) mss 1460 ack 1 win 1024
+0.05 < icmp frag_needed mtu 1200 [5841:7301(1460)]
+0.05 < . 1:1(0) ack 11681 win 320
write(4, ..., 5840) = 5840
>> P. 11681:17521(5840) mss 1460 ack 1 win 1024
+0.1 < . 1:1(0) ack 17521 win 320
`,
		"after a stall": scrSendFull1460 + `
write(4, ..., 5840) = 5840
>> P. 1:5841(5840) mss 1460 ack 1 win 1024
+0.1 < . 1:1(0) ack 5841 win 320
write(4, ..., 5840) = 5840
>> P. 5841:11681(5840) mss 1460 ack 1 win 1024
+0.05 < icmp frag_needed mtu 1200 [5841:7301(1460)]
+0.152 > P. 10221:11681(1460) ack 1 win 1024
+0.3 > . 5841:7001(1160) ack 1 win 1024
+0.148 < . 1:1(0) ack 7001 win 320
>> . 7001:9321(2320) mss 1160 ack 1 win 1024
+0.1 < . 1:1(0) ack 11681 win 320
write(4, ..., 3000) = 3000
>> P. 11681:14681(3000) mss 1160 ack 1 win 1024
+0.1 < . 1:1(0) ack 14681 win 320
`,
		"a stall behind what it speaks of": scrSendFull1460 + `
write(4, ..., 5840) = 5840
>> P. 1:5841(5840) mss 1460 ack 1 win 1024
+0.1 < . 1:1(0) ack 5841 win 320
write(4, ..., 5840) = 5840
>> P. 5841:11681(5840) mss 1460 ack 1 win 1024
+0.05 < icmp frag_needed mtu 1200 [5841:7301(1460)]
+0.05 < . 1:1(0) ack 11681 win 320
write(4, ..., 5840) = 5840
>> P. 11681:17521(5840) mss 1460 ack 1 win 1024
+0.202 > P. 16061:17521(1460) ack 1 win 1024
+0.3 > . 11681:13141(1460) ack 1 win 1024
+0.098 < . 1:1(0) ack 17521 win 320
`,
		"about what is not in flight": scrSendFull1460 + `
write(4, ..., 5840) = 5840
>> P. 1:5841(5840) mss 1460 ack 1 win 1024
+0.05 < icmp frag_needed mtu 1200 [5841:7301(1460)]
< icmp frag_needed mtu 1200 [0:1461(1460)]
< icmp frag_needed mtu 1500 [1:1461(1460)]
+0.05 < . 1:1(0) ack 5841 win 320
< icmp frag_needed mtu 1200 [1:1461(1460)]
write(4, ..., 5840) = 5840
>> P. 5841:11681(5840) mss 1460 ack 1 win 1024
`,
		"smaller than any path": scrSendFull1460 + `
write(4, ..., 2920) = 2920
>> P. 1:2921(2920) mss 1460 ack 1 win 1024
+0.05 < icmp frag_needed mtu 68 [1:1461(1460)]
>> P. 1:2921(2920) mss 512 ack 1 win 1024
`,
	})
}

const scrSendFull8940 = `
inet6
mtu 9000
` + scrSendFull + `
< S 0:0(0) win 32792 <mss 8940,sackOK,nop,nop,nop,wscale 7>
> S. 0:0(0) ack 1 win 65535 <mss 8940,nop,wscale 8,sackOK,eol,eol>
+0.1 < . 1:1(0) ack 1 win 1280
accept(3, ..., ...) = 4
`

// Over IPv6, RFC 8201: a Packet Too Big message with less than 1280 bytes is discarded.
func TestConfPathMTU6(t *testing.T) {
	runSenders(t, map[string]string{
		"at the start": scrSendFull8940 + `
write(4, ..., 17880) = 17880
>> P. 1:17881(17880) mss 8940 ack 1 win 1024
+0.05 < icmp frag_needed mtu 1500 [1:8941(8940)]
>> P. 1:17881(17880) mss 1440 ack 1 win 1024
getsockopt(4, IPPROTO_TCP, TCP_MAXSEG, [1440], [4]) = 0
`,
		"smaller than any path": scrSendFull8940 + `
write(4, ..., 8940) = 8940
> P. 1:8941(8940) ack 1 win 1024
+0.05 < icmp frag_needed mtu 68 [1:8941(8940)]
< icmp frag_needed mtu 1279 [1:8941(8940)]
getsockopt(4, IPPROTO_TCP, TCP_MAXSEG, [8940], [4]) = 0
< icmp frag_needed mtu 1280 [1:8941(8940)]
>> P. 1:8941(8940) mss 1220 ack 1 win 1024
getsockopt(4, IPPROTO_TCP, TCP_MAXSEG, [1220], [4]) = 0
`,
		"about what is not in flight": scrSendFull8940 + `
write(4, ..., 8940) = 8940
> P. 1:8941(8940) ack 1 win 1024
+0.05 < icmp frag_needed mtu 1500 [8941:8942(1)]
< icmp frag_needed mtu 1500 [0:1(1)]
< icmp frag_needed mtu 9000 [1:8941(8940)]
getsockopt(4, IPPROTO_TCP, TCP_MAXSEG, [8940], [4]) = 0
`,
		"while larger segments arrive": scrSendFull8940 + `
write(4, ..., 17880) = 17880
>> P. 1:17881(17880) mss 8940 ack 1 win 1024
+0.1 < . 1:1(0) ack 17881 win 1280
write(4, ..., 17880) = 17880
>> P. 17881:35761(17880) mss 8940 ack 1 win 1024
+0.05 < icmp frag_needed mtu 1500 [17881:26821(8940)]
getsockopt(4, IPPROTO_TCP, TCP_MAXSEG, [8940], [4]) = 0
+0.05 < . 1:1(0) ack 35761 win 1280
`,
	})
}

// The segments of IPv6 are 20 bytes shorter than those of IPv4, and buffers are rounded to them.
//
// RFC 9293 MUST-15
func TestConfMSS6(t *testing.T) {
	scripts := map[string]string{}
	for mtu, n := range map[string][3]string{ // MSS option, SO_RCVBUF, TCP_MAXSEG, which SO_SNDBUF limits
		"1280": {"1220", "65880", "1220"}, "1500": {"1440", "66240", "1440"}, "9000": {"8940", "71520", "8940"},
		"65535": {"65475", "65536", "32768"},
	} {
		first := "\ninet6\nmtu " + mtu + "\n"
		scripts[mtu+" active"] = first + scrSocket + `
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 65535 <mss ` + n[0] + `,nop,wscale 6,sackOK,TS val 100 ecr 0>
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65536], [4]) = 0
+0.05 < S. 0:0(0) ack 1 win 65535 <mss ` + n[0] + `>
> . 1:1(0) ack 1 win 65535
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [` + n[1] + `], [4]) = 0
getsockopt(3, IPPROTO_TCP, TCP_MAXSEG, [` + n[2] + `], [4]) = 0
`
		scripts[mtu+" passive"] = first + scrListen + `
< S  0:0(0) win 65535 <mss 65475,sackOK,eol,eol>
> S. 0:0(0) ack 1 win 65535 <mss ` + n[0] + `,sackOK,eol,eol>
< .  1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
getsockopt(4, SOL_SOCKET, SO_RCVBUF, [` + n[1] + `], [4]) = 0
`
	}
	// RFC 9293, 3.7.1: "a default send MSS of [...] 1220 (1280 - 60) for IPv6".
	scripts["no option"] = "\ninet6\n" + scrListen + `
< S  0:0(0) win 65535
> S. 0:0(0) ack 1 win 65535 <mss 1440>
< .  1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
getsockopt(4, IPPROTO_TCP, TCP_MAXSEG, [1220], [4]) = 0
`
	scripts["v6mssdflt"] = "\ninet6\nsysctl net.inet.tcp.v6mssdflt=1024\n" + scripts["no option"][len("\ninet6"):]
	scripts["v6mssdflt"] = strings.Replace(scripts["v6mssdflt"], "[1220]", "[1024]", 1)
	runScripts(t, scripts)
}

// Class and hop limit of IPv6: on each segment, on resets of a bound socket, and inherited.
func TestConfClassAndHops(t *testing.T) {
	const set = `
setsockopt(3, IPPROTO_IPV6, IPV6_TCLASS, [16], 4) = 0
setsockopt(3, IPPROTO_IPV6, IPV6_UNICAST_HOPS, [5], 4) = 0
`
	runScripts(t, map[string]string{
		"bound": "\ninet6\n" + scrBound + set + `
< . 0:0(0) ack 1000 win 65535
> [tos 0x10,ttl 5] R 1000:1000(0) win 0
`,
		"inherited": "\ninet6\n" + scrListen + set + `
< S 0:0(0) win 65535 <mss 1460>
> [tos 0x10,ttl 5] S. 0:0(0) ack 1 win 65535 <mss 1440>
< . 1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
getsockopt(4, IPPROTO_IPV6, IPV6_TCLASS, [16], [4]) = 0
getsockopt(4, IPPROTO_IPV6, IPV6_UNICAST_HOPS, [5], [4]) = 0
getsockopt(4, IPPROTO_IPV6, IPV6_V6ONLY, [1], [4]) = 0
< P. 1:11(10) ack 1 win 65535
+0.04 > [tos 0x10,ttl 5] . 1:1(0) ack 11 win 65535
`,
		"dialed": "\ninet6\n" + scrSocket + set + `
connect(3, ..., ...) = -1 EINPROGRESS
> [tos 0x10,ttl 5] S 0:0(0) win 65535 <mss 1440,nop,wscale 6,sackOK,TS val 100 ecr 0>
`,
		"not set": "\ninet6\n" + scrSocket + `
getsockopt(3, IPPROTO_IPV6, IPV6_UNICAST_HOPS, [64], [4]) = 0
setsockopt(3, IPPROTO_IPV6, IPV6_UNICAST_HOPS, [256], 4) = -1 EINVAL
setsockopt(3, IPPROTO_IPV6, IPV6_UNICAST_HOPS, [9], 4) = 0
setsockopt(3, IPPROTO_IPV6, IPV6_UNICAST_HOPS, [-1], 4) = 0
setsockopt(3, IPPROTO_IPV6, IPV6_TCLASS, [256], 4) = -1 EINVAL
setsockopt(3, IPPROTO_IPV6, IPV6_TCLASS, [-1], 4) = 0
getsockopt(3, IPPROTO_IPV6, IPV6_UNICAST_HOPS, [64], [4]) = 0
getsockopt(3, IPPROTO_IPV6, IPV6_TCLASS, [0], [4]) = 0
bind(3, ..., ...) = 0
setsockopt(3, IPPROTO_IPV6, IPV6_V6ONLY, [0], 4) = -1 EINVAL
`,
	})
}
