package kern

import "testing"

// The socket options, as FreeBSD has them.
func TestConfSocketAPI(t *testing.T) {
	runScripts(t, map[string]string{
		"connect, non-blocking": scrSynSent + `
connect(3, ..., ...) = -1 EALREADY
send(3, ..., 10, 0) = -1 ENOTCONN
recv(3, ..., 10, 0) = -1 EWOULDBLOCK
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460>
> . 1:1(0) ack 1 win 65535
connect(3, ..., ...) = -1 EISCONN
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
`,
		"connect, blocking": `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
bind(3, ..., ...) = 0
+0...0.05 connect(3, ..., ...) = 0
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460>
> . 1:1(0) ack 1 win 65535
+0...0.1 recv(3, ..., 10, 0) = 5
+0.1 < P. 1:6(5) ack 1 win 65535
+0.04 > . 1:1(0) ack 6 win 65535
`,
		"connect, refused": `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
bind(3, ..., ...) = 0
+0...0.05 connect(3, ..., ...) = -1 ECONNREFUSED
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
+0.05 < R. 0:0(0) ack 1 win 0
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
getsockopt(3, IPPROTO_TCP, TCP_MAXSEG, [0], [4]) = -1 ECONNRESET
recv(3, ..., 10, 0) = 0
`,
		"not connected": scrSocket + `
recv(3, ..., 10, 0) = -1 ENOTCONN
send(3, ..., 10, 0) = -1 ENOTCONN
shutdown(3, SHUT_WR) = -1 ENOTCONN
shutdown(3, SHUT_RD) = -1 ENOTCONN
shutdown(3, 5) = -1 EINVAL
accept(3, ..., ...) = -1 EINVAL
close(3) = 0
close(3) = -1 EBADF
send(3, ..., 10, 0) = -1 EBADF
`,
		"listener": scrListen + `
accept(3, ..., ...) = -1 EWOULDBLOCK
connect(3, ..., ...) = -1 EOPNOTSUPP
recv(3, ..., 10, 0) = -1 ENOTCONN
send(3, ..., 10, 0) = -1 ENOTCONN
bind(3, ..., ...) = -1 EINVAL
listen(3, 5) = 0
getsockopt(3, SOL_SOCKET, SO_ACCEPTCONN, [2], [4]) = 0
getsockopt(3, IPPROTO_TCP, TCP_INFO, {tcpi_state=TCPS_LISTEN, tcpi_options=TCPI_OPT_SACK}, [4]) = 0
`,
		"listen, connected": scrConnected + "listen(3, 1) = -1 EINVAL\naccept(3, ..., ...) = -1 EINVAL\n",
		"bind twice": scrBound + "bind(3, ..., ...) = -1 EINVAL\nsocket(..., SOCK_STREAM, IPPROTO_TCP) = 4\n" +
			"bind(4, ..., ...) = -1 EADDRINUSE\n",
		"SO_REUSEADDR": scrTimeWait + `
close(3) = 0
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
bind(3, ..., ...) = 0
listen(3, 1) = 0
`,
		"reset": scrConnected + `
< P. 1:6(5) ack 1 win 65535
+0.04 > . 1:1(0) ack 6 win 65535
< R. 6:6(0) ack 1 win 0
recv(3, ..., 3, 0) = 3
recv(3, ..., 10, 0) = 2
recv(3, ..., 10, 0) = -1 ECONNRESET
recv(3, ..., 10, 0) = 0
send(3, ..., 10, 0) = -1 EPIPE
connect(3, ..., ...) = -1 ECONNREFUSED
shutdown(3, SHUT_WR) = -1 ENOTCONN
getsockopt(3, IPPROTO_TCP, TCP_NODELAY, [0], [4]) = -1 ECONNRESET
setsockopt(3, IPPROTO_TCP, TCP_NODELAY, [1], 4) = -1 ECONNRESET
`,
		"reset, then send": scrConnected + `
< R. 1:1(0) ack 1 win 0
send(3, ..., 10, 0) = -1 EPIPE
getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNRESET], [4]) = 0
`,
		"shutdown, then send": scrConnected + `
shutdown(3, SHUT_WR) = 0
> F. 1:1(0) ack 1 win 65535
send(3, ..., 10, 0) = -1 EPIPE
`,
		"reset before accept": scrSynRcvd + `
< . 1:1(0) ack 1 win 65535
< R 1:1(0) win 0
accept(3, ..., ...) = -1 EWOULDBLOCK
states LISTEN
`,
		"shutdown of a listener": `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
bind(3, ..., ...) = 0
listen(3, 1) = 0
+0...0.5 accept(3, ..., ...) = -1 ECONNABORTED
+0.5 shutdown(3, SHUT_RD) = -1 ENOTCONN
`,
		"protocols": `
socket(..., SOCK_STREAM, 0) = 3
socket(..., SOCK_DGRAM, IPPROTO_TCP) = -1 EPROTOTYPE
`,
	})
}

func TestConfSocketOptions(t *testing.T) {
	get := func(name, v string) string { return "getsockopt(3, IPPROTO_TCP, " + name + ", [" + v + "], [4]) = 0\n" }
	set := func(name, v, res string) string {
		return "setsockopt(3, IPPROTO_TCP, " + name + ", [" + v + "], 4) = " + res + "\n"
	}
	runScripts(t, map[string]string{
		"keep-alive": scrSocket + get("TCP_KEEPIDLE", "7200") + get("TCP_KEEPINTVL", "75") +
			get("TCP_KEEPCNT", "8") + get("TCP_KEEPINIT", "75") +
			set("TCP_KEEPIDLE", "10", "0") + set("TCP_KEEPINTVL", "2", "0") + set("TCP_KEEPCNT", "3", "0") +
			set("TCP_KEEPINIT", "7", "0") +
			get("TCP_KEEPIDLE", "10") + get("TCP_KEEPINTVL", "2") + get("TCP_KEEPCNT", "3") + get("TCP_KEEPINIT", "7") +
			set("TCP_KEEPIDLE", "-1", "-1 EINVAL") + set("TCP_KEEPINIT", "0", "0") + get("TCP_KEEPINIT", "75"),
		"keep-alive probes": scrConnected + `
setsockopt(3, IPPROTO_TCP, TCP_KEEPIDLE, [10], 4) = 0
setsockopt(3, IPPROTO_TCP, TCP_KEEPINTVL, [2], 4) = 0
setsockopt(3, IPPROTO_TCP, TCP_KEEPCNT, [2], 4) = 0
setsockopt(3, SOL_SOCKET, SO_KEEPALIVE, [1], 4) = 0
+10 > . 0:0(0) ack 1 win 65535
+1 < . 1:1(0) ack 1 win 65535
+10 > . 0:0(0) ack 1 win 65535
+2 > . 0:0(0) ack 1 win 65535
+2 > R. 1:1(0) ack 1
getsockopt(3, SOL_SOCKET, SO_ERROR, [ETIMEDOUT], [4]) = 0
`,
		"flags": scrSocket + get("TCP_NODELAY", "0") + get("TCP_NOPUSH", "0") + get("TCP_NOOPT", "0") +
			set("TCP_NODELAY", "1", "0") + set("TCP_NOPUSH", "1", "0") +
			set("TCP_NOOPT", "1", "0") + get("TCP_NODELAY", "4") + get("TCP_NOPUSH", "4096") +
			get("TCP_NOOPT", "8") + set("TCP_INFO", "1", "-1 EINVAL"),
		"TCP_MAXSEG": scrSocket + get("TCP_MAXSEG", "536") + set("TCP_MAXSEG", "175", "-1 EINVAL") +
			set("TCP_MAXSEG", "537", "-1 EINVAL") + set("TCP_MAXSEG", "176", "-1 EINVAL") +
			set("TCP_MAXSEG", "216", "0") + get("TCP_MAXSEG", "216") + `
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1400>
> . 1:1(0) ack 1 win 65535
` + get("TCP_MAXSEG", "1400") + set("TCP_MAXSEG", "1401", "-1 EINVAL") + set("TCP_MAXSEG", "1000", "0") +
			get("TCP_MAXSEG", "1000") + `
send(3, ..., 1500, 0) = 1500
> . 1:1001(1000) ack 1 win 65535
+0.05 < . 1:1(0) ack 1001 win 65535
> P. 1001:1501(500) ack 1 win 65535
`,
		"unknown": scrSocket + "setsockopt(3, IPPROTO_TCP, 999, [1], 4) = -1 ENOPROTOOPT\n" +
			"getsockopt(3, IPPROTO_TCP, 999, [1], 4) = -1 ENOPROTOOPT\n" +
			"setsockopt(3, SOL_SOCKET, 999, [1], 4) = -1 ENOPROTOOPT\n",
		"buffers": scrSocket + `
setsockopt(3, SOL_SOCKET, SO_RCVBUF, [0], 4) = -1 EINVAL
setsockopt(3, SOL_SOCKET, SO_RCVBUF, [-1], 4) = -1 EINVAL
setsockopt(3, SOL_SOCKET, SO_RCVBUF, [1864136], 4) = -1 ENOBUFS
setsockopt(3, SOL_SOCKET, SO_RCVBUF, [1864135], 4) = 0
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [1864135], [4]) = 0
setsockopt(3, SOL_SOCKET, SO_SNDBUF, [2000], 4) = 0
getsockopt(3, SOL_SOCKET, SO_SNDBUF, [2000], [4]) = 0
`,
		"linger": scrSocket + `
setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=65536}, 8) = -1 EDOM
setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=-1}, 8) = -1 EDOM
setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=10}, 8) = 0
`,
		"type": scrSocket + "getsockopt(3, SOL_SOCKET, SO_TYPE, [1], [4]) = 0\n",
		"TOS and TTL": scrSocket + `
setsockopt(3, IPPROTO_IP, IP_TOS, [16], 4) = 0
setsockopt(3, IPPROTO_IP, IP_TTL, [5], 4) = 0
getsockopt(3, IPPROTO_IP, IP_TOS, [16], [4]) = 0
getsockopt(3, IPPROTO_IP, IP_TTL, [5], [4]) = 0
bind(3, ..., ...) = 0
listen(3, 1) = 0
< . 1:1(0) ack 1000 win 65535
> [tos 0x10,ttl 5] R 1000:1000(0)
< S 0:0(0) win 65535 <mss 1460>
> [tos 0x10,ttl 5] S. 0:0(0) ack 1 win 65535 <mss 1460>
< . 1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
getsockopt(4, IPPROTO_IP, IP_TOS, [16], [4]) = 0
getsockopt(4, IPPROTO_IP, IP_TTL, [5], [4]) = 0
send(4, ..., 10, 0) = 10
> [tos 0x10,ttl 5] P. 1:11(10) ack 1 win 65535
< S 1:1(0) win 65535
> [tos 0x10,ttl 5] . 11:11(0) ack 1 win 65535
close(4) = 0
> [tos 0x10,ttl 5] F. 11:11(0) ack 1 win 65535
< F. 1:1(0) ack 12 win 65535
> [tos 0x10,ttl 5] . 12:12(0) ack 2 win 65535
< F. 1:1(0) ack 12 win 65535
> [tos 0x10,ttl 5] . 12:12(0) ack 2 win 65535
`,
		"TOS and TTL, active": scrSocket + `
setsockopt(3, IPPROTO_IP, IP_TOS, [32], 4) = 0
setsockopt(3, IPPROTO_IP, IP_TTL, [255], 4) = 0
connect(3, ..., ...) = -1 EINPROGRESS
> [tos 0x20,ttl 255] S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
`,
		"default TTL": scrSocket + "getsockopt(3, IPPROTO_IP, IP_TOS, [0], [4]) = 0\n" +
			"getsockopt(3, IPPROTO_IP, IP_TTL, [64], [4]) = 0\n",
		"inherited": scrSocket + set("TCP_NODELAY", "1", "0") + set("TCP_KEEPIDLE", "11", "0") +
			set("TCP_KEEPINTVL", "12", "0") + set("TCP_KEEPCNT", "13", "0") + set("TCP_KEEPINIT", "14", "0") + `
setsockopt(3, SOL_SOCKET, SO_KEEPALIVE, [1], 4) = 0
bind(3, ..., ...) = 0
listen(3, 1) = 0
< S 0:0(0) win 65535 <mss 1460>
> S. 0:0(0) ack 1 win 65535 <mss 1460>
< . 1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
getsockopt(4, IPPROTO_TCP, TCP_NODELAY, [4], [4]) = 0
getsockopt(4, IPPROTO_TCP, TCP_KEEPIDLE, [11], [4]) = 0
getsockopt(4, IPPROTO_TCP, TCP_KEEPINTVL, [12], [4]) = 0
getsockopt(4, IPPROTO_TCP, TCP_KEEPCNT, [13], [4]) = 0
getsockopt(4, IPPROTO_TCP, TCP_KEEPINIT, [14], [4]) = 0
getsockopt(4, SOL_SOCKET, SO_KEEPALIVE, [8], [4]) = 0
`,
		"TCP_INFO": scrSocket + `
getsockopt(3, IPPROTO_TCP, TCP_INFO, {tcpi_state=TCPS_CLOSED, tcpi_options=TCPI_OPT_SACK}, [4]) = 0
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
getsockopt(3, IPPROTO_TCP, TCP_INFO, {tcpi_state=TCPS_SYN_SENT}, [4]) = 0
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460,nop,nop,TS val 7000 ecr 100>
> . 1:1(0) ack 1 win 65535 <nop,nop,TS val 150 ecr 7000>
info 3 {tcpi_state=TCPS_ESTABLISHED, tcpi_options=TCPI_OPT_TIMESTAMPS, tcpi_snd_wscale=0, tcpi_rcv_wscale=0}
`,
	})
}
