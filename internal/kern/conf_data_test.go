package kern

import "testing"

// Data: merging, SACK blocks, D-SACK.
func TestConfReassembly(t *testing.T) {
	const noSack = scrListen + `
< S  0:0(0) win 65535 <mss 1460>
> S. 0:0(0) ack 1 win 65535 <mss 1460>
+0.05 < . 1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0
`
	const ts = scrListen + `
< S  0:0(0) win 65535 <mss 1460,sackOK,TS val 500 ecr 0>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 100 ecr 500>
< .  1:1(0) ack 1 win 65535 <nop,nop,TS val 500 ecr 100>
accept(3, ..., ...) = 4
`
	const holes = scrAccepted + `
< . 200:300(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 200:300>
< . 400:500(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 400:500 200:300>
< . 600:700(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 600:700 400:500 200:300>
`
	runScripts(t, map[string]string{
		"gap filled": scrAccepted + `
< . 101:201(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 101:201>
recv(4, ..., 1000, MSG_PEEK) = -1 EWOULDBLOCK
< . 1:101(100) ack 1 win 65535
> . 1:1(0) ack 201 win 65500
recv(4, ..., 1000, MSG_PEEK) = 200
recv(4, ..., 1000, 0) = 200
recv(4, ..., 1000, 0) = -1 EWOULDBLOCK
`,
		"without SACK": noSack + `
< . 101:201(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535
< . 101:201(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535
< . 1:101(100) ack 1 win 65535
> . 1:1(0) ack 201 win 65500
< . 1:101(100) ack 1 win 65535
> . 1:1(0) ack 201 win 65500
recv(4, ..., 1000, 0) = 200
`,
		"the latest first": holes + `
< . 800:900(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 800:900 600:700 400:500 200:300>
< . 1000:1100(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 1000:1100 800:900 600:700 400:500>
< . 1200:1300(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 1200:1300 1000:1100 800:900 600:700>
< . 300:350(50) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 200:350 1200:1300 1000:1100 800:900>
`,
		"three with timestamps": ts + `
< . 200:300(100) ack 1 win 65535 <nop,nop,TS val 500 ecr 100>
> . 1:1(0) ack 1 win 65535 <nop,nop,TS val 100 ecr 500,nop,nop,sack 200:300>
< . 400:500(100) ack 1 win 65535 <nop,nop,TS val 500 ecr 100>
> . 1:1(0) ack 1 win 65535 <nop,nop,TS val 100 ecr 500,nop,nop,sack 400:500 200:300>
< . 600:700(100) ack 1 win 65535 <nop,nop,TS val 500 ecr 100>
> . 1:1(0) ack 1 win 65535 <nop,nop,TS val 100 ecr 500,nop,nop,sack 600:700 400:500 200:300>
< . 800:900(100) ack 1 win 65535 <nop,nop,TS val 500 ecr 100>
> . 1:1(0) ack 1 win 65535 <nop,nop,TS val 100 ecr 500,nop,nop,sack 800:900 600:700 400:500>
`,
		"over two blocks": holes + `
< . 150:475(325) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 200:300 150:500 600:700>
< . 1:150(149) ack 1 win 65535
> . 1:1(0) ack 500 win 65201 <nop,nop,sack 600:700>
< . 500:600(100) ack 1 win 65535
> . 1:1(0) ack 700 win 65001
recv(4, ..., 1000, 0) = 699
`,
		"right up to the next": holes + `
< . 300:400(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 200:500 600:700>
`,
		"inside a block": holes + `
< . 420:480(60) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 420:480 400:500 600:700 200:300>
`,
		"the same again": holes + `
< . 400:500(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 400:500 400:500 600:700 200:300>
< . 700:800(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 600:800 400:500 200:300>
`,
		"overlap on the left": holes + `
< . 350:450(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 400:450 350:500 600:700 200:300>
`,
		"overlap on the right": holes + `
< . 450:550(100) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 450:500 400:550 600:700 200:300>
`,
		"around a block": holes + `
< . 350:550(200) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 400:500 350:550 600:700 200:300>
`,
		"over all the holes": scrAccepted + `
< . 1:100(99) ack 1 win 65535
+0.04 > . 1:1(0) ack 100 win 65535
< . 200:300(100) ack 1 win 65535
> . 1:1(0) ack 100 win 65535 <nop,nop,sack 200:300>
< . 400:500(100) ack 1 win 65535
> . 1:1(0) ack 100 win 65535 <nop,nop,sack 400:500 200:300>
< . 1:800(799) ack 1 win 65535
> . 1:1(0) ack 800 win 64901 <nop,nop,sack 1:100>
recv(4, ..., 1000, 0) = 799
`,
		"duplicate in order": scrAccepted + `
< . 1:101(100) ack 1 win 65535
+0.04 > . 1:1(0) ack 101 win 65535
recv(4, ..., 1000, 0) = 100
< . 1:101(100) ack 1 win 65535
> . 1:1(0) ack 101 win 65535 <nop,nop,sack 1:101>
< . 51:151(100) ack 1 win 65535
> . 1:1(0) ack 151 win 65535 <nop,nop,sack 51:101>
recv(4, ..., 1000, 0) = 50
+0.01 < . 151:161(10) ack 1 win 65535
+0.04 > . 1:1(0) ack 161 win 65535
`,
		"duplicate with a hole": holes + `
< . 1:101(100) ack 1 win 65535
> . 1:1(0) ack 101 win 65535 <nop,nop,sack 600:700 400:500 200:300>
< . 1:101(100) ack 1 win 65535
> . 1:1(0) ack 101 win 65535 <nop,nop,sack 1:101 600:700 400:500 200:300>
< . 51:151(100) ack 1 win 65535
> . 1:1(0) ack 151 win 65535 <nop,nop,sack 51:101 600:700 400:500 200:300>
`,
		"5F4321": scrAccepted + `
< . 41:51(10) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 41:51>
< F. 51:51(0) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 41:51>
states ESTABLISHED LISTEN
< . 31:41(10) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 31:51>
< . 21:31(10) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 21:51>
< . 11:21(10) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 11:51>
recv(4, ..., 1000, 0) = -1 EWOULDBLOCK
< . 1:11(10) ack 1 win 65535
> . 1:1(0) ack 52 win 65535
states CLOSE_WAIT LISTEN
recv(4, ..., 1000, 0) = 50
recv(4, ..., 1000, 0) = 0
`,
		"FIN with data, early": scrAccepted + `
< F. 11:21(10) ack 1 win 65535
> . 1:1(0) ack 1 win 65535 <nop,nop,sack 11:21>
< . 1:11(10) ack 1 win 65535
> . 1:1(0) ack 22 win 65535
recv(4, ..., 1000, MSG_PEEK) = 20
recv(4, ..., 1000, 0) = 20
recv(4, ..., 1000, 0) = 0
`,
		"FIN in order": scrAccepted + `
< F. 1:11(10) ack 1 win 65535
> . 1:1(0) ack 12 win 65535
recv(4, ..., 5, 0) = 5
recv(4, ..., 1000, 0) = 5
recv(4, ..., 1000, 0) = 0
recv(4, ..., 1000, 0) = 0
states CLOSE_WAIT LISTEN
`,
	})
}

// Data: delayed acknowledgments, windows, updates.
func TestConfDelayedAck(t *testing.T) {
	runScripts(t, map[string]string{
		"alone": scrAccepted + "< P. 1:11(10) ack 1 win 65535\n+0.04 > . 1:1(0) ack 11 win 65535\n",
		"every second": scrAccepted + `
< . 1:1461(1460) ack 1 win 65535
+0.01 < . 1461:2921(1460) ack 1 win 65535
> . 1:1(0) ack 2921 win 62780
+0.01 < . 2921:2931(10) ack 1 win 65535
+0.03 < . 2931:2932(1) ack 1 win 65535
> . 1:1(0) ack 2932 win 62769
+0.01 < . 2932:2933(1) ack 1 win 65535
+0.04 > . 1:1(0) ack 2933 win 62768
`,
		"delacktime": "sysctl net.inet.tcp.delacktime=100\n" + scrAccepted + "< P. 1:11(10) ack 1 win 65535\n" +
			"+0.1 > . 1:1(0) ack 11 win 65535\n",
		"not delayed": "sysctl net.inet.tcp.delayed_ack=0\n" + scrAccepted + "< P. 1:11(10) ack 1 win 65535\n" +
			"> . 1:1(0) ack 11 win 65535\n",
		"with a segment": scrAccepted + "< P. 1:11(10) ack 1 win 65535\n+0.02 send(4, ..., 5, 0) = 5\n" +
			"> P. 1:6(5) ack 11 win 65535\n",
		"recv does not": scrAccepted + "< P. 1:11(10) ack 1 win 65535\nrecv(4, ..., 100, 0) = 10\n" +
			"+0.04 > . 1:1(0) ack 11 win 65535\n",
		"window update": scrAccepted + `
< . 1:1461(1460) ack 1 win 65535
< . 1461:2921(1460) ack 1 win 65535
> . 1:1(0) ack 2921 win 62780
< . 2921:20441(17520) ack 1 win 65535
> . 1:1(0) ack 20441 win 45260
recv(4, ..., 10000, 0) = 10000
recv(4, ..., 6400, 0) = 6400
recv(4, ..., 25, 0) = 25
> . 1:1(0) ack 20441 win 61685
`,
		"closed window": scrSocket + `
setsockopt(3, SOL_SOCKET, SO_RCVBUF, [2920], 4) = 0
bind(3, ..., ...) = 0
listen(3, 1) = 0
< S  0:0(0) win 65535 <mss 1460>
> S. 0:0(0) ack 1 win 2920 <mss 1460>
< .  1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
< . 1:1461(1460) ack 1 win 65535
< . 1461:2921(1460) ack 1 win 65535
> . 1:1(0) ack 2921 win 0
+0.5 < . 2921:2922(1) ack 1 win 65535
> . 1:1(0) ack 2921 win 0
recv(4, ..., 100, 0) = 100
+0.5 < . 2921:2922(1) ack 1 win 65535 // there is room, if not enough to speak of
> . 1:1(0) ack 2922 win 0
recv(4, ..., 2000, 0) = 2000
> . 1:1(0) ack 2922 win 2099
recv(4, ..., 2000, 0) = 821
+0.5 < . 2922:2923(1) ack 1 win 65535
+0.04 > . 1:1(0) ack 2923 win 2919
`,
	})
}

// Sending: what a segment carries, retransmission, a closed window.
func TestConfSend(t *testing.T) {
	runScripts(t, map[string]string{
		"segments": scrConnectedFull + `
send(3, ..., 3000, 0) = 3000
> . 1:1449(1448) ack 1 win 1027 <nop,nop,TS val 150 ecr 7000>
> . 1449:2897(1448) ack 1 win 1027 <nop,nop,TS val 150 ecr 7000>
+0.05 < . 1:1(0) ack 2897 win 65535 <nop,nop,TS val 7050 ecr 150>
> P. 2897:3001(104) ack 1 win 1027 <nop,nop,TS val 200 ecr 7050>
`,
		"no delay": scrConnected + `
setsockopt(3, IPPROTO_TCP, TCP_NODELAY, [1], 4) = 0
send(3, ..., 2000, 0) = 2000
> . 1:1461(1460) ack 1 win 65535
> P. 1461:2001(540) ack 1 win 65535
`,
		"retransmission": scrConnected + `
send(3, ..., 10, 0) = 10
> P. 1:11(10) ack 1 win 65535
+0.35 > P. 1:11(10) ack 1 win 65535
+0.5 > P. 1:11(10) ack 1 win 65535
`,
		"three duplicates": scrConnected + `
setsockopt(3, IPPROTO_TCP, TCP_NODELAY, [1], 4) = 0
send(3, ..., 7300, 0) = 7300
> . 1:1461(1460) ack 1 win 65535
> . 1461:2921(1460) ack 1 win 65535
> . 2921:4381(1460) ack 1 win 65535
> . 4381:5841(1460) ack 1 win 65535
> P. 5841:7301(1460) ack 1 win 65535
+0.05 < . 1:1(0) ack 1 win 65535 <nop,nop,sack 1461:2921>
< . 1:1(0) ack 1 win 65535 <nop,nop,sack 1461:4381>
< . 1:1(0) ack 1 win 65535 <nop,nop,sack 1461:5841>
> . 1:1461(1460) ack 1 win 65535
< . 1:1(0) ack 7301 win 65535
`,
		"zero window": scrConnected + `
send(3, ..., 10, 0) = 10
> P. 1:11(10) ack 1 win 65535
+0.05 < . 1:1(0) ack 1 win 0 // the same numbers cannot take it back (RFC 9293, 3.10.7.4)
< . 1:1(0) ack 11 win 0
send(3, ..., 10, 0) = 10
+5 > . 11:12(1) ack 1 win 65535
+0.01 < . 1:1(0) ack 11 win 0
+4.99 > . 11:12(1) ack 1 win 65535
+0.01 < . 1:1(0) ack 12 win 100
> P. 12:21(9) ack 1 win 65535
`,
		"urgent": scrConnected + `
send(3, ..., 5, MSG_OOB) = 5
> P.U 1:6(5) ack 1 win 65535 urg 5
< P.U 1:11(10) ack 6 win 65535 urg 3
+0.04 > . 6:6(0) ack 11 win 65535
recv(3, ..., 100, 0) = 10
`,
		"buffer full": scrSocket + `
setsockopt(3, SOL_SOCKET, SO_SNDBUF, [4096], 4) = 0
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 100 ecr 0>
+0.05 < S. 0:0(0) ack 1 win 0 <mss 1460>
> . 1:1(0) ack 1 win 65535
getsockopt(3, SOL_SOCKET, SO_SNDBUF, [4380], [4]) = 0
send(3, ..., 10000, 0) = 4380
send(3, ..., 1, 0) = -1 EWOULDBLOCK
`,
		"PAWS": scrConnectedFull + `
< . 1:11(10) ack 1 win 65535 <nop,nop,TS val 6999 ecr 150>
> . 1:1(0) ack 1 win 1027 <nop,nop,TS val 150 ecr 7000>
< . 1:1(0) ack 1 win 65535 <nop,nop,TS val 6999 ecr 150>
recv(3, ..., 10, 0) = -1 EWOULDBLOCK
< . 1:11(10) ack 1 win 65535 <nop,nop,TS val 7000 ecr 150>
+0.04 > . 1:1(0) ack 11 win 1027 <nop,nop,TS val 190 ecr 7000>
recv(3, ..., 10, 0) = 10
`,
	})
}
