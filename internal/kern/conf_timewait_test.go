package kern

import (
	"fmt"
	"testing"
)

// A connection that was accepted and closed from here, with a listener beside it: SND.NXT 2,
// RCV.NXT 2.
const scrTimeWait = scrAccepted + `
close(4) = 0
> F. 1:1(0) ack 1 win 65535
< F. 1:1(0) ack 2 win 65535
> . 2:2(0) ack 2 win 65535
states LISTEN TIME_WAIT
`

// TIME-WAIT.
func TestConfTimeWait(t *testing.T) {
	const stays = "states LISTEN TIME_WAIT\n"
	scripts := map[string]string{}
	for _, seg := range []string{
		". 2:2(0) ack 2 win 65535", ". 2:2(0) ack 2 win 0", // RFC 9293: nothing is wrong with it
		"F 1:1(0) win 65535", "F 2:2(0) win 65535", "F 3:3(0) win 65535", "- 2:2(0) win 65535", "P 2:12(10) win 65535",
		"R 2:2(0) win 0", "R 3:3(0) win 0", "R 1:1(0) win 0", "R. 2:2(0) ack 2 win 0", "R. 9:9(0) ack 9 win 0",
		"SR 2:2(0) win 0", "FR 2:2(0) win 0",
		"S 0:0(0) win 65535 <mss 1460>", "S 1:1(0) win 65535 <mss 1460>", "S 2:2(0) win 65535 <mss 1460>",
		"SF 1:1(0) win 65535 <mss 1460>",
		"SF 2:2(0) win 65535 <mss 1460>", "S 2:12(10) win 65535 <mss 1460>",
	} {
		scripts["silence "+seg] = scrTimeWait + "< " + seg + "\n" + stays
	}
	for _, seg := range []string{
		". 1:1(0) ack 2 win 65535", ". 3:3(0) ack 2 win 65535", ". 65702:65702(0) ack 2 win 65535",
		". 70000:70000(0) ack 2 win 65535",
		". 2:12(10) ack 2 win 65535", ". 1:2(1) ack 2 win 65535", "P. 2:12(10) ack 2 win 65535",
		". 3:13(10) ack 2 win 65535",
		". 2:2(0) ack 1 win 65535", ". 2:2(0) ack 3 win 65535", ". 3:3(0) ack 77 win 65535",
		"F. 1:1(0) ack 2 win 65535", "F. 2:2(0) ack 2 win 65535", "F. 3:3(0) ack 2 win 65535",
		"F. 1:1(0) ack 1 win 65535", "F. 99999:99999(0) ack 2 win 65535",
		"F. 2:12(10) ack 2 win 65535",
		"S. 0:0(0) ack 2 win 65535", "S. 1:1(0) ack 1 win 65535", "S. 2:2(0) ack 2 win 65535",
		"S. 3:3(0) ack 2 win 65535", "S. 99999:99999(0) ack 2 win 65535",
		"SF. 3:3(0) ack 2 win 65535",
	} {
		scripts["ACK "+seg] = scrTimeWait + "< " + seg + "\n> . 2:2(0) ack 2 win 65535\n" + stays
	}
	for _, n := range []int{3, 4, 65702, 65703, 1000000, 2000000000} {
		scripts[fmt.Sprint("new connection ", n)] = scrTimeWait + fmt.Sprintf(`
flow new
< S %[1]d:%[1]d(0) win 65535 <mss 1460,sackOK,eol,eol>
> S. 0:0(0) ack %[2]d win 65535 <mss 1460,sackOK,eol,eol>
states LISTEN SYN_RECEIVED
< . %[2]d:%[2]d(0) ack 1 win 65535
accept(3, ..., ...) = 4
states ESTABLISHED LISTEN
`, n, n+1)
	}
	scripts["SYN,FIN makes a new connection"] = scrTimeWait + `
flow new
< SF 3:3(0) win 65535 <mss 1460>
> S. 0:0(0) ack 4 win 65535 <mss 1460>
states LISTEN SYN_RECEIVED
`
	const synfin = "sysctl net.inet.tcp.drop_synfin=1\n" + scrTimeWait
	scripts["SYN,FIN ignored"] = synfin + "< SF 3:3(0) win 65535 <mss 1460>\n" + stays
	scripts["SYN,FIN,ACK with drop_synfin"] = synfin + "< SF. 3:3(0) ack 2 win 65535 <mss 1460>\n" +
		"> . 2:2(0) ack 2 win 65535\n" + stays
	scripts["no listener"] = scrTimeWait + `
close(3) = 0
states TIME_WAIT
flow new
< S 3:3(0) win 65535 <mss 1460>
> R. 0:0(0) ack 4
states
`
	scripts["60 s"] = scrTimeWait + "+59.999 states LISTEN TIME_WAIT\n+0.001 states LISTEN\n"
	scripts["FIN again starts anew"] = scrTimeWait + "+30 < F. 1:1(0) ack 2 win 65535\n> . 2:2(0) ack 2 win 65535\n" +
		"+59.999 " + stays + "+0.001 states LISTEN\n"
	scripts["ACK does not"] = scrTimeWait + "+30 < . 1:1(0) ack 2 win 65535\n> . 2:2(0) ack 2 win 65535\n" +
		"+30 states LISTEN\n"
	scripts["msl"] = "sysctl net.inet.tcp.msl=1000\n" + scrTimeWait + "+1.999 " + stays + "+0.001 states LISTEN\n"
	scripts["drop"] = scrTimeWait + "drop TIME_WAIT\nstates LISTEN\n"
	scripts["drop, then a SYN"] = scrTimeWait + `
drop TIME_WAIT
flow new
< S  0:0(0) win 65535 <mss 1460>
> S. 0:0(0) ack 1 win 65535 <mss 1460>
`
	scripts["the socket lives on"] = scrConnected + `
shutdown(3, SHUT_WR) = 0
> F. 1:1(0) ack 1 win 65535
< F. 1:1(0) ack 2 win 65535
> . 2:2(0) ack 2 win 65535
states TIME_WAIT
getsockopt(3, IPPROTO_TCP, TCP_INFO, {tcpi_state=TCPS_TIME_WAIT}, [4]) = 0
recv(3, ..., 10, 0) = 0
send(3, ..., 10, 0) = -1 EPIPE
close(3) = 0
states TIME_WAIT
+60 states
`
	scripts["the socket lives longer"] = scrConnected + `
shutdown(3, SHUT_WR) = 0
> F. 1:1(0) ack 1 win 65535
< F. 1:1(0) ack 2 win 65535
> . 2:2(0) ack 2 win 65535
+60 states CLOSED
recv(3, ..., 10, 0) = 0
close(3) = 0
states
`
	scripts["a later timestamp does not help a SYN"] = scrListen + `
< S  0:0(0) win 65535 <mss 1460,sackOK,TS val 500 ecr 0>
> S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 100 ecr 500>
< .  1:1(0) ack 1 win 65535 <nop,nop,TS val 500 ecr 100>
accept(3, ..., ...) = 4
close(4) = 0
> F. 1:1(0) ack 1 win 65535 <nop,nop,TS val 100 ecr 500>
< F. 1:1(0) ack 2 win 65535 <nop,nop,TS val 500 ecr 100>
> . 2:2(0) ack 2 win 65535 <nop,nop,TS val 100 ecr 500>
< S 1:1(0) win 65535 <mss 1460,sackOK,TS val 9000 ecr 0>
` + stays
	scripts["timestamps"] = scrConnectedFull + `
close(3) = 0
> F. 1:1(0) ack 1 win 1027 <nop,nop,TS val 150 ecr 7000>
< F. 1:1(0) ack 2 win 65535 <nop,nop,TS val 7010 ecr 150>
> . 2:2(0) ack 2 win 1027 <nop,nop,TS val 150 ecr 7010>
+0.01 < F. 1:1(0) ack 2 win 65535 <nop,nop,TS val 7020 ecr 150>
> . 2:2(0) ack 2 win 1026 <nop,nop,TS val 160 ecr 7010>
`
	runScripts(t, scripts)
}
