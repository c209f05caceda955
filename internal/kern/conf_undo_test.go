package kern

import "testing"

const (
	scrSendStamps = scrSendFull + `
< S 0:0(0) win 32792 <mss 1012,sackOK,TS val 1000 ecr 0,nop,wscale 7>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8,sackOK,TS val 100 ecr 1000>
+0.1 < . 1:1(0) ack 1 win 320 <nop,nop,TS val 1100 ecr 100>
accept(3, ..., ...) = 4
`
	scrSendNoSack = scrSendFull + `
< S 0:0(0) win 32792 <mss 1000,nop,wscale 7>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8>
+0.1 < . 1:1(0) ack 1 win 320
accept(3, ..., ...) = 4
`
	scrSendECN = scrSendFull + `
< SEW 0:0(0) win 32792 <mss 1000,sackOK,nop,nop,nop,wscale 7>
> SE. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8,sackOK,eol,eol>
+0.1 < . 1:1(0) ack 1 win 320
accept(3, ..., ...) = 4
`
)

// Probes of the tail: RFC 8985, 7.
func TestConfProbe(t *testing.T) {
	runSenders(t, map[string]string{
		"the last is sent again, and was not lost": scrSend100 + `
write(4, ..., 5000) = 5000
>> P. 1:5001(5000) mss 1000 ack 1 win 1024
+0.202 > P. 4001:5001(1000) ack 1 win 1024
+0.098 < . 1:1(0) ack 5001 win 320 <sack 4001:5001,nop,nop>
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=10000, tcpi_retrans=0}
`,
		"the probe repairs the loss": scrSend100 + `
write(4, ..., 5000) = 5000
>> P. 1:5001(5000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 4001 win 320
+0.3 > P. 4001:5001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 5001 win 320
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=10000}
+0.01 write(4, ..., 1000) = 1000
> P. 5001:6001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 6001 win 320
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=3500, tcpi_snd_ssthresh=3500}
`,
		"both arrive, without DSACK": scrSend100 + `
write(4, ..., 5000) = 5000
>> P. 1:5001(5000) mss 1000 ack 1 win 1024
+0.202 > P. 4001:5001(1000) ack 1 win 1024
+0.098 < . 1:1(0) ack 5001 win 320
+0.01 write(4, ..., 1000) = 1000
> P. 5001:6001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 5001 win 320
+0.1 < . 1:1(0) ack 6001 win 320
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=10000}
`,
		"the probe is new data": scrSend100 + `
write(4, ..., 12000) = 12000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.202 > . 10001:11001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 10001:11001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=1000, tcpi_sacked=1000, tcpi_lost=9000}
+0.025 info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=1000, tcpi_sacked=1000, tcpi_lost=9000, tcpi_retrans=1000}
`,
		"a short segment at the end": scrSend100 + `
write(4, ..., 2500) = 2500
>> P. 1:2501(2500) mss 1000 ack 1 win 1024
+0.202 > P. 2001:2501(500) ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 2001:2501,nop,nop>
> . 1:1001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_sacked=500}
+0.03 info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_sacked=500, tcpi_retrans=1000}
`,
	})
}

// Recoveries that turn out to be spurious: RFC 5682 (F-RTO), RFC 3522 (Eifel) and RFC 3708 (DSACK).
func TestConfUndo(t *testing.T) {
	runSenders(t, map[string]string{
		"a time-out that was spurious": scrSend100 + `
write(4, ..., 20000) = 20000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.202 > . 10001:11001(1000) ack 1 win 1024
+0.3 > . 1:1001(1000) ack 1 win 1024
+0.118 < . 1:1(0) ack 1001 win 320
>> . 11001:13001(2000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Loss, tcpi_snd_cwnd=2000}
+0.01 < . 1:1(0) ack 2001 win 320
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=11000}
+0.01 < . 1:1(0) ack 3001 win 320
>> . 13001:15001(2000) mss 1000 ack 1 win 1024
`,
		"a time-out that was not": scrSend100 + `
write(4, ..., 20000) = 20000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.202 > . 10001:11001(1000) ack 1 win 1024
+0.3 > . 1:1001(1000) ack 1 win 1024
+0.108 < . 1:1(0) ack 1001 win 320
>> . 11001:13001(2000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1001 win 320 <sack 11001:12001,nop,nop>
>> . 1001:3001(2000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Loss, tcpi_snd_cwnd=3000, tcpi_snd_ssthresh=7000, tcpi_lost=8000, tcpi_retrans=2000}
+0.01 < . 1:1(0) ack 1001 win 320 <sack 11001:13001,nop,nop>
>> . 3001:5001(2000) mss 1000 ack 1 win 1024
`,
		"a time-out that a timestamp takes back": scrSendStamps + `
write(4, ..., 20000) = 20000
>> . 1:10001(10000) mss 1000 ack 1 win 1024 <nop,nop,TS val 200 ecr 1100>
+0.202 > . 10001:11001(1000) ack 1 win 1024 <nop,nop,TS val 402 ecr 1100>
+0.3 > . 1:1001(1000) ack 1 win 1024 <nop,nop,TS val 702 ecr 1100>
+0.118 < . 1:1(0) ack 1001 win 320 <nop,nop,TS val 1720 ecr 200>
> . 11001:12001(1000) ack 1 win 1024 <nop,nop,TS val 820 ecr 1720>
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=11000}
`,
		"a DSACK takes a recovery back": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 1001:3001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 1001:4001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=7000, tcpi_snd_ssthresh=7000}
+0.01 < . 1:1(0) ack 10001 win 320
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=7000}
+0.09 < . 1:1(0) ack 10001 win 320 <sack 1:1001,nop,nop>
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=10000, tcpi_snd_ssthresh=2147483647}
`,
		"a timestamp takes a recovery back": scrSendStamps + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024 <nop,nop,TS val 200 ecr 1100>
+0.1 < . 1:1(0) ack 1 win 320 <nop,nop,TS val 1200 ecr 200,nop,nop,sack 1001:2001>
< . 1:1(0) ack 1 win 320 <nop,nop,TS val 1200 ecr 200,nop,nop,sack 1001:3001>
< . 1:1(0) ack 1 win 320 <nop,nop,TS val 1200 ecr 200,nop,nop,sack 1001:4001>
> . 1:1001(1000) ack 1 win 1024 <nop,nop,TS val 300 ecr 1200>
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=7000}
+0.01 < . 1:1(0) ack 4001 win 320 <nop,nop,TS val 1210 ecr 200>
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=11000, tcpi_snd_ssthresh=2147483647}
`,
		"two DSACKs of three do not": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 3001:4001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 3001:5001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 3001:6001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 3001:7001,nop,nop>
> . 1001:2001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 3001:8001,nop,nop>
> . 2001:3001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 10001 win 320
+0.01 < . 1:1(0) ack 10001 win 320 <sack 1:1001,nop,nop>
< . 1:1(0) ack 10001 win 320 <sack 1001:2001,nop,nop>
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=7000}
`,
	})
}

// Recoveries with less, or more, than SACK blocks in order: reordering, a retransmission that is
// lost, a peer without SACK, blocks that do not begin at a segment.
func TestConfHoles(t *testing.T) {
	runSenders(t, map[string]string{
		"what has been late is waited for": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 2001:3001,nop,nop>
+0.01 < . 1:1(0) ack 3001 win 320
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=12000}
write(4, ..., 5000) = 5000
>> P. 10001:15001(5000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 10001 win 320
< . 1:1(0) ack 10001 win 320 <sack 11001:12001,nop,nop>
< . 1:1(0) ack 10001 win 320 <sack 11001:13001,nop,nop>
< . 1:1(0) ack 10001 win 320 <sack 11001:14001,nop,nop>
info 4 {tcpi_ca_state=TCP_CA_Disorder, tcpi_sacked=3000, tcpi_lost=0}
+0.025 > . 10001:11001(1000) ack 1 win 1024
+0.005 info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_sacked=3000, tcpi_lost=0, tcpi_retrans=1000}
`,
		"lost again": scrSend100 + `
write(4, ..., 20000) = 20000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
> . 10001:11001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 1001:3001,nop,nop>
> . 11001:12001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 1001:4001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 1001:10001,nop,nop>
>> . 12001:16001(4000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 1001:11001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
> . 16001:17001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 1001:12001,nop,nop>
> . 17001:18001(1000) ack 1 win 1024
< . 1:1(0) ack 1 win 320 <sack 1001:13001,nop,nop>
> . 18001:19001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=7000, tcpi_snd_ssthresh=7000}
`,
		"partial acknowledgments": scrSendNoSack + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320
< . 1:1(0) ack 1 win 320
< . 1:1(0) ack 1 win 320
> . 1:1001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=7000, tcpi_snd_ssthresh=7000}
< . 1:1(0) ack 1 win 320
< . 1:1(0) ack 1 win 320
< . 1:1(0) ack 1 win 320
< . 1:1(0) ack 1 win 320
write(4, ..., 10000) = 10000
>> . 10001:14001(4000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 4001 win 320
> . 4001:5001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=6000}
+0.1 < . 1:1(0) ack 10001 win 320
>> . 14001:17001(3000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=7000}
`,
		"part of a segment": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 501 win 320
< . 1:1(0) ack 501 win 320 <sack 2001:3001,nop,nop>
info 4 {tcpi_ca_state=TCP_CA_Disorder, tcpi_sacked=1000}
< . 1:1(0) ack 501 win 320 <sack 5500:7500 2001:3001,nop,nop>
info 4 {tcpi_ca_state=TCP_CA_Disorder, tcpi_sacked=2000}
< . 1:1(0) ack 501 win 320 <sack 8001:8501 8501:9001 5500:7500,nop,nop>
info 4 {tcpi_ca_state=TCP_CA_Disorder, tcpi_sacked=2000}
`,
	})
}

// Congestion marks: RFC 3168, 6.1.2.
func TestConfMarks(t *testing.T) {
	runSenders(t, map[string]string{
		"congestion marks of one round trip": scrSendECN + `
write(4, ..., 30000) = 30000
> [tos 0x2] . 1:1001(1000) ack 1 win 1024
> [tos 0x2] . 1001:2001(1000) ack 1 win 1024
> [tos 0x2] . 2001:3001(1000) ack 1 win 1024
> [tos 0x2] . 3001:4001(1000) ack 1 win 1024
> [tos 0x2] . 4001:5001(1000) ack 1 win 1024
> [tos 0x2] . 5001:6001(1000) ack 1 win 1024
> [tos 0x2] . 6001:7001(1000) ack 1 win 1024
> [tos 0x2] . 7001:8001(1000) ack 1 win 1024
> [tos 0x2] . 8001:9001(1000) ack 1 win 1024
> [tos 0x2] . 9001:10001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 2001 win 320
> [tos 0x2] . 10001:11001(1000) ack 1 win 1024
> [tos 0x2] . 11001:12001(1000) ack 1 win 1024
> [tos 0x2] . 12001:13001(1000) ack 1 win 1024
> [tos 0x2] . 13001:14001(1000) ack 1 win 1024
< E. 1:1(0) ack 4001 win 320
> [tos 0x2] .W 14001:15001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_CWR, tcpi_snd_cwnd=11400, tcpi_snd_ssthresh=8400}
< E. 1:1(0) ack 6001 win 320
> [tos 0x2] . 15001:16001(1000) ack 1 win 1024
+0.01 < E. 1:1(0) ack 8001 win 320
+0.01 < E. 1:1(0) ack 10001 win 320
> [tos 0x2] . 16001:17001(1000) ack 1 win 1024
> [tos 0x2] . 17001:18001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_CWR, tcpi_snd_cwnd=8400, tcpi_snd_ssthresh=8400}
+0.1 < . 1:1(0) ack 15001 win 320
> [tos 0x2] . 18001:19001(1000) ack 1 win 1024
> [tos 0x2] . 19001:20001(1000) ack 1 win 1024
> [tos 0x2] . 20001:21001(1000) ack 1 win 1024
> [tos 0x2] . 21001:22001(1000) ack 1 win 1024
> [tos 0x2] . 22001:23001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=8400, tcpi_snd_ssthresh=8400}
`,
		"losses and then a mark": scrSendECN + `
write(4, ..., 12000) = 12000
> [tos 0x2] . 1:1001(1000) ack 1 win 1024
> [tos 0x2] . 1001:2001(1000) ack 1 win 1024
> [tos 0x2] . 2001:3001(1000) ack 1 win 1024
> [tos 0x2] . 3001:4001(1000) ack 1 win 1024
> [tos 0x2] . 4001:5001(1000) ack 1 win 1024
> [tos 0x2] . 5001:6001(1000) ack 1 win 1024
> [tos 0x2] . 6001:7001(1000) ack 1 win 1024
> [tos 0x2] . 7001:8001(1000) ack 1 win 1024
> [tos 0x2] . 8001:9001(1000) ack 1 win 1024
> [tos 0x2] . 9001:10001(1000) ack 1 win 1024
+0.1 < E. 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
> [tos 0x2] .W 10001:11001(1000) ack 1 win 1024
< E. 1:1(0) ack 1 win 320 <sack 1001:3001,nop,nop>
< E. 1:1(0) ack 1 win 320 <sack 1001:4001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_snd_cwnd=7000, tcpi_snd_ssthresh=7000}
`,
	})
}

// RFC 7323, 5.3, drops a segment whose timestamp is older than that of the last segment in order. A
// bare acknowledgment that was only overtaken counts nevertheless, as its SACK blocks are news; it
// moves no window.
func TestConfOvertaken(t *testing.T) {
	const begin = scrSendStamps + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024 <nop,nop,TS val 200 ecr 1100>
+0.1 < . 1:1(0) ack 1001 win 320 <nop,nop,TS val 1510 ecr 200,nop,nop,sack 3001:4001>
`
	runSenders(t, map[string]string{
		"below the left edge": begin + `
< . 1:1(0) ack 1 win 320 <nop,nop,TS val 1505 ecr 200,nop,nop,sack 4001:6001>
>> . 1001:3001(2000) mss 1000 ack 1 win 1024 <nop,nop,TS val 300 ecr 1510>
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_sacked=3000}
`,
		"at the left edge": begin + `
< . 1:1(0) ack 1001 win 320 <nop,nop,TS val 1505 ecr 200,nop,nop,sack 4001:6001>
>> . 1001:3001(2000) mss 1000 ack 1 win 1024 <nop,nop,TS val 300 ecr 1510>
info 4 {tcpi_ca_state=TCP_CA_Recovery, tcpi_sacked=3000}
`,
		"a time-out ago": begin + `
< . 1:1(0) ack 1001 win 320 <nop,nop,TS val 1211 ecr 200,nop,nop,sack 4001:5001>
info 4 {tcpi_ca_state=TCP_CA_Disorder, tcpi_sacked=2000}
< . 1:1(0) ack 1001 win 320 <nop,nop,TS val 1209 ecr 200,nop,nop,sack 4001:6001>
info 4 {tcpi_ca_state=TCP_CA_Disorder, tcpi_sacked=2000}
`,
		"beyond the left edge": begin + `
< . 1:1(0) ack 2001 win 320 <nop,nop,TS val 1505 ecr 200>
info 4 {tcpi_ca_state=TCP_CA_Disorder, tcpi_unacked=9000}
`,
		"with a window": begin + `
info 4 {tcpi_snd_wnd=40960}
< . 1:1(0) ack 1001 win 1000 <nop,nop,TS val 1505 ecr 200>
info 4 {tcpi_snd_wnd=40960}
`,
		"data that a retransmission has overtaken": scrSendStamps + `
+0.1 < . 1001:2001(1000) ack 1 win 320 <nop,nop,TS val 1200 ecr 200>
> . 1:1(0) ack 1 win 1024 <nop,nop,TS val 300 ecr 1100,nop,nop,sack 1001:2001>
< . 1:1001(1000) ack 1 win 320 <nop,nop,TS val 1300 ecr 200>
> . 1:1(0) ack 2001 win 1017 <nop,nop,TS val 300 ecr 1300>
< . 2001:3001(1000) ack 1 win 320 <nop,nop,TS val 1249 ecr 200>
> . 1:1(0) ack 2001 win 1017 <nop,nop,TS val 300 ecr 1300>
< . 2001:3001(1000) ack 1 win 320 <nop,nop,TS val 1250 ecr 200>
+0.04 > . 1:1(0) ack 3001 win 1014 <nop,nop,TS val 340 ecr 1300>
recv(4, ..., 9000, 0) = 3000
`,
		"with a FIN": begin + `
< F. 1:1(0) ack 1001 win 320 <nop,nop,TS val 1505 ecr 200>
> . 10001:10001(0) ack 1 win 1024 <nop,nop,TS val 300 ecr 1510>
states ESTABLISHED LISTEN
`,
	})
}
