// Command bench measures bsdnet, the kernel's TCP and gVisor's netstack, all in turn in the same
// run.
//
//	go run .                                      all rows except those of growth, as text
//	go run . -list                                list rows, peers and groups, and their times
//	go run . -group loopback                      loopback, pair, tun, tunnel, wireguard, dgram or grow
//	go run . -row bulk -rounds 9 -time 2s         the rows whose names match
//	go run . -row tun -peer 'bsdnet|veth'         two of the peers
//	go run . -row '^bulk' -beside old=/tmp/old    with another build: see "Another commit"
//	go run . -row pp -cpuprofile prof             a profile for each row and peer
//	go run . -row . -json >all.json               all rows, with those of growth, as JSON
//	go run . -md -plot charts all.json >RESULTS.md
//	                                              that file as Markdown and charts
//	go run . -row . -md -plot charts >RESULTS.md  both in one
//	go run . -group tun -row 'up|down' -cc bbr    with another congestion control
//	go run . -group dgram -md >DATAGRAMS.md       the page of the rows of datagrams
//
// # Scenes, peers and rows
//
// A scene is a place for two ends of TCP, and its peers are the implementations that can be there.
// A row is a task. It is written once for all peers: it sees a net.Listener at the server's side
// and a dial function at the client's.
//
//   - memory: both ends are in one process. The peer kernel is package net over 127.0.0.1; bsdnet
//     and gvisor are one stack each and its loopback. The peer bufpipe has no protocol. It has a
//     ring of 256 KiB between two ends, and copies data in and out once: anything that copies twice
//     is no faster. The peer pipe is net.Pipe, which has no buffer: it shows what a connection
//     costs at least.
//   - pair: two stacks are on a cable with an MTU of 1500 bytes, and make and check all checksums.
//     The peer gvisor-batch carries all waiting packets at once, and joins them (GRO).
//   - tun: the client's end is the kernel, and the server's end is a stack of this process behind a
//     TUN device. The device of bsdnet has two queues, and the device of bsdnet-1q has one. The
//     peer veth is the kernel at both ends, in two network namespaces. The peer gvisor-gso
//     exchanges packets of up to 64 KiB with the device (host GSO), and gvisor-wgtun uses
//     WireGuard's TUN package, which cuts and joins them. In up rows the kernel sends, and in down
//     rows the stack.
//   - udp: two stacks exchange encrypted datagrams over 127.0.0.1. The peer bsdnet is
//     bsdnet/udptunnel, and bsdnet-wg is bsdnet/wireguard. The peer wireguard-go is the same
//     protocol with gVisor's netstack, which WireGuard's own package connects one packet at a time.
//     The peer wireguard-go-batch connects the two with a device that hands all waiting packets on
//     at once, and joins them for the stack (GRO).
//
// These are the rows. In scenes other than memory their names begin with the scene's name.
//
//   - bulk1, bulk8 (in tun up1, up8, down1, down8): writes of 64 KiB on 1 or 8 flows, in Gbit/s at
//     the receivers.
//   - pp1, pp1k: one byte, or 1 KiB, goes there and back on one connection; the unit is the median
//     time of a round trip. pp64, pp64k: the same on 64 connections at once, in round trips a
//     second.
//   - conn1, conn16: 1 or 16 workers dial, send one byte there and back, and close, in connections
//     a second. The dialer closes first. One of the allocations is the harness's: the goroutine
//     that serves the connection.
//   - http1k, http1m: net/http gets 1 KiB, or 1 MiB, on 64 connections that are kept alive, in
//     requests a second or Gbit/s.
//   - dgram64, dgram1200 (in tun dgram-up64 and so on): one socket sends datagrams to another, as
//     many as it can, and the row has those that arrive a second. dgram64k: the largest datagrams
//     of IPv4, in Gbit/s at the receiver. quic1: one stream of quic-go, in Gbit/s. gVisor does not
//     take part.
//   - idle: memory per established connection, both ends, with 10,000 connections over which a byte
//     has gone there and back. It is the Go heap and stacks, and for the kernel what its slab
//     allocator holds in addition (from /proc/slabinfo or else /proc/meminfo).
//   - grow-flows-N: bulk over N flows. grow-idle-bulk-N, grow-idle-pp-N: one busy connection next
//     to N idle ones. grow-active-N: N connections carry 1 KiB there and back at once, while a
//     goroutine allocates a gigabyte a second; the row also has the pauses of the garbage collector
//     and the live heap.
//
// # How to read it
//
// A row is measured in rounds. In each round the peers take turns, each on a network of its own:
// the row first sends data through and compares its checksum, or an echo, then warms up, and then
// runs against the clock. The report has the median of the rounds, with the least and the most. "×
// kernel" says how many times as good as the kernel a peer is: above 1 is better in every row,
// including rows in which less is better. It is computed for each round separately, so that a
// disturbance of a whole round does not count; the report has its median, the least and the most.
// "× gVisor" is the same against the best of gVisor's set-ups. On a busy machine only these ratios
// mean something, and a ratio whose range includes 1 means nothing. "others" is the part of the
// machine that other programs used meanwhile.
//
// Some rows measure the same thing, such as bulk1, grow-flows-1 and grow-idle-bulk-0. The report
// has the range of their medians, and does not choose one of them.
//
// CPU is user and system time of this process: seconds per gigabyte (10^9 bytes) or microseconds
// per operation. Allocations are those of the Go heap, including the harness's, which makes none in
// a timed loop except as this text says. Most allocations in the rows of net/http are net/http's
// own. Several allocations of a dial by the kernel are the harness's, which sets the congestion
// control of each socket.
//
// The rate over a device depends on the sender's congestion control more than on anything else: the
// kernel's bbr, which paces by timers, reaches a fraction of the rate of its reno and cubic. All
// ends of a run have the same congestion control, whatever the host's default: the kernel's sockets
// in both namespaces, and the stacks of bsdnet and gVisor. (gVisor has no bbr, and uses cubic
// instead; wireguard-go always has reno.) The report names it, and -cc chooses another than cubic.
//
// # Another commit
//
// With -beside NAME=PATH the bsdnet of another binary of this program is measured in the same
// rounds, as bsdnet@NAME; "× before" says how many times as good as that this build is. Both builds
// are then measured in processes that do nothing else. These sources can be built with an older
// bsdnet:
//
//	git worktree add /tmp/old 9ef5e57
//	rm -r /tmp/old/bench && cp -r bench /tmp/old/bench
//	(cd /tmp/old/bench && go build -o /tmp/old/bench.bin .)
//	cd bench && go run . -group loopback -peer bsdnet -beside 9ef5e57=/tmp/old/bench.bin
//
// On Linux the program runs itself again in a fresh network namespace, so that it may have devices.
// If that is not allowed, it leaves the tun rows out and says why.
package main
