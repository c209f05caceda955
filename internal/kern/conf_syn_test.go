package kern

import (
	"testing"

	"bsdnet/internal/kern/tcp"
)

// Beginnings of scripts. Descriptor 3 is the socket that was made, 4 what it has accepted.
const (
	scrSocket = `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
`
	scrBound  = scrSocket + "bind(3, ..., ...) = 0\n"
	scrListen = scrBound + "listen(3, 1) = 0\n"

	scrSynRcvd = scrListen + `
< S  0:0(0) win 65535 <mss 1460,sackOK,eol,eol>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
`
	scrAccepted = scrSynRcvd + `
+0.05 < . 1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0
`
	// The connection's sequence numbers go on at 1 on both sides; the listener is gone.
	scrSynSent = scrSocket + `
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
`
	scrConnected = scrSynSent + `
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
> . 1:1(0) ack 1 win 65535
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
`
	scrConnectedFull = scrSynSent + `
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 7,sackOK,TS val 7000 ecr 100>
> . 1:1(0) ack 1 win 1027 <nop,nop,TS val 150 ecr 7000>
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
`
)

// The defaults of a SYN, as FreeBSD has them.
func TestConfDefaults(t *testing.T) {
	runScripts(t, map[string]string{
		"buffers passive": scrListen + `
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65536], [4]) = 0
getsockopt(3, SOL_SOCKET, SO_SNDBUF, [32768], [4]) = 0
< S  0:0(0) win 65535 <mss 1460,sackOK,eol,eol>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65536], [4]) = 0
< .  1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
getsockopt(4, SOL_SOCKET, SO_RCVBUF, [65700], [4]) = 0
getsockopt(4, SOL_SOCKET, SO_SNDBUF, [33580], [4]) = 0
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65536], [4]) = 0
`,
		"buffers active": scrSynSent + `
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65536], [4]) = 0
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460>
> . 1:1(0) ack 1 win 65535
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65700], [4]) = 0
getsockopt(3, SOL_SOCKET, SO_SNDBUF, [33580], [4]) = 0
`,
		"set and inherited": scrSocket + `
setsockopt(3, SOL_SOCKET, SO_RCVBUF, [10000], 4) = 0
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [10000], [4]) = 0
bind(3, ..., ...) = 0
listen(3, 1) = 0
< S  0:0(0) win 65535 <mss 1460>
> S. 0:0(0) ack 1 win 10000 <mss 1460>
< .  1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
getsockopt(4, SOL_SOCKET, SO_RCVBUF, [10220], [4]) = 0
`,
		"sysctl": `
sysctl net.inet.tcp.recvspace=20000
sysctl net.inet.tcp.sendspace=30000
` + scrSocket + `
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [20000], [4]) = 0
getsockopt(3, SOL_SOCKET, SO_SNDBUF, [30000], [4]) = 0
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 20000 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
`,
		"window scaled": scrConnectedFull + `
info 3 {tcpi_state=TCPS_ESTABLISHED, tcpi_snd_wscale=7, tcpi_rcv_wscale=6}
info 3 {tcpi_options=TCPI_OPT_TIMESTAMPS|TCPI_OPT_SACK|TCPI_OPT_WSCALE}
`,
		"window scaled passive": scrListen + `
< S  0:0(0) win 65535 <mss 1460,nop,wscale 3,sackOK,TS val 500 ecr 0>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 500>
+0.01 < .  1:1(0) ack 1 win 1000 <nop,nop,TS val 510 ecr 100>
accept(3, ..., ...) = 4
< . 1:1461(1460) ack 1 win 1000 <nop,nop,TS val 510 ecr 100>
+0.04 > . 1:1(0) ack 1461 win 1004 <nop,nop,TS val 150 ecr 510>
read(4, ..., 2000) = 1460
`,
		// The window is larger than a SYN,ACK can say: the rest is advertised as soon as the
		// connection is established.
		"large buffer": scrSocket + `
setsockopt(3, SOL_SOCKET, SO_RCVBUF, [1000000], 4) = 0
bind(3, ..., ...) = 0
listen(3, 1) = 0
< S  0:0(0) win 65535 <mss 1460,nop,wscale 3>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 6>
< .  1:1(0) ack 1 win 1000
> .  1:1(0) ack 1 win 15627
accept(3, ..., ...) = 4
getsockopt(4, SOL_SOCKET, SO_RCVBUF, [1000100], [4]) = 0
`,
		"file flags": scrSocket + `
fcntl(3, F_GETFL) = 6
fcntl(3, F_SETFL, O_RDWR) = 0
fcntl(3, F_GETFL) = 2
`,
	})
}

// The variables that FreeBSD's scripts set.
func TestConfSysctl(t *testing.T) {
	k, err := New(Config{Profile: tcp.FreeBSD()})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for name, want := range map[string]int64{
		"net.inet.tcp.delacktime": 40, "net.inet.tcp.rexmit_initial": 1000,
		"net.inet.tcp.rexmit_slop": 200, "net.inet.tcp.insecure_rst": 0,
		"net.inet.tcp.insecure_syn": 0, "net.inet.tcp.drop_synfin": 0,
		"net.inet.tcp.icmp_may_rst": 1, "net.inet.tcp.sack.enable": 1, "net.inet.tcp.rfc1323": 1,
		"net.inet.tcp.mssdflt": 536, "net.inet.tcp.minmss": 216, "net.inet.tcp.recvspace": 65536,
		"net.inet.tcp.sendspace": 32768, "kern.ipc.maxsockbuf": 2 << 20,
		"net.inet.tcp.keepidle": 7200000, "net.inet.tcp.keepintvl": 75000,
		"net.inet.tcp.keepinit": 75000, "net.inet.tcp.keepcnt": 8, "net.inet.tcp.ecn.enable": 2,
		"net.inet.tcp.ecn.maxretries": 1, "net.inet.tcp.rexmit_drop_options": 0,
		"net.inet.tcp.msl": 30000,
	} {
		if got, err := k.Sysctl(name); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", name, got, err, want)
		}
	}
}

// The order of a SYN's options, window scales, and the MSS.
func TestConfSynOptions(t *testing.T) {
	const connect = scrSocket + "connect(3, ..., ...) = -1 EINPROGRESS\n"
	const off = "sysctl net.inet.tcp.rfc1323=0\n"
	const nosack = "sysctl net.inet.tcp.sack.enable=0\n"
	scripts := map[string]string{
		"active": connect + "> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>",
		"active no sack": nosack + connect +
			"> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,nop,nop,TS val 100 ecr 0>",
		"active no 1323": off + connect + "> S 0:0(0) win 65535 <mss 1460,sackOK,eol,eol>",
		"active neither": off + nosack + connect + "> S 0:0(0) win 65535 <mss 1460>",
		"active noopt": scrSocket + "setsockopt(3, IPPROTO_TCP, TCP_NOOPT, [1], 4) = 0\n" +
			"connect(3, ..., ...) = -1 EINPROGRESS\n> S 0:0(0) win 65535",
		"scale 1": "sysctl kern.ipc.maxsockbuf=73728\n" + connect +
			"> S 0:0(0) win 65535 <mss 1460,nop,wscale 1,sackOK,TS val 100 ecr 0>",
		"scale 14": "sysctl kern.ipc.maxsockbuf=4294967295\n" + connect +
			"> S 0:0(0) win 65535 <mss 1460,nop,wscale 14,sackOK,TS val 100 ecr 0>",
		"rcvbuf not scale": scrSocket + "setsockopt(3, SOL_SOCKET, SO_RCVBUF, [1000000], 4) = 0\n" +
			"connect(3, ..., ...) = -1 EINPROGRESS\n" +
			"> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>",
		"scale 1 to the end": "sysctl kern.ipc.maxsockbuf=73728\n" + connect +
			"> S 0:0(0) win 65535 <mss 1460,nop,wscale 1,sackOK,TS val 100 ecr 0>\n" +
			"< S. 0:0(0) ack 1 win 5 <mss 1460,nop,wscale 0>\n> . 1:1(0) ack 1 win 32850",
		"scale 14 to the end": "sysctl kern.ipc.maxsockbuf=4294967295\n" + connect + `
> S 0:0(0) win 65535 <mss 1460,nop,wscale 14,sackOK,TS val 100 ecr 0>
< S. 0:0(0) ack 1 win 5 <mss 1460,nop,wscale 0>
> . 1:1(0) ack 1 win 5`,
	}
	// A SYN,ACK has what the SYN offered.
	for syn, synack := range map[string]string{
		"":                                      "mss 1460",
		"mss 1460":                              "mss 1460",
		"mss 1000":                              "mss 1460",
		"mss 1460,sackOK,eol,eol":               "mss 1460,sackOK,eol,eol",
		"sackOK,mss 1460,nop,nop":               "mss 1460,sackOK,eol,eol",
		"mss 1460,nop,wscale 0":                 "mss 1460,nop,wscale 6",
		"mss 1460,nop,wscale 14,sackOK,eol,eol": "mss 1460,nop,wscale 6,sackOK,eol,eol",
		"mss 1460,sackOK,TS val 1 ecr 0":        "mss 1460,sackOK,TS val 100 ecr 1",
		"mss 1460,nop,nop,TS val 9 ecr 0":       "mss 1460,nop,nop,TS val 100 ecr 9",
		"mss 1460,nop,wscale 2,sackOK,TS val 9 ecr 0":         "mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 9",
		"mss 1460,nop,wscale 2,nop,nop,TS val 9 ecr 0":        "mss 1460,nop,wscale 6,nop,nop,TS val 100 ecr 9",
		"mss 1460,sackOK,TS val 9 ecr 0,nop,wscale 2":         "mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 9",
		"nop,nop,TS val 9 ecr 0,nop,nop,sackOK,mss 512":       "mss 1460,sackOK,TS val 100 ecr 9",
		"mss 1460,0x1e02,nop,nop,sackOK,0x2204beef,eol,eol":   "mss 1460,sackOK,eol,eol",
		"mss 1460,nop,wscale 15,nop,nop,sackOK,0xfe0401,0xff": "mss 1460,nop,wscale 6,sackOK,eol,eol",
	} {
		scripts["passive "+syn] = scrListen + "< S 0:0(0) win 65535 <" + syn + ">\n> S. 0:0(0) ack 1 win 65535 <" +
			synack + ">"
	}
	const fullSyn = "< S 0:0(0) win 65535 <mss 1460,nop,wscale 2,sackOK,TS val 9 ecr 0>\n"
	scripts["passive no sack"] = nosack + scrListen + fullSyn +
		"> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 6,nop,nop,TS val 100 ecr 9>"
	scripts["passive no 1323"] = off + scrListen + fullSyn + "> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>"
	scripts["passive neither"] = off + nosack + scrListen + fullSyn + "> S. 0:0(0) ack 1 win 65535 <mss 1460>"
	scripts["passive noopt"] = scrListen + "setsockopt(3, IPPROTO_TCP, TCP_NOOPT, [1], 4) = 0\n" + fullSyn +
		"> S. 0:0(0) ack 1 win 65535"
	for mtu, mss := range map[string]string{"1280": "1240", "1500": "1460", "9000": "8960", "65535": "65495"} {
		scripts["passive mtu "+mtu] = "mtu " + mtu + "\n" + scrListen + "< S 0:0(0) win 65535 <mss 1460>\n" +
			"> S. 0:0(0) ack 1 win 65535 <mss " + mss + ">"
	}
	for mtu, mss := range map[string]string{
		"72": "32", "1280": "1240", "1500": "1460", "9000": "8960", "65535": "65495",
	} {
		scripts["active mtu "+mtu] = "mtu " + mtu + "\n" + connect + "> S 0:0(0) win 65535 <mss " + mss +
			",nop,wscale 6,sackOK,TS val 100 ecr 0>"
	}
	runScripts(t, scripts)
}

// After the handshake both MSS options count, and the path's.
func TestConfMSS(t *testing.T) {
	runScripts(t, map[string]string{
		"active small path": "mtu 72\n" + scrSocket + `
connect(3, ..., ...) = -1 EINPROGRESS
> S  0:0(0) win 65535 <mss 32,nop,wscale 6,sackOK,TS val 100 ecr 0>
< S. 0:0(0) ack 1 win 65535 <mss 1460>
> .  1:1(0) ack 1 win 65535
getsockopt(3, IPPROTO_TCP, TCP_MAXSEG, [32], [4]) = 0
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65536], [4]) = 0
send(3, ..., 40, 0) = 40
> .  1:33(32) ack 1 win 65535
+0.02 < . 1:1(0) ack 33 win 65535
> P. 33:41(8) ack 1 win 65535
`,
		"none": scrSynSent + `
< S. 0:0(0) ack 1 win 65535
> .  1:1(0) ack 1 win 65535
getsockopt(3, IPPROTO_TCP, TCP_MAXSEG, [536], [4]) = 0
`,
		"too small": scrSynSent + `
< S. 0:0(0) ack 1 win 65535 <mss 100>
> .  1:1(0) ack 1 win 65535
getsockopt(3, IPPROTO_TCP, TCP_MAXSEG, [216], [4]) = 0
`,
		"large": scrSynSent + `
< S. 0:0(0) ack 1 win 65535 <mss 9000>
> .  1:1(0) ack 1 win 65535
getsockopt(3, IPPROTO_TCP, TCP_MAXSEG, [1460], [4]) = 0
getsockopt(3, SOL_SOCKET, SO_RCVBUF, [65700], [4]) = 0
`,
		"jumbo": "mtu 9000\n" + scrListen + `
< S  0:0(0) win 65535 <mss 8960>
> S. 0:0(0) ack 1 win 65535 <mss 8960>
< .  1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
getsockopt(4, SOL_SOCKET, SO_RCVBUF, [71680], [4]) = 0
`,
	})
}

// The first RTO is 1.0 s; a SYN goes again after 1.0 s and 2.2 s, 12 times in all, or until
// TCP_KEEPINIT.
func TestConfSynRetransmit(t *testing.T) {
	const full = "<mss 1460,nop,wscale 6,sackOK,TS val "
	const syns = `
+1.0  > S 0:0(0) win 65535 ` + full + `1100 ecr 0>
+2.2  > S 0:0(0) win 65535 ` + full + `3300 ecr 0>
+4.2  > S 0:0(0) win 65535 ` + full + `7500 ecr 0>
+8.2  > S 0:0(0) win 65535 ` + full + `15700 ecr 0>
+16.2 > S 0:0(0) win 65535 ` + full + `31900 ecr 0>
+32.2 > S 0:0(0) win 65535 ` + full + `64100 ecr 0>
`
	runScripts(t, map[string]string{
		"keepinit of 75 s": scrSynSent + syns + `
+11 states CLOSED
getsockopt(3, SOL_SOCKET, SO_ERROR, [ETIMEDOUT], [4]) = 0
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
`,
		"not before": scrSynSent + syns + "+10.999 states SYN_SENT\n",
		"blocking": `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
setsockopt(3, IPPROTO_TCP, TCP_KEEPINIT, [5], 4) = 0
bind(3, ..., ...) = 0
+0...5 connect(3, ..., ...) = -1 ETIMEDOUT
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
+1.0  > S 0:0(0) win 65535 ` + full + `1100 ecr 0>
+2.2  > S 0:0(0) win 65535 ` + full + `3300 ecr 0>
+10 states CLOSED
`,
		"keepinit by sysctl": "sysctl net.inet.tcp.keepinit=2000\n" + scrSynSent + `
+1.0  > S 0:0(0) win 65535 ` + full + `1100 ecr 0>
+1 getsockopt(3, SOL_SOCKET, SO_ERROR, [ETIMEDOUT], [4]) = 0
`,
		"12 retransmissions": scrSocket + `
setsockopt(3, IPPROTO_TCP, TCP_KEEPINIT, [10000], 4) = 0
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
` + syns + `
+64 > S 0:0(0) win 65535 ` + full + `128100 ecr 0>
+64 > S 0:0(0) win 65535 ` + full + `192100 ecr 0>
+64 > S 0:0(0) win 65535 ` + full + `256100 ecr 0>
+64 > S 0:0(0) win 65535 ` + full + `320100 ecr 0>
+64 > S 0:0(0) win 65535 ` + full + `384100 ecr 0>
+64 > S 0:0(0) win 65535 ` + full + `448100 ecr 0>
+63.999 getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
+0.001 getsockopt(3, SOL_SOCKET, SO_ERROR, [ETIMEDOUT], [4]) = 0
+1000 states CLOSED
`,
		"rexmit_initial": "sysctl net.inet.tcp.rexmit_initial=3000\n" + scrSynSent + `
+3.0  > S 0:0(0) win 65535 ` + full + `3100 ecr 0>
+6.2  > S 0:0(0) win 65535 ` + full + `9300 ecr 0>
`,
		"drop options": "sysctl net.inet.tcp.rexmit_drop_options=1\n" + scrSynSent + `
+1.0  > S 0:0(0) win 65535 ` + full + `1100 ecr 0>
+2.2  > S 0:0(0) win 65535 ` + full + `3300 ecr 0>
+4.2  > S 0:0(0) win 65535 <mss 1460>
+8.2  > S 0:0(0) win 65535 <mss 1460>
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 3,sackOK,TS val 5 ecr 0>
> . 1:1(0) ack 1 win 65535
getsockopt(3, IPPROTO_TCP, TCP_INFO, {tcpi_state=TCPS_ESTABLISHED, tcpi_options=0}, [4]) = 0
`,
		"syn,ack": scrSynRcvd + `
+1.0 > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
+2.2 > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
+4.2 > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
+8.1 states LISTEN SYN_RECEIVED
+0.1 states LISTEN
`,
		"syn,ack after the SYN again": scrSynRcvd + `
+0.5 < S  0:0(0) win 65535 <mss 1460,sackOK,eol,eol>
     > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
+1.0 > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
`,
	})
}

// A SYN that asks for ECN has the flags "SEW"; after maxretries it goes without.
func TestConfECN(t *testing.T) {
	const full = "<mss 1460,nop,wscale 6,sackOK,TS val "
	const on = "sysctl net.inet.tcp.ecn.enable=1\n" + scrSocket + `
connect(3, ..., ...) = -1 EINPROGRESS
> SEW 0:0(0) win 65535 ` + full + "100 ecr 0>\n"
	runScripts(t, map[string]string{
		"retries": on + `
+1.0  > SEW 0:0(0) win 65535 ` + full + `1100 ecr 0>
+2.2  > S 0:0(0) win 65535 ` + full + `3300 ecr 0>
+4.2  > S 0:0(0) win 65535 ` + full + `7500 ecr 0>
`,
		"no retries": "sysctl net.inet.tcp.ecn.maxretries=0\n" + on + "+1.0  > S 0:0(0) win 65535 " + full +
			"1100 ecr 0>\n",
		"agreed": on + `
< S.E 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
> . 1:1(0) ack 1 win 65535
getsockopt(3, IPPROTO_TCP, TCP_INFO, {tcpi_options=TCPI_OPT_SACK|TCPI_OPT_ECN}, [4]) = 0
send(3, ..., 10, 0) = 10
> [tos 0x2] P. 1:11(10) ack 1 win 65535
`,
		"refused": on + `
< S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
> . 1:1(0) ack 1 win 65535
getsockopt(3, IPPROTO_TCP, TCP_INFO, {tcpi_options=TCPI_OPT_SACK}, [4]) = 0
`,
		"accepted": scrListen + `
< SEW 0:0(0) win 65535 <mss 1460,sackOK,eol,eol>
> S.E 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
+1.0 > S.E 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
+2.2 > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
`,
		"off": "sysctl net.inet.tcp.ecn.enable=0\n" + scrListen + `
< SEW 0:0(0) win 65535 <mss 1460,sackOK,eol,eol>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
`,
	})
}
