package kern

import "testing"

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
