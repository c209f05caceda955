package kern

import "testing"

// CLOSED: a socket that is bound and does not listen, and a port that no socket has.
func TestConfClosed(t *testing.T) {
	scripts := map[string]string{}
	for name, begin := range map[string]string{"bound": scrBound + "states CLOSED\n", "nobody": "\n"} {
		for seg, reply := range map[string]string{
			"S 0:0(0) win 65535 <mss 1460>": "R. 0:0(0) ack 1",
			"S 0:10(10) win 65535":          "R. 0:0(0) ack 11",
			"SF 0:0(0) win 65535":           "R. 0:0(0) ack 2",
			"SF 0:10(10) win 65535":         "R. 0:0(0) ack 12",
			"F 5:5(0) win 65535":            "R. 0:0(0) ack 6",
			"F 5:15(10) win 65535":          "R. 0:0(0) ack 16",
			"- 5:5(0) win 65535":            "R. 0:0(0) ack 5",
			"P 5:15(10) win 65535":          "R. 0:0(0) ack 15",
			". 1:1(0) ack 1000 win 65535":   "R 1000:1000(0)",
			". 1:11(10) ack 1000 win 65535": "R 1000:1000(0)",
			"F. 1:1(0) ack 1000 win 65535":  "R 1000:1000(0)",
			"S. 0:0(0) ack 1000 win 65535":  "R 1000:1000(0)",
			"SF. 0:0(0) ack 1000 win 65535": "R 1000:1000(0)",
			"R 1:1(0) win 0":                "",
			"R. 1:1(0) ack 1000 win 0":      "",
			"SR 1:1(0) win 0":               "",
			"FR. 1:11(10) ack 3 win 0":      "",
		} {
			s := begin + "< " + seg + "\n"
			if reply != "" {
				s += "> " + reply + "\n"
			}
			scripts[name+" "+seg] = s
		}
	}
	scripts["tos and ttl"] = scrBound + `
setsockopt(3, IPPROTO_IP, IP_TOS, [16], 4) = 0
setsockopt(3, IPPROTO_IP, IP_TTL, [5], 4) = 0
< S 0:0(0) win 65535
> [tos 0x10,ttl 5] R. 0:0(0) ack 1
< . 1:1(0) ack 1000 win 65535
> [tos 0x10,ttl 5] R 1000:1000(0)
`
	scripts["after close"] = scrBound + "close(3) = 0\nstates\n< S 0:0(0) win 65535\n> R. 0:0(0) ack 1\n"
	runScripts(t, scripts)
}

// LISTEN. After each segment the next SYN must be accepted.
func TestConfListen(t *testing.T) {
	const again = `
states LISTEN
< S  0:0(0) win 65535 <mss 1460,sackOK,eol,eol>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
+0.05 < . 1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
`
	scripts := map[string]string{}
	for seg, reply := range map[string]string{
		". 1:1(0) ack 1000 win 65535":    "R 1000:1000(0)",
		". 1:11(10) ack 1000 win 65535":  "R 1000:1000(0)",
		"P. 1:11(10) ack 1000 win 65535": "R 1000:1000(0)",
		"F. 1:1(0) ack 1000 win 65535":   "R 1000:1000(0)",
		"F 1:1(0) win 65535":             "",
		"F 1:11(10) win 65535":           "",
		"- 1:1(0) win 65535":             "",
		"P 1:11(10) win 65535":           "",
		"R 1:1(0) win 0":                 "",
		"R. 1:1(0) ack 1000 win 0":       "",
		"S. 0:0(0) ack 1000 win 65535":   "",
		"S. 0:10(10) ack 1000 win 65535": "",
		"SR 0:0(0) win 65535":            "",
		"SR. 0:0(0) ack 5 win 65535":     "",
		"SF. 0:0(0) ack 5 win 65535":     "",
		"FR 1:1(0) win 0":                "",
	} {
		s := scrListen + "< " + seg + "\n"
		if reply != "" {
			s += "> " + reply + "\n"
		}
		scripts[seg] = s + again
	}
	for _, syn := range []string{"S  0:0(0) win 65535 <mss 1460>", "S  0:10(10) win 65535 <mss 1460>",
		"SF 0:0(0) win 65535 <mss 1460>", "SF 0:10(10) win 65535 <mss 1460>",
		"SP 0:10(10) win 65535 <mss 1460>"} {
		scripts[syn] = scrListen + "< " + syn + "\n" + `
> S. 0:0(0) ack 1 win 65535 <mss 1460>
states LISTEN SYN_RECEIVED
< . 1:1(0) ack 1 win 65535
accept(3, ..., ...) = 4
states ESTABLISHED LISTEN
recv(4, ..., 10, MSG_DONTWAIT) = -1 EWOULDBLOCK
< . 1:11(10) ack 1 win 65535
+0.04 > . 1:1(0) ack 11 win 65535
recv(4, ..., 100, 0) = 10
`
	}
	const synfin = "sysctl net.inet.tcp.drop_synfin=1\n" + scrListen
	scripts["drop_synfin"] = synfin + "< SF 0:0(0) win 65535 <mss 1460>\n" + again
	scripts["drop_synfin with data"] = synfin + "< SF 0:10(10) win 65535 <mss 1460>\n" + again
	const drop = "sysctl net.inet.tcp.drop_synfin=1\n"
	scripts["drop_synfin in SYN_SENT"] = drop + scrSynSent + `
< SF  0:0(0) win 65535 <mss 1460>
< SF. 0:0(0) ack 1 win 65535 <mss 1460>
states SYN_SENT
< S. 0:0(0) ack 1 win 65535 <mss 1460>
> . 1:1(0) ack 1 win 65535
states ESTABLISHED
`
	scripts["drop_synfin in ESTABLISHED"] = drop + scrConnected + `
< SF  1:1(0) win 65535
< SF. 1:1(0) ack 1 win 65535
states ESTABLISHED
< F. 1:1(0) ack 1 win 65535
> . 1:1(0) ack 2 win 65535
states CLOSE_WAIT
`
	scripts["data and FIN with the last ACK"] = scrSynRcvd + `
< F. 1:11(10) ack 1 win 65535
> . 1:1(0) ack 12 win 65535
accept(3, ..., ...) = 4
states CLOSE_WAIT LISTEN
recv(4, ..., 100, 0) = 10
recv(4, ..., 100, 0) = 0
close(4) = 0
> F. 1:1(0) ack 12 win 65535
< . 12:12(0) ack 2 win 65535
states LISTEN
`
	scripts["backlog"] = scrListen + `
< S  0:0(0) win 65535 <mss 1460>
> S. 0:0(0) ack 1 win 65535 <mss 1460>
< .  1:1(0) ack 1 win 65535
flow 1
+0.5 < S  0:0(0) win 65535 <mss 1460>
states ESTABLISHED LISTEN
accept(3, ..., ...) = 4
+0.5 < S  0:0(0) win 65535 <mss 1460>
> S. 0:0(0) ack 1 win 65535 <mss 1460>
< .  1:1(0) ack 1 win 65535
states ESTABLISHED ESTABLISHED LISTEN
accept(3, ..., ...) = 5
accept(3, ..., ...) = -1 EWOULDBLOCK
`
	scripts["accept that waits"] = `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
bind(3, ..., ...) = 0
listen(3, 1) = 0
+0...0.1 accept(3, ..., ...) = 4
+0.05 < S  0:0(0) win 65535 <mss 1460>
> S. 0:0(0) ack 1 win 65535 <mss 1460>
+0.05 < .  1:1(0) ack 1 win 65535
states ESTABLISHED LISTEN
`
	scripts["closed"] = scrSynRcvd + `
close(3) = 0
states
< . 1:1(0) ack 1 win 65535
> R 1:1(0)
`
	runScripts(t, scripts)
}

// SYN-SENT.
func TestConfSynSent(t *testing.T) {
	const unaffected = `
states SYN_SENT
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
+0.75 > S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 1100 ecr 0>
+0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
> . 1:1(0) ack 1 win 65535
states ESTABLISHED
`
	scripts := map[string]string{}
	for seg, reply := range map[string]string{
		// To the left and to the right of SND.NXT, which is 1.
		". 0:0(0) ack 0 win 65535":                             "R 0:0(0)",
		". 0:0(0) ack 2 win 65535":                             "R 2:2(0)",
		". 0:0(0) ack 4294967295 win 65535":                    "R 4294967295:4294967295(0)",
		"S. 0:0(0) ack 0 win 65535 <mss 1460>":                 "R 0:0(0)",
		"S. 0:0(0) ack 2 win 65535 <mss 1460>":                 "R 2:2(0)",
		"F. 0:0(0) ack 0 win 65535":                            "R 0:0(0)",
		"F. 0:0(0) ack 2 win 65535":                            "R 2:2(0)",
		"P. 0:10(10) ack 2 win 65535":                          "R 2:2(0)",
		"R. 0:0(0) ack 0 win 65535":                            "",
		"R. 0:0(0) ack 2 win 65535":                            "",
		"SR. 0:0(0) ack 2 win 65535":                           "",
		"R 0:0(0) win 65535":                                   "",
		"SR 0:0(0) win 65535":                                  "",
		"F 0:0(0) win 65535":                                   "",
		"F 0:10(10) win 65535":                                 "",
		"- 0:0(0) win 65535":                                   "",
		". 0:0(0) ack 1 win 65535":                             "",
		". 1:11(10) ack 1 win 65535":                           "",
		"F. 0:0(0) ack 1 win 65535":                            "",
		"F. 1:11(10) ack 1 win 65535":                          "",
		"R. 0:0(0) ack 4294967290 win 65535 <nop,eol,eol,eol>": "",
	} {
		s := scrSynSent + "+0.25 < " + seg + "\n"
		if reply != "" {
			s += "> " + reply + "\n"
		}
		scripts[seg] = s + unaffected
	}
	for _, seg := range []string{"R. 0:0(0) ack 1 win 0", "R. 5000:5000(0) ack 1 win 0", "SR. 0:0(0) ack 1 win 0",
		"FR. 0:0(0) ack 1 win 0"} {
		scripts["refused "+seg] = scrSynSent + "+0.25 < " + seg + `
states CLOSED
getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0
getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
+10 close(3) = 0
states
`
	}
	scripts["syn,ack with data"] = scrSynSent + `
+0.05 < S. 0:3(3) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
> . 1:1(0) ack 4 win 65535
recv(3, ..., 100, 0) = 3
recv(3, ..., 100, 0) = -1 EWOULDBLOCK
states ESTABLISHED
`
	scripts["syn,ack with data and fin"] = scrSynSent + `
+0.05 < SF. 0:3(3) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
> . 1:1(0) ack 5 win 65535
states CLOSE_WAIT
recv(3, ..., 100, 0) = 3
recv(3, ..., 100, 0) = 0
`
	scripts["close"] = scrSynSent + "close(3) = 0\nstates\n+10 < S. 0:0(0) ack 1 win 65535\n> R 1:1(0)\n"
	runScripts(t, scripts)
}

// SYN-SENT: a SYN without ACK: simultaneous open (RFC 9293, 3.5).
func TestConfSimultaneousOpen(t *testing.T) {
	const syn = scrSynSent + `
+0.05 < S  0:0(0) win 65535 <mss 1460,sackOK,eol,eol>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
states SYN_RECEIVED
`
	scripts := map[string]string{
		"ACK": syn + "< . 1:1(0) ack 1 win 65535\nstates ESTABLISHED\n" +
			"getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0\n",
		"SYN,ACK": syn + "< S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>\n> . 1:1(0) ack 1 win 65535\n" +
			"states ESTABLISHED\n",
		"data": scrSynSent + `
+0.05 < S  0:10(10) win 65535 <mss 1460,sackOK,eol,eol>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>
states SYN_RECEIVED
recv(3, ..., 100, 0) = -1 EWOULDBLOCK
< . 11:11(0) ack 1 win 65535
recv(3, ..., 100, 0) = 10
< . 11:21(10) ack 1 win 65535
+0.04 > . 1:1(0) ack 21 win 65535
recv(3, ..., 100, 0) = 10
`,
		"retransmitted": syn + "+1.0 > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>\n",
		"bad ACK left":  syn + "< . 1:1(0) ack 0 win 65535\n> R 0:0(0)\nstates SYN_RECEIVED\n",
		"bad ACK right": syn + "< . 1:1(0) ack 2 win 65535\n> R 2:2(0)\nstates SYN_RECEIVED\n",
		"SYN again": syn + "< S 0:0(0) win 65535 <mss 1460,sackOK,eol,eol>\n" +
			"> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>\nstates SYN_RECEIVED\n",
		"close": syn + "close(3) = 0\nstates\n",
		"shutdown": syn + "shutdown(3, SHUT_WR) = 0\n< . 1:1(0) ack 1 win 65535\n> F. 1:1(0) ack 1 win 65535\n" +
			"states FIN_WAIT_1\n",
	}
	for opt, reply := range map[string]string{
		"":                                   "mss 1460",
		"mss 1460":                           "mss 1460",
		"mss 1460,nop,wscale 3":              "mss 1460,nop,wscale 6",
		"mss 1460,sackOK,eol,eol":            "mss 1460,sackOK,eol,eol",
		"mss 1460,nop,nop,TS val 7000 ecr 0": "mss 1460,nop,nop,TS val 150 ecr 7000",
		"mss 1460,nop,wscale 3,sackOK,TS val 7000 ecr 0": "mss 1460,nop,wscale 6,sackOK,TS val 150 ecr 7000",
	} {
		scripts["options "+opt] = scrSynSent + "+0.05 < S 0:0(0) win 65535 <" + opt + ">\n" +
			"> S. 0:0(0) ack 1 win 65535 <" + reply + ">\n"
	}
	// RFC 5961, 3.
	scripts["RST"] = syn + "< R 1:1(0) win 0\nstates CLOSED\n" +
		"getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0\n"
	scripts["RST any ack"] = syn + "< R. 1:1(0) ack 77 win 0\nstates CLOSED\n" +
		"getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0\n"
	scripts["RST in window"] = syn + "< R 2:2(0) win 0\n> . 1:1(0) ack 1 win 65535\nstates SYN_RECEIVED\n" +
		"getsockopt(3, SOL_SOCKET, SO_ERROR, [0], [4]) = 0\n"
	scripts["RST left"] = syn + "< R 0:0(0) win 0\nstates SYN_RECEIVED\n"
	scripts["RST right"] = syn + "< R 65701:65701(0) win 0\nstates SYN_RECEIVED\n"
	scripts["insecure_rst"] = "sysctl net.inet.tcp.insecure_rst=1\n" + syn + "< R 100:100(0) win 0\nstates CLOSED\n" +
		"getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0\n"
	runScripts(t, scripts)
}

// SYN-RCVD of a listener.
func TestConfSynRcvd(t *testing.T) {
	const stays = "\nstates LISTEN SYN_RECEIVED\n< . 1:1(0) ack 1 win 65535\naccept(3, ..., ...) = 4\n"
	scripts := map[string]string{}
	for _, rst := range []string{"R 1:1(0) win 0", "R. 1:1(0) ack 1 win 0", "R. 1:1(0) ack 0 win 0",
		"R. 1:1(0) ack 2 win 0", "FR 1:1(0) win 0"} {
		scripts["killed "+rst] = scrSynRcvd + "< " + rst + "\nstates LISTEN\naccept(3, ..., ...) = -1 EWOULDBLOCK\n" +
			"+5 close(3) = 0\n"
	}
	for _, rst := range []string{"R 2:2(0) win 0", "R. 2:2(0) ack 1 win 0", "R 65535:65535(0) win 0",
		"R. 65535:65535(0) ack 99 win 0"} {
		scripts["challenged "+rst] = scrSynRcvd + "< " + rst + "\n> . 1:1(0) ack 1 win 65535\n" + stays
		scripts["insecure "+rst] = "sysctl net.inet.tcp.insecure_rst=1\n" + scrSynRcvd + "< " + rst + "\n" +
			"states LISTEN\n"
	}
	for _, rst := range []string{"R 0:0(0) win 0", "R 65536:65536(0) win 0", "R. 0:0(0) ack 1 win 0",
		"R. 65536:65536(0) ack 1 win 0"} {
		scripts["dropped "+rst] = scrSynRcvd + "< " + rst + "\n" + stays
		scripts["dropped even insecure "+rst] = "sysctl net.inet.tcp.insecure_rst=1\n" + scrSynRcvd + "< " + rst +
			"\n" + stays
	}
	scripts["bad ACK left"] = scrSynRcvd + "< . 1:1(0) ack 0 win 65535\n> R 0:0(0)\n" + stays
	scripts["bad ACK right"] = scrSynRcvd + "< . 1:1(0) ack 2 win 65535\n> R 2:2(0)\n" + stays
	scripts["bad FIN,ACK"] = scrSynRcvd + "< F. 1:1(0) ack 2 win 65535\n> R 2:2(0)\n" + stays
	scripts["left of the window"] = scrSynRcvd + "< . 0:0(0) ack 1 win 65535\n> . 1:1(0) ack 1 win 65535\n" + stays
	scripts["right of the window"] = scrSynRcvd + "< . 65537:65537(0) ack 1 win 65535\n" +
		"> . 1:1(0) ack 1 win 65535\n" + stays
	scripts["in the window"] = scrSynRcvd + "< . 2:12(10) ack 1 win 65535\n" +
		"> . 1:1(0) ack 1 win 65535 <nop,nop,sack 2:12>\nstates ESTABLISHED LISTEN\naccept(3, ..., ...) = 4\n"
	scripts["SYN,ACK"] = scrSynRcvd + "< S. 0:0(0) ack 1 win 65535\n" + stays
	scripts["FIN"] = scrSynRcvd + "< F 1:1(0) win 65535\n" + stays
	scripts["no flags"] = scrSynRcvd + "< - 1:11(10) win 65535\n" + stays
	scripts["another SYN"] = scrSynRcvd + "< S 100:100(0) win 65535\n" +
		"> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,eol,eol>\n" + stays
	scripts["old timestamp"] = scrListen + `
< S  0:0(0) win 65535 <mss 1460,sackOK,TS val 500 ecr 0>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 100 ecr 500>
< . 1:1(0) ack 1 win 65535 <nop,nop,TS val 499 ecr 100>
states LISTEN SYN_RECEIVED
< . 1:1(0) ack 1 win 65535 <nop,nop,TS val 500 ecr 100>
states ESTABLISHED LISTEN
`
	scripts["no timestamp"] = scrListen + `
< S  0:0(0) win 65535 <mss 1460,sackOK,TS val 500 ecr 0>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 100 ecr 500>
< . 1:1(0) ack 1 win 65535
states ESTABLISHED LISTEN
`
	runScripts(t, scripts)
}
