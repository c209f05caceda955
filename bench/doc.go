// Command bench measures bsdnet beside the kernel's TCP and gVisor's netstack, all in turn in the same run.
//
//	go run .                                      every row but those of growth, as text
//	go run . -list                                the rows, the peers and the groups, and how long they take
//	go run . -group loopback                      a group: loopback, pair, tun, tunnel, wireguard or grow
//	go run . -row bulk -rounds 9 -time 2s         the rows whose names match
//	go run . -row tun -peer 'bsdnet|veth'         two of the peers
//	go run . -row '^bulk' -beside old=/tmp/old    beside another build, as "Another commit" says
//	go run . -row pp -cpuprofile prof             a profile per row and peer
//	go run . -row . -json >all.json               every row, growth too, as JSON
//	go run . -md -plot charts all.json >RESULTS.md
//	                                              what was measured, as Markdown and charts, without measuring again
//	go run . -row . -md -plot charts >RESULTS.md  both in one
//	go run . -group tun -row 'up|down' -cc bbr    with another congestion control
//
// # Scenes, peers and rows
//
// A scene is a place for two ends of TCP, and its peers are those who can be there. A row is something to do, and it is written once: it sees
// a net.Listener at the server's side and a dial function at the client's, whoever the peer.
//
//   - memory: both ends in one process. kernel is package net over 127.0.0.1; bsdnet one stack and its loopback; gvisor one stack and its
//     loopback. bufpipe has no protocol, just a ring of 256 KiB between two ends, with a copy in and one out: nothing with two copies is
//     faster. pipe is net.Pipe, which has no buffer: what a connection costs at least.
//   - pair: two stacks on a cable with an MTU of 1500 bytes, all checksums made and checked. gvisor-batch takes as many packets across at once as
//     there are, and joins them (GRO).
//   - tun: the client's end is the kernel's, the server's is a stack of this process behind a TUN device, which has two queues, and one as
//     bsdnet-1q. veth is the kernel at both ends, in two network namespaces. gvisor-gso hands packets of up to 64 KiB to the device and takes
//     them from it (host GSO); gvisor-wgtun goes through WireGuard's TUN package, which cuts and joins them. In up rows the kernel sends, in
//     down rows the stack.
//   - udp: two stacks that reach each other through datagrams on 127.0.0.1, encrypted. bsdnet is bsdnet/udptunnel, bsdnet-wg package bsdnet/wireguard,
//     and wireguard-go the same protocol with gVisor's netstack, in the way its own package has it: one packet at a time. wireguard-go-batch
//     is the same with a device between the two that hands on as many packets at once as there are, and joins those for the stack (GRO).
//
// The rows are, with the scene's name before them outside of memory:
//
//   - bulk1, bulk8 (in tun up1, up8, down1, down8): writes of 64 KiB on so many flows, Gbit/s at the receivers.
//   - pp1, pp1k: one byte, or 1 KiB, there and back on one connection; the median time of a round trip. pp64, pp64k: on 64 connections at
//     once; round trips a second.
//   - conn1, conn16: dial, one byte there and back, close, by so many workers; connections a second. The dialer closes first. One of the
//     allocations is the harness's own: the goroutine that serves the connection.
//   - http1k, http1m: GET of 1 KiB, or 1 MiB, by net/http on 64 connections that are kept alive; requests a second, or Gbit/s.
//   - idle: memory per established connection, both ends, with 10,000 of them over which a byte has gone there and back: the Go heap and
//     stacks, and for the kernel what its slab allocator holds in addition (/proc/slabinfo, else /proc/meminfo).
//   - grow-flows-N: bulk over N flows. grow-idle-bulk-N, grow-idle-pp-N: one busy connection beside N idle ones. grow-active-N: N connections
//     that all go back and forth with 1 KiB at once, beside a goroutine that allocates a gigabyte a second: the pauses of the garbage
//     collector and the heap that lives.
//
// # How to read it
//
// A row is measured in rounds, and in each round by one peer after another, each on a network of its own: first data is sent through and
// its checksum compared, or an echo; then it warms up; then it is timed. What is printed is the median of the rounds, with the least and the
// most. "× kernel" is how many times as good as the kernel a peer is: above 1 is better in every row, also in those where less is better. It
// is computed in each round by itself, so that what slows down a whole round does not count; its median is printed, with the least and the
// most. "× gVisor" is the same against the best of gVisor's set-ups. On a busy machine only these ratios mean something, and those whose
// range has 1 in it mean nothing; "others" is how much of the machine other programs have used meanwhile.
//
// Some rows measure one thing, such as bulk1, grow-flows-1 and grow-idle-bulk-0. The report says what lies between their medians, and does not
// choose one of them.
//
// CPU is user and system time of this process: seconds per gigabyte (10^9 bytes) or microseconds per operation. Allocations are those of the
// Go heap, the harness's included: it makes none in a timed loop except as this text says. Net/http's own are most of those in its rows. Of those of a
// dial by the kernel several are the harness's: it gives each socket its congestion control.
//
// What is sent over a device depends on the sender's congestion control more than on anything else: the kernel's bbr, which paces by timers, makes a
// fraction of what its reno and cubic do. All ends of a run have the same, whatever the host's default: the kernel's sockets in both namespaces, and
// the stacks of bsdnet and gVisor (which has no bbr, and has cubic instead; wireguard-go has reno always). The report names it; -cc chooses
// another than cubic.
//
// # Another commit
//
// With -beside NAME=PATH the bsdnet of another binary of this program is measured in the same rounds, as bsdnet@NAME; "× before" is how many times as
// good as that this one is. Either is then measured in processes that do nothing else. These sources can be built with an older bsdnet:
//
//	git worktree add /tmp/old 9ef5e57
//	rm -r /tmp/old/bench && cp -r bench /tmp/old/bench
//	(cd /tmp/old/bench && go build -o /tmp/old/bench.bin .)
//	cd bench && go run . -group loopback -peer bsdnet -beside 9ef5e57=/tmp/old/bench.bin
//
// On Linux the program runs itself again in a fresh network namespace, so that it may have devices; where that is not allowed, the tun rows
// are left out and it says why.
package main
