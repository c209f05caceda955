package kern

import (
	"testing"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// Beginnings of scripts with the profile Default: descriptor 4 is a connection whose round trip is
// 100, or 10, ms.
const (
	scrSendListen = `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
bind(3, ..., ...) = 0
listen(3, 1) = 0
< S 0:0(0) win 32792 <mss 1000,sackOK,nop,nop,nop,wscale 7>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8,sackOK,eol,eol>
`
	scrSend100 = scrSendListen + `
+0.1 < . 1:1(0) ack 1 win 320
accept(3, ..., ...) = 4
`
	scrSend10 = scrSendListen + `
+0.01 < . 1:1(0) ack 1 win 320
accept(3, ..., ...) = 4
`
	scrSendFull = `
socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
bind(3, ..., ...) = 0
listen(3, 1) = 0
`
)

// runSenders runs scripts with the profile Default.
func runSenders(t *testing.T, scripts map[string]string) {
	for name, text := range scripts {
		t.Run(name, func(t *testing.T) {
			for _, irs := range []wire.Seq{0, 1<<32 - 3} {
				runScriptWith(t, tcp.Default, irs, text)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// Which segments a sender sends after losses, and when: RFC 6675, RFC 8985 and RFC 9937.
func TestConfRecovery(t *testing.T) {
	runSenders(t, map[string]string{
		"one of ten": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.11 < . 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:3001,nop,nop>
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:4001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
+0.01 info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=7000, tcpi_snd_ssthresh=7000}
+0.01 write(4, ..., 7000) = 7000
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:5001,nop,nop>
> . 10001:11001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:6001,nop,nop>
> . 11001:12001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:7001,nop,nop>
> . 12001:13001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:8001,nop,nop>
> . 13001:14001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:9001,nop,nop>
> . 14001:15001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:10001,nop,nop>
> . 15001:16001(1000) ack 1 win 1024
+0.02 < . 1:1(0) ack 10001 win 320
> P. 16001:17001(1000) ack 1 win 1024
+0.01 info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=7000, tcpi_snd_ssthresh=7000}
+0.03 < . 1:1(0) ack 12001 win 320
+0.02 < . 1:1(0) ack 14001 win 320
+0.02 < . 1:1(0) ack 16001 win 320
+0.02 < . 1:1(0) ack 17001 win 320
`,
		"1 to 4 and 11 to 16 of twenty": scrSend10 + `
write(4, ..., 20000) = 20000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 4001:5001,nop,nop>
> . 10001:11001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1 win 320 <sack 4001:6001,nop,nop>
> . 11001:12001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1 win 320 <sack 4001:7001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1 win 320 <sack 4001:8001,nop,nop>
> . 1001:2001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1 win 320 <sack 4001:9001,nop,nop>
> . 2001:3001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1 win 320 <sack 4001:10001,nop,nop>
> . 3001:4001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1 win 320 <sack 4001:11001,nop,nop>
> . 12001:13001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1 win 320 <sack 4001:12001,nop,nop>
> . 13001:14001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1001 win 320 <sack 4001:12001,nop,nop>
>> . 14001:16001(2000) mss 1000 ack 1 win 1024
+0.002 < . 1:1(0) ack 1001 win 320 <sack 2001:12001,nop,nop>
> . 1001:2001(1000) ack 1 win 1024
> . 16001:17001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1001 win 320 <sack 2001:13001,nop,nop>
> . 17001:18001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1001 win 320 <sack 2001:14001,nop,nop>
> . 18001:19001(1000) ack 1 win 1024
`,
		"1 to 4 of ten, then more": scrSend10 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 4001:5001,nop,nop>
+0.002 < . 1:1(0) ack 1 win 320 <sack 4001:6001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 4001:7001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 4001:8001,nop,nop>
> . 1001:2001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 4001:9001,nop,nop>
> . 2001:3001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 4001:10001,nop,nop>
> . 3001:4001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1001 win 320 <sack 4001:10001,nop,nop>
< . 1:1(0) ack 2001 win 320 <sack 4001:10001,nop,nop>
< . 1:1(0) ack 3001 win 320 <sack 4001:10001,nop,nop>
< . 1:1(0) ack 10001 win 320
+0.01 write(4, ..., 10000) = 10000
>> . 10001:17001(7000) mss 1000 ack 1 win 1024
`,
		"news below the left edge": scrSend10 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 1001:3001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 1001:3001 8001:9001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
+0.012 < . 1:1(0) ack 4001 win 320 <sack 8001:9001,nop,nop>
>> . 4001:7001(3000) mss 1000 ack 1 win 1024
write(4, ..., 10000) = 10000
+0.002 < . 1:1(0) ack 3001 win 320 <sack 5001:7001,nop,nop>
> . 7001:8001(1000) ack 1 win 1024
> . 10001:11001(1000) ack 1 win 1024
`,
		"the last byte of four": scrSend100 + `
write(4, ..., 4000) = 4000
>> P. 1:4001(4000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 4000:4001,nop,nop>
+0.102 > P. 3001:4001(1000) ack 1 win 1024
+0.3 > . 1:1001(1000) ack 1 win 1024
+0.5 < . 1:1(0) ack 1001 win 320 <sack 4000:4001,nop,nop>
>> . 1001:3001(2000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 3001 win 320 <sack 4000:4001,nop,nop>
> P. 3001:4001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 4001 win 257
close(4) = 0
> F. 4001:4001(0) ack 1 win 1024
+0.1 < F. 1:1(0) ack 4002 win 257
> . 4002:4002(0) ack 2 win 1024
`,
		"the last of four": scrSend100 + `
write(4, ..., 4000) = 4000
>> P. 1:4001(4000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 3001:4001,nop,nop>
+0.025 > . 1:1001(1000) ack 1 win 1024
`,
		"the first of four": scrSendFull + `
< S 0:0(0) win 32792 <mss 1460,sackOK,nop,nop,nop,wscale 7>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8,sackOK,eol,eol>
+0.1 < . 1:1(0) ack 1 win 257
accept(3, ..., ...) = 4
write(4, ..., 5840) = 5840
>> P. 1:5841(5840) mss 1460 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 257 <sack 1461:2921,nop,nop>
< . 1:1(0) ack 1 win 257 <sack 1461:4381,nop,nop>
< . 1:1(0) ack 1 win 257 <sack 1461:5841,nop,nop>
> . 1:1461(1460) ack 1 win 1024
+0.1 < . 1:1(0) ack 5841 win 257
+0.1 close(4) = 0
> F. 5841:5841(0) ack 1 win 1024
+0.1 < F. 1:1(0) ack 5842 win 257
> . 5842:5842(0) ack 2 win 1024
`,
		"the first of four, without SACK": scrSendFull + `
< S 0:0(0) win 32792 <mss 1460,nop,wscale 7>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8>
+0.1 < . 1:1(0) ack 1 win 257
accept(3, ..., ...) = 4
write(4, ..., 5840) = 5840
>> P. 1:5841(5840) mss 1460 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 257
< . 1:1(0) ack 1 win 257
< . 1:1(0) ack 1 win 257
> . 1:1461(1460) ack 1 win 1024
+0.1 < . 1:1(0) ack 5841 win 257
+0.1 close(4) = 0
> F. 5841:5841(0) ack 1 win 1024
+0.1 < F. 1:1(0) ack 5842 win 257
> . 5842:5842(0) ack 2 win 1024
`,
		"7, 3, 4, 8, 9": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 257 <sack 7001:8001,nop,nop>
+0.025 > . 1:1001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_lost=6000, tcpi_retrans=1000}
+0.002 < . 1:1(0) ack 1 win 257 <sack 3001:4001 7001:8001,nop,nop>
> . 1001:2001(1000) ack 1 win 1024
info 4 {tcpi_lost=4000, tcpi_retrans=2000}
+0.002 < . 1:1(0) ack 1 win 257 <sack 3001:5001 7001:8001,nop,nop>
> . 2001:3001(1000) ack 1 win 1024
info 4 {tcpi_lost=2000, tcpi_retrans=3000}
+0.002 < . 1:1(0) ack 1 win 257 <sack 3001:5001 7001:9001,nop,nop>
> . 5001:6001(1000) ack 1 win 1024
+0.002 < . 1:1(0) ack 1 win 257 <sack 3001:5001 7001:10001,nop,nop>
> . 6001:7001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 10001 win 257
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_unacked=0, tcpi_sacked=0, tcpi_lost=0, tcpi_retrans=0}
`,
		"7, 5, 6, 8, 9": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 257 <sack 7001:8001,nop,nop>
+0.025 > . 1:1001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_lost=6000, tcpi_retrans=1000}
< . 1:1(0) ack 1 win 257 <sack 5001:6001 7001:8001,nop,nop>
> . 1001:2001(1000) ack 1 win 1024
info 4 {tcpi_lost=4000, tcpi_retrans=2000}
< . 1:1(0) ack 1 win 257 <sack 5001:8001,nop,nop>
> . 2001:3001(1000) ack 1 win 1024
info 4 {tcpi_lost=2000, tcpi_retrans=3000}
< . 1:1(0) ack 1 win 257 <sack 5001:9001,nop,nop>
> . 3001:4001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 257 <sack 5001:10001,nop,nop>
> . 4001:5001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 10001 win 257
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_unacked=0, tcpi_sacked=0, tcpi_lost=0, tcpi_retrans=0}
`,
		"2, 6, 8, 3, 9": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 257 <sack 2001:3001,nop,nop>
+0.001 < . 1:1(0) ack 1 win 257 <sack 2001:3001 6001:7001,nop,nop>
+0.001 < . 1:1(0) ack 1 win 257 <sack 2001:3001 6001:7001 8001:9001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_lost=5000, tcpi_retrans=1000}
+0.007 < . 1:1(0) ack 1 win 257 <sack 2001:4001 6001:7001 8001:9001,nop,nop>
> . 1001:2001(1000) ack 1 win 1024
info 4 {tcpi_lost=3000, tcpi_retrans=2000}
+0.01 < . 1:1(0) ack 1 win 257 <sack 2001:4001 6001:7001 8001:10001,nop,nop>
> . 4001:5001(1000) ack 1 win 1024
+0.083 < . 1:1(0) ack 1001 win 257 <sack 2001:4001 6001:7001 8001:10001,nop,nop>
> . 5001:6001(1000) ack 1 win 1024
> . 7001:8001(1000) ack 1 win 1024
+0.017 < . 1:1(0) ack 4001 win 257 <sack 6001:7001 8001:10001,nop,nop>
+0.01 < . 1:1(0) ack 7001 win 257 <sack 8001:10001,nop,nop>
+0.1 < . 1:1(0) ack 10001 win 257
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_unacked=0, tcpi_sacked=0, tcpi_lost=0, tcpi_retrans=0}
`,
	})
}
