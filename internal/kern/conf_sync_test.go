package kern

import (
	"fmt"
	"strings"
	"testing"
)

// A scrState brings a connection into a synchronized state, with SND.NXT and RCV.NXT.
type scrState struct {
	name          string
	script        string
	nxt, rcv, una int // SND.NXT, RCV.NXT, SND.UNA
}

// scrStates are the synchronized states except TIME_WAIT. The user shuts down, so that the socket
// stays to tell its errors.
var scrStates = []scrState{
	{name: "ESTABLISHED", script: scrConnected, nxt: 1, rcv: 1, una: 1},
	{name: "CLOSE_WAIT", script: scrConnected + "< F. 1:1(0) ack 1 win 65535\n> . 1:1(0) ack 2 win 65535\n", nxt: 1,
		rcv: 2, una: 1},
	{name: "FIN_WAIT_1", script: scrConnected + "shutdown(3, SHUT_WR) = 0\n> F. 1:1(0) ack 1 win 65535\n", nxt: 2,
		rcv: 1, una: 1},
	{name: "FIN_WAIT_2", script: scrConnected + "shutdown(3, SHUT_WR) = 0\n> F. 1:1(0) ack 1 win 65535\n" +
		"< . 1:1(0) ack 2 win 65535\n", nxt: 2, rcv: 1, una: 2},
	{name: "CLOSING", script: scrConnected + "shutdown(3, SHUT_WR) = 0\n> F. 1:1(0) ack 1 win 65535\n" +
		"< F. 1:1(0) ack 1 win 65535\n> F. 1:1(0) ack 2 win 65535\n", nxt: 2, rcv: 2, una: 1},
	{name: "LAST_ACK", script: scrConnected + "< F. 1:1(0) ack 1 win 65535\n> . 1:1(0) ack 2 win 65535\n" +
		"shutdown(3, SHUT_WR) = 0\n> F. 1:1(0) ack 2 win 65535\n", nxt: 2, rcv: 2, una: 1},
}

// A reset in ESTABLISHED, CLOSE-WAIT, FIN-WAIT-1, FIN-WAIT-2, CLOSING and LAST-ACK.
func TestConfRST(t *testing.T) {
	scripts := map[string]string{}
	for _, st := range scrStates {
		begin := st.script + "states " + st.name + "\n"
		challenge := fmt.Sprintf("> . %d:%d(0) ack %d win 65535\n", st.nxt, st.nxt, st.rcv)
		dead := "states CLOSED\ngetsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNRESET], [4]) = 0\n" +
			"getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0\n+5 close(3) = 0\nstates\n"
		alive := "states " + st.name + "\ngetsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0\n"
		for _, form := range []string{
			"R %[1]d:%[1]d(0) win 0", "R. %[1]d:%[1]d(0) ack %[3]d win 0", "R. %[1]d:%[1]d(0) ack 77777 win 0",
			"FR. %[1]d:%[1]d(0) ack %[3]d win 0",
			"RP. %[1]d:%[2]d(10) ack %[3]d win 0",
		} {
			at := func(n int) string { // %[2] and %[3] want to be used by all
				return strings.SplitN(fmt.Sprintf(form, n, n+10, st.nxt), "%", 2)[0]
			}
			scripts[st.name+" "+at(st.rcv)] = begin + "< " + at(st.rcv) + "\n" + dead
			for _, n := range []int{st.rcv + 1, st.rcv + 65699} {
				scripts[st.name+" "+at(n)] = begin + "< " + at(n) + "\n" + challenge + alive
				scripts[st.name+" insecure "+at(n)] = "sysctl net.inet.tcp.insecure_rst=1\n" + begin + "< " + at(n) +
					"\n" + dead
			}
			for _, n := range []int{st.rcv - 1, st.rcv + 65700} {
				scripts[st.name+" "+at(n)] = begin + "< " + at(n) + "\n" + alive
				scripts[st.name+" insecure "+at(n)] = "sysctl net.inet.tcp.insecure_rst=1\n" + begin + "< " + at(n) +
					"\n" + alive
			}
		}
	}
	runScripts(t, scripts)
}

// A SYN anywhere in a synchronized state.
func TestConfSYN(t *testing.T) {
	scripts := map[string]string{}
	for _, st := range scrStates {
		begin := st.script + "states " + st.name + "\n"
		challenge := fmt.Sprintf("> . %d:%d(0) ack %d win 65535\n", st.nxt, st.nxt, st.rcv)
		alive := "states " + st.name + "\ngetsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0\n"
		for _, n := range []int{st.rcv - 1, st.rcv, st.rcv + 1, st.rcv + 65699, st.rcv + 65700, st.rcv + 100000} {
			for _, form := range []string{"S %d:%d(0) win 65535", "S. %d:%d(0) ack 1 win 65535",
				"S. %d:%d(0) ack 99 win 65535", "SF %d:%d(0) win 65535", "SF. %d:%d(0) ack 1 win 65535",
				"S %d:%d(0) win 65535 <mss 1460,sackOK,eol,eol>"} {
				seg := fmt.Sprintf(form, n, n)
				scripts[st.name+" "+seg] = begin + "< " + seg + "\n" + challenge + alive
			}
			// insecure_syn: RFC 793's reset, in the window.
			seg := fmt.Sprintf("S %d:%d(0) win 65535", n, n)
			sack := fmt.Sprintf("S. %d:%d(0) ack 1 win 65535", n, n)
			const insecure = "sysctl net.inet.tcp.insecure_syn=1\n"
			if n >= st.rcv && n < st.rcv+65700 {
				dead := "states CLOSED\ngetsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNRESET], [4]) = 0\n"
				rst := fmt.Sprintf("\n> R. %d:%d(0) ack %d\n", st.nxt, st.nxt, st.rcv)
				scripts[st.name+" insecure "+seg] = insecure + begin + "< " + seg + rst + dead
				scripts[st.name+" insecure "+sack] = insecure + begin + "< " + sack + rst + dead
			} else {
				scripts[st.name+" insecure "+seg] = insecure + begin + "< " + seg + "\n" + challenge + alive
			}
		}
	}
	scripts["limit"] = scrConnected + `
< S 1:1(0) win 65535
> . 1:1(0) ack 1 win 65535
< S 1:1(0) win 65535
> . 1:1(0) ack 1 win 65535
< R 2:2(0) win 0
> . 1:1(0) ack 1 win 65535
< S 1:1(0) win 65535
> . 1:1(0) ack 1 win 65535
< S 1:1(0) win 65535
> . 1:1(0) ack 1 win 65535
< S 1:1(0) win 65535
< R 2:2(0) win 0
+0.999 < S 1:1(0) win 65535
+0.001 < S 1:1(0) win 65535
> . 1:1(0) ack 1 win 65535
`
	scripts["timestamps"] = scrConnectedFull + `
+0.01 < S 77:77(0) win 65535 <mss 1460,nop,wscale 7,sackOK,TS val 9000 ecr 0>
> . 1:1(0) ack 1 win 1026 <nop,nop,TS val 160 ecr 7000>
+0.01 < R 2:2(0) win 0 <nop,nop,TS val 9000 ecr 0>
> . 1:1(0) ack 1 win 1026 <nop,nop,TS val 170 ecr 7000>
`
	runScripts(t, scripts)
}

// The rest of RFC 9293, 3.10.7.4, first and fifth: a segment outside of the window is dropped and
// answered with an ACK. So is an ACK of data that has not been sent. An ACK that is too old draws a
// challenge (RFC 5961, 5).
func TestConfAcceptability(t *testing.T) {
	scripts := map[string]string{}
	for _, st := range scrStates {
		fin := st.nxt > st.una // a segment of BSD's repeats the FIN until it is acknowledged
		ack := fmt.Sprintf("> . %d:%d(0) ack %d win 65535\n", st.nxt, st.nxt, st.rcv)
		if fin {
			ack = fmt.Sprintf("> F. 1:1(0) ack %d win 65535\n", st.rcv)
		}
		alive := "states " + st.name + "\n"
		old := fmt.Sprintf("< . %d:%d(0) ack %d win 65535\n", st.rcv-1, st.rcv-1, st.una)
		scripts[st.name+" keep-alive"] = st.script + old + ack + alive
		oldData := fmt.Sprintf("< . %d:%d(1) ack %d win 65535\n", st.rcv-1, st.rcv, st.una)
		sack := fmt.Sprintf(" <nop,nop,sack %d:%d>\n", st.rcv-1, st.rcv)
		scripts[st.name+" keep-alive with data"] = st.script + oldData + ack[:len(ack)-1] + sack + alive
		right := fmt.Sprintf("< . %d:%d(10) ack %d win 65535\n", st.rcv+65700, st.rcv+65710, st.una)
		scripts[st.name+" right"] = st.script + right + ack + alive
		future := fmt.Sprintf("< . %d:%d(0) ack %d win 65535\n", st.rcv, st.rcv, st.nxt+1)
		scripts[st.name+" future ACK"] = st.script + future + ack + alive
		ancient := fmt.Sprintf("< . %d:%d(0) ack %d win 65535\n", st.rcv, st.rcv, 0)
		scripts[st.name+" ancient ACK"] = st.script + ancient +
			fmt.Sprintf("> . %d:%d(0) ack %d win 65535\n", st.nxt, st.nxt, st.rcv) + alive
		noAck := fmt.Sprintf("< - %d:%d(10) win 65535\n< F %d:%d(0) win 65535\n", st.rcv, st.rcv+10, st.rcv, st.rcv)
		scripts[st.name+" no ACK"] = st.script + noAck + alive
	}
	runScripts(t, scripts)
}

// A simultaneous close, and the ways through the closing states.
func TestConfClose(t *testing.T) {
	runScripts(t, map[string]string{
		"simultaneous": scrConnected + `
close(3) = 0
> F. 1:1(0) ack 1 win 65535
< F. 1:1(0) ack 1 win 65535
> F. 1:1(0) ack 2 win 65535
states CLOSING
< . 2:2(0) ack 2 win 65535
states TIME_WAIT
+59.9 states TIME_WAIT
+0.1 states
`,
		"simultaneous, the FIN again": scrConnected + `
close(3) = 0
> F. 1:1(0) ack 1 win 65535
< F. 1:1(0) ack 1 win 65535
> F. 1:1(0) ack 2 win 65535
< F. 1:1(0) ack 1 win 65535
> F. 1:1(0) ack 2 win 65535
states CLOSING
< F. 1:1(0) ack 2 win 65535
> . 2:2(0) ack 2 win 65535
states TIME_WAIT
`,
		"active": scrConnected + `
close(3) = 0
> F. 1:1(0) ack 1 win 65535
states FIN_WAIT_1
< . 1:1(0) ack 2 win 65535
states FIN_WAIT_2
< F. 1:1(0) ack 2 win 65535
> . 2:2(0) ack 2 win 65535
states TIME_WAIT
`,
		"active, FIN and ACK at once": scrConnected + `
close(3) = 0
> F. 1:1(0) ack 1 win 65535
< F. 1:1(0) ack 2 win 65535
> . 2:2(0) ack 2 win 65535
states TIME_WAIT
`,
		"passive": scrConnected + `
< F. 1:1(0) ack 1 win 65535
> . 1:1(0) ack 2 win 65535
states CLOSE_WAIT
recv(3, ..., 10, 0) = 0
close(3) = 0
> F. 1:1(0) ack 2 win 65535
states LAST_ACK
< . 2:2(0) ack 2 win 65535
states
`,
		"half-close": scrConnected + `
shutdown(3, SHUT_WR) = 0
> F. 1:1(0) ack 1 win 65535
< . 1:1(0) ack 2 win 65535
send(3, ..., 10, 0) = -1 EPIPE
< . 1:101(100) ack 2 win 65535
+0.04 > . 2:2(0) ack 101 win 65535
recv(3, ..., 1000, 0) = 100
< F. 101:101(0) ack 2 win 65535
> . 2:2(0) ack 102 win 65535
recv(3, ..., 1000, 0) = 0
states TIME_WAIT
`,
		"half-close lasts": scrConnected + `
shutdown(3, SHUT_WR) = 0
> F. 1:1(0) ack 1 win 65535
< . 1:1(0) ack 2 win 65535
+3600 states FIN_WAIT_2
`,
		"data with the FIN": scrConnected + `
send(3, ..., 2000, 0) = 2000
> . 1:1461(1460) ack 1 win 65535
close(3) = 0
> FP. 1461:2001(540) ack 1 win 65535
< . 1:1(0) ack 2002 win 65535
states FIN_WAIT_2
`,
		"data in FIN_WAIT_1 goes on": scrConnected + `
shutdown(3, SHUT_WR) = 0
> F. 1:1(0) ack 1 win 65535
< . 1:11(10) ack 1 win 65535
+0.04 > F. 1:1(0) ack 11 win 65535
recv(3, ..., 100, 0) = 10
`,
		"unread data": scrConnected + `
< . 1:11(10) ack 1 win 65535
close(3) = 0
> F. 1:1(0) ack 11 win 65535
`,
		"data after close in FIN_WAIT_1": scrConnected + `
close(3) = 0
> F. 1:1(0) ack 1 win 65535
< P. 1:11(10) ack 1 win 65535
> R 1:1(0)
states
`,
		"data after close in FIN_WAIT_2": scrConnected + `
close(3) = 0
> F. 1:1(0) ack 1 win 65535
< . 1:1(0) ack 2 win 65535
< P. 1:11(10) ack 2 win 65535
> R 2:2(0)
states
`,
		"FIN again in CLOSE_WAIT": scrConnected + `
< F. 1:1(0) ack 1 win 65535
> . 1:1(0) ack 2 win 65535
< F. 1:1(0) ack 1 win 65535
> . 1:1(0) ack 2 win 65535
states CLOSE_WAIT
`,
		"FIN retransmitted": scrConnected + `
close(3) = 0
> F. 1:1(0) ack 1 win 65535
+0.35 > F. 1:1(0) ack 1 win 65535
`,
		"linger 0": scrConnected + `
setsockopt(3, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0
close(3) = 0
> R. 1:1(0) ack 1
states
`,
		"not accepted": scrSynRcvd + `
< . 1:1(0) ack 1 win 65535
close(3) = 0
> R. 1:1(0) ack 1
states
`,
		"SHUT_RD": scrConnected + `
shutdown(3, SHUT_RD) = 0
recv(3, ..., 10, 0) = 0
states ESTABLISHED
send(3, ..., 10, 0) = 10
> P. 1:11(10) ack 1 win 65535
`,
		"tcpdrop": scrConnected + `
drop ESTABLISHED
> R. 1:1(0) ack 1
states CLOSED
getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNABORTED], [4]) = 0
`,
		"tcpdrop SYN_RECEIVED": scrSynRcvd + "drop SYN_RECEIVED\nstates LISTEN\n",
	})
}
