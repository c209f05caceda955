package kern

import "testing"

// Windows: limited transmit, slow start, congestion marks, idle connections.
func TestConfWindow(t *testing.T) {
	runSenders(t, map[string]string{
		"limited transmit": scrSend100 + `
write(4, ..., 15000) = 15000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.11 < . 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
> . 10001:11001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320 <sack 1001:3001,nop,nop>
> . 11001:12001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 3001 win 320
>> . 12001:14001(2000) mss 1000 ack 1 win 1024
+0.02 < . 1:1(0) ack 5001 win 320
> P. 14001:15001(1000) ack 1 win 1024
+0.02 < . 1:1(0) ack 7001 win 320
+0.02 < . 1:1(0) ack 9001 win 320
+0.02 < . 1:1(0) ack 11001 win 320
+0.02 < . 1:1(0) ack 13001 win 320
+0.02 < . 1:1(0) ack 15001 win 320
+0.17 close(4) = 0
> F. 15001:15001(0) ack 1 win 1024
+0.1 < F. 1:1(0) ack 15002 win 257
> . 15002:15002(0) ack 2 win 1024
`,
		"limited transmit, without SACK": scrSendFull + `
< S 0:0(0) win 32792 <mss 1000,nop,wscale 7>
> S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8>
+0.1 < . 1:1(0) ack 1 win 320
accept(3, ..., ...) = 4
write(4, ..., 15000) = 15000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.11 < . 1:1(0) ack 1 win 320
> . 10001:11001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 1 win 320
> . 11001:12001(1000) ack 1 win 1024
+0.01 < . 1:1(0) ack 3001 win 320
>> . 12001:14001(2000) mss 1000 ack 1 win 1024
+0.02 < . 1:1(0) ack 5001 win 320
> P. 14001:15001(1000) ack 1 win 1024
`,
		"disorder alone": scrSend100 + `
write(4, ..., 4000) = 4000
>> P. 1:4001(4000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
+0.005 info 4 {tcpi_ca_state=TCP_CA_Disorder, tcpi_snd_cwnd=10000}
`,
		"a congestion mark": scrSendFull + `
< SEW 0:0(0) win 32792 <mss 1000,nop,nop,sackOK,nop,wscale 7>
> SE. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 8,sackOK,eol,eol>
+0.1 < . 1:1(0) ack 1 win 320
accept(3, ..., ...) = 4
write(4, ..., 4000) = 4000
> [tos 0x2] . 1:1001(1000) ack 1 win 1024
> [tos 0x2] . 1001:2001(1000) ack 1 win 1024
> [tos 0x2] . 2001:3001(1000) ack 1 win 1024
> [tos 0x2] P. 3001:4001(1000) ack 1 win 1024
+0.1 < E. 1:1(0) ack 1001 win 320
info 4 {tcpi_ca_state=TCP_CA_CWR, tcpi_snd_cwnd=4000, tcpi_snd_ssthresh=2800}
`,
		"one for two": scrSend100 + `
write(4, ..., 30000) = 30000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.11 < . 1:1(0) ack 2001 win 320
>> . 10001:14001(4000) mss 1000 ack 1 win 1024
+0.01 < . 1:1(0) ack 4001 win 320
>> . 14001:18001(4000) mss 1000 ack 1 win 1024
+0.01 < . 1:1(0) ack 6001 win 320
>> . 18001:22001(4000) mss 1000 ack 1 win 1024
+0.01 < . 1:1(0) ack 8001 win 320
>> . 22001:26001(4000) mss 1000 ack 1 win 1024
+0.01 < . 1:1(0) ack 10001 win 320
>> P. 26001:30001(4000) mss 1000 ack 1 win 1024
info 4 {tcpi_snd_cwnd=20000}
`,
		"one for four": scrSend100 + `
write(4, ..., 30000) = 30000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.11 < . 1:1(0) ack 4001 win 320
>> . 10001:18001(8000) mss 1000 ack 1 win 1024
+0.01 < . 1:1(0) ack 8001 win 320
>> . 18001:26001(8000) mss 1000 ack 1 win 1024
+0.005 < . 1:1(0) ack 10001 win 320
>> P. 26001:30001(4000) mss 1000 ack 1 win 1024
info 4 {tcpi_snd_cwnd=20000}
`,
		"nine segments": scrSend100 + `
write(4, ..., 9000) = 9000
>> P. 1:9001(9000) mss 1000 ack 1 win 1024
+0.105 < . 1:1(0) ack 2001 win 320
info 4 {tcpi_snd_cwnd=12000}
+0.005 < . 1:1(0) ack 4001 win 320
info 4 {tcpi_snd_cwnd=14000}
+0.005 < . 1:1(0) ack 6001 win 320
info 4 {tcpi_snd_cwnd=16000}
+0.005 < . 1:1(0) ack 8001 win 320
info 4 {tcpi_snd_cwnd=18000}
+0.005 < . 1:1(0) ack 9001 win 320
info 4 {tcpi_snd_cwnd=18000}
`,
		"six segments": scrSend100 + `
write(4, ..., 6000) = 6000
>> P. 1:6001(6000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 2001 win 320
info 4 {tcpi_snd_cwnd=12000}
< . 1:1(0) ack 4001 win 320
info 4 {tcpi_snd_cwnd=12000}
< . 1:1(0) ack 6001 win 320
info 4 {tcpi_snd_cwnd=12000}
`,
		"after a pause": scrSend100 + `
write(4, ..., 26000) = 26000
>> . 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 10001 win 511
>> . 10001:22001(12000) mss 1000 ack 1 win 1024 // as many as a flight may begin with, and a train
info 4 {tcpi_snd_cwnd=20000}
+0.005 >> . 22001:24001(2000) mss 1000 ack 1 win 1024
+0.005 >> P. 24001:26001(2000) mss 1000 ack 1 win 1024
+0.09 < . 1:1(0) ack 26001 win 511
info 4 {tcpi_snd_cwnd=36000}
+2 write(4, ..., 20000) = 20000
>> . 26001:36001(10000) mss 1000 ack 1 win 1024
info 4 {tcpi_snd_cwnd=10000}
`,
		"CUBIC after a loss": scrSend100 + `
write(4, ..., 10000) = 10000
>> P. 1:10001(10000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 1001:3001,nop,nop>
< . 1:1(0) ack 1 win 320 <sack 1001:10001,nop,nop>
> . 1:1001(1000) ack 1 win 1024
+0.1 < . 1:1(0) ack 10001 win 511
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=7000, tcpi_snd_ssthresh=7000}
write(4, ..., 200000) = 200000
>> . 10001:17001(7000) mss 1000 ack 1 win 1024
+0.1 < . 1:1(0) ack 17001 win 511
>> . 17001:24001(7000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=7605, tcpi_snd_ssthresh=7000}
+0.1 < . 1:1(0) ack 24001 win 511
>> . 24001:32001(8000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=8092}
+0.1 < . 1:1(0) ack 32001 win 511
>> . 32001:40001(8000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=8615}
+0.1 < . 1:1(0) ack 40001 win 511
>> . 40001:49001(9000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=9107}
+0.1 < . 1:1(0) ack 49001 win 511
>> . 49001:58001(9000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=9630}
+0.1 < . 1:1(0) ack 58001 win 511
>> . 58001:68001(10000) mss 1000 ack 1 win 1024
info 4 {tcpi_ca_state=TCP_CA_Open, tcpi_snd_cwnd=10125}
`,
		"a route that changes": scrSocket + `
connect(3, ..., ...) = -1 EINPROGRESS
> S 0:0(0) win 65535 <mss 1460,nop,wscale 8,sackOK,TS val 100 ecr 0>
+0.01 < S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 2,nop,nop,sackOK>
> . 1:1(0) ack 1 win 1024
+0.01 write(3, ..., 5840) = 5840
>> P. 1:5841(5840) mss 1460 ack 1 win 1024
+0.01 < . 1:1(0) ack 5841 win 65535
+0.01 write(3, ..., 5840) = 5840
>> P. 5841:11681(5840) mss 1460 ack 1 win 1024
+0.01 < . 1:1(0) ack 11681 win 65535
+0.01 write(3, ..., 14600) = 14600
>> P. 11681:26281(14600) mss 1460 ack 1 win 1024
setsockopt(3, IPPROTO_IP, IP_TOS, [4], 4) = 0
setsockopt(3, IPPROTO_IP, IP_TOS, [0], 4) = 0
+0.01 < . 1:1(0) ack 13141 win 65535 <sack 16061:17521 20441:26281,nop,nop>
>> . 13141:16061(2920) mss 1460 ack 1 win 1024
>> . 17521:20441(2920) mss 1460 ack 1 win 1024
+0.01 < . 1:1(0) ack 26281 win 65535
`,
	})
}
