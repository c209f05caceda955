// Package kern is the BSD kernel around the TCP machine: sockets, control blocks, IP, ICMP, the
// loopback and all the locks. It is one flat package because code that shares a lock stays
// together: Go cannot express "the caller holds so.mu" across a package boundary. The file names
// are BSD's. Code that needs no lock has a package of its own: [bsdnet/internal/kern/tcp] is the
// protocol machine, wire has the headers, and mbuf the buffers.
//
// This page is for readers of the code: the way of a segment, the files, the sender, links, locks,
// the clock, the handshake, decisions, a glossary, and what is next.
//
// # The way of a segment: three doors, one exit
//
//	user goroutine               a link's receive goroutine         the stack's clock
//	TCPConn.Write / Read         Ifnet.receive: a batch, merged     one time.Timer
//	     | Sosend, Soreceive           | ipintr                          | clock.fire
//	     | tcpUsrreq(PRU_SEND)         | inetsw[p].input = tcpInput      | Socket.expire: tcpTimers
//	=====|======= so.lock ======= pcbs.lookup, so.lock ============= so.lock =====  three doors
//	     v                             v                                 v
//	+------------------ tcp.TCB: the machine, pure -------------------------------+
//	|  Connect, Output,      Input(th, payload,         Timeout(now)              |
//	|  Usrclosed, …          arrived, now)                                        |
//	|        \_______________________ | _______________________________/         |
//	|                              Output(now): what should be sent now?          |
//	+-----------------|-----------------------------------------------------------+
//	                  v  tcp.Sock: Emit(m) -> ipOutput -> Ifnet.output: to the interface's queue
//	================= so.leave: notes whom to wake and what to drain, sets the clock, unlocks ====  one exit
//	                  exit.do: wakes them; ifqueue.start: if the queue is idle, drains it
//
// A goroutine that changes a socket enters by lock and leaves by unlock, which is leave and do.
// While it holds the lock, it sends nothing and wakes no one: Emit puts a segment on its
// interface's queue and notes the queue in so.txq, and sowakeup makes a note in so.sbflags. leave
// takes both notes and releases the lock. do then acts on them, like BSD's splx: it wakes the
// sleepers and drains the queues. So the order of segments is made under the lock, and the work is
// done outside of it. leave and do are separate for callers that have something to do in between
// (copying the user's bytes) or that leave two sockets (tcpListenInput).
//
// The goroutine that drains a queue carries each packet to its end. Over the loopback that is
// ipintr, tcpInput, the peer's machine, the wake-up of its reader, and the acknowledgment on its
// way back; on a link it is Link.Write, a batch at a time. It has a budget (drainBudget), and
// leaves the rest to a goroutine that ends when the queue is empty. The draining flag admits one
// drainer, so nothing recurses: a packet that the drainer itself puts on the queue is taken in its
// next round. The loopback needs no goroutine except the application's own; a link has one, in
// Read.
//
// # The files
//
//	kern.go            Kernel (the globals), Config, New, Close
//	secrets.go         the secrets, and what is derived from them: ISNs, timestamps
//	uipc_syscalls.go   Proc: descriptors and system calls, for tests and harnesses
//	uipc_socket.go     Socreate … Soclose: what a call does
//	uipc_sosend.go     Sosend and Soreceive
//	uipc_dgram.go      the receive queue of datagram sockets
//	uipc_dgsend.go     sending datagrams     uipc_dgopt.go   their options
//	uipc_socket2.go    Socket; lock, leave, do; sbwait, sblock; soisconnected and the like; sonewconn
//	uipc_sockopt.go    Sosetopt, Sogetopt, TCP_INFO, deadlines
//	uipc_stat.go       Pcblist, Tcpdrop: a socket seen from outside
//	uipc_dgstat.go     Dgram, UDPPcblist: the same for datagram sockets
//	pressure.go        what a socket may keep while memory is short
//	sysctl.go          variables under FreeBSD's names
//	clock.go           callouts: the heap and its one timer
//	bubble.go          calls from another testing/synctest bubble than the stack's
//	ratelimit.go       token buckets
//	in_proto.go        the protocol switch, PRU_ requests
//	in_pcb.go          inpcb, the table of connections, the listeners and their match order
//	in6_pcb.go         sockets and the addresses of both families; zones
//	in_ports.go        bind, connect, ephemeral ports (RFC 6056)
//	in_tuple.go        the addresses of a connection, and their hashes
//	in_cksum.go        checksums of chains
//	in6_src.go         the source address (RFC 6724), scopes, and which addresses are ours
//	in_mcast.go        multicast groups    if_multi.go     the groups of an interface
//	in_hostcache.go    the MTUs of paths, for UDP
//	udp_usrreq.go      udpUsrreq, udpOutput, udpCtlinput
//	udp_input.go       checksum, lookup, delivery
//	udp_local.go       delivery to a socket of the same stack
//	tcp_usrreq.go      tcpUsrreq, and what the machine asks of its socket (tcp.Sock)
//	tcp_input.go       checksum, lookup, lock; then the listener, the connection or the record
//	tcp_syncache.go    half-open connections
//	tcp_sctable.go     the table that holds them
//	tcp_scverdict.go   what a segment does to one
//	tcp_syncookie.go   the answer that needs no memory
//	tcp_park.go        SYNs over the loopback that wait for a place on so_q; a listener's close
//	tcp_timewait.go    TIME_WAIT records
//	tcp_subr.go        segments without a machine: tcpRespond, dropwithreset; tcpCtlinput
//	tcp_debug.go       events of connections, for Config.Trace: BSD's tcp_trace
//	ip_input.go        ipintr              ip_output.go    ipOutput
//	ip_forward.go, ip6_forward.go           packets in transit, if the stack is a router
//	raw_ip.go          raw sockets         icmp_dgram.go   ping sockets
//	icmp_ping.go       Ping as a call
//	ip_reass.go        fragments, bounded  ip_icmp.go      echo, errors both ways
//	ip6_input.go       ip6Input            ip6_output.go   ip6Output, flow labels
//	frag6.go           IPv6's fragments    icmp6.go        ICMPv6: echo, errors both ways
//	route.go           rtalloc: longest prefix, copied on write
//	if.go              Ifnet, Link, attach and detach
//	if_queue.go        the interface's queue: its order, its drainer, what goes to the link
//	if_input.go        the receive goroutines, and what they check of a link
//	if_loop.go         lo0, looutput       bpf.go          captures
//	tso.go             chains cut for links that do not take them whole, and checksums
//	gro.go             segments of a batch merged before they enter the machine
//	udp_gro.go         datagrams of a batch merged before they enter the socket's queue
//
//	mbuf/mbuf.go       Mbuf on shared clusters    mbuf/sockbuf.go   the buffers of a socket
//	mbuf/zone.go       pools for the machine      mbuf/stripe.go    counters without contention
//	mbuf/queue.go      lists of packets
//	mbuf/poison.go     freed memory is marked, with the build tag mbufpoison
//	wire/              IPv4, IPv6 with extension headers, TCP with options, UDP, ICMP, virtio-net
//	                   headers, checksums, pcap
//	wire/trace         tcpdump's notation, for the tests
//	tcp/tcb.go         TCB, states, flags, Sock   tcp/usrreq.go     the user's requests
//	tcp/handshake.go   up to ESTABLISHED          tcp/respond.go    challenges, probes, resets
//	tcp/input.go       Input, step by step in RFC 9293's order; header prediction
//	tcp/acceptable.go  its first four steps: reset, SYN, PAWS, the window
//	tcp/output.go      Output: BSD's questions in BSD's order; plan decides
//	tcp/segment.go     build makes, sent accounts
//	tcp/window.go      the window that the peer is given
//	tcp/timer.go       the timers                 tcp/rtt.go        RFC 6298
//	tcp/persist.go     window probes              tcp/keepalive.go  keep-alive probes
//	tcp/reass.go       out of order: tcp_reass    tcp/sack.go       SACK blocks to the peer
//	tcp/ecn.go         RFC 3168                   tcp/profile.go    Default, FreeBSD, Net3
//	tcp/timewait.go    what a record answers      tcp/autobuf.go    buffers that grow with their use
//	tcp/info.go        TCP_INFO                   tcp/stats.go      the counters of netstat -s
//	tcp/trace.go       the events of a machine    tcp/check.go      invariants, for the tests
//
//	tcp/sender.go      the sending half over paths that can lose: see "The sender" below
//	tcp/scoreboard.go  the data in flight         tcp/sendack.go    what an acknowledgment does to it
//	tcp/recovery.go    Open, Disorder, CWR, Recovery, Loss, and the retransmission time-out
//	tcp/rack.go        RFC 8985, losses by time   tcp/tlp.go        RFC 8985, 7, probes of the tail
//	tcp/prr.go         RFC 9937                   tcp/undo.go       Eifel, D-SACK
//	tcp/rate.go        delivery rate              tcp/pacer.go      trains of about a millisecond
//	tcp/pmtu.go        path MTU: ICMP, black holes (RFC 2923), probes (RFC 4821)
//	tcp/chrono.go      what has limited the speed
//	tcp/cc.go          CC and what it sees        tcp/choose.go     which one a connection has
//	tcp/cubic.go       RFC 9438                   tcp/hystart.go    RFC 9406
//	tcp/newreno.go     RFC 5681                   tcp/slowstart.go  what both share
//	tcp/bbr*.go        BBR, versions 3 and 1
//	tcp/input_ack.go, reno.go   BSD's recovery and congestion control, without a scoreboard
//
// # The sender
//
// A connection over a path that can lose has a sender (sender.go), which is made when the first
// data goes out. Its scoreboard has a span for each chain that was emitted, from sndUna to sndNxt
// without a gap; SACK splits spans at the edges of segments, and merges those that have arrived.
// All of recovery asks the scoreboard:
//
//	acknowledgment -> senderAck: takeSacks, takeAck (spans delivered: rate sample, RACK, round trip)
//	               -> recover:   the state of recovery; undo; detectLoss marks spans lost; lossFound begins a recovery
//	               -> control:   the window of the congestion controller, or of proportional rate reduction
//	               -> Output:    planRexmit (what is lost, while the pipe has room), then BSD's questions about data
//
// sndNxt and the persist code are BSD's. With a scoreboard, sndNxt goes back in one case only: if
// the peer has closed its window over the data in flight, all of it is sent again when the window
// opens (startOver). A time-out marks spans lost instead, and they are sent again like any others.
//
// The retransmission timer has three deadlines (armSender): RACK's, at which a segment that may
// only be late is lost, that of the tail's probe, and the time-out. The pacer has a timer of its
// own; it holds data back only if the window would release more than a millisecond's worth, or ten
// segments.
//
// A congestion controller (CC) belongs to one connection. It sees a View and an Ack, never the TCB,
// and answers with a Control. CUBIC and NewReno leave the window to proportional rate reduction
// while losses are repaired; both versions of BBR set it themselves (OwnWindow).
//
// The loopback of one stack cannot lose. Its connections have no sender, which costs them one
// comparison. The profiles FreeBSD and Net3 keep BSD's recovery, which counts duplicate
// acknowledgments, as their scripts and traces require.
//
// # Datagrams
//
// A socket of UDP, or a raw one, has a dgram, and its TCB is not used. Sending makes one Mbuf, with
// room for the headers in front (Pool.Getpkt), which the protocol fills in; there is no send
// buffer, and SO_SNDBUF bounds what waits on interfaces' queues. Receiving puts the packet on the
// socket's queue with its headers, which say whom it is from:
//
//	Sosendto -> udpOutput -> ipOutput -> ifqueue                       Soreceivefrom
//	               |                       | ipintr, udpInput           ^ dgram.out: the readers' half
//	               | udpLocal              v                            |
//	               +--> udpDeliver ---> sbappendaddr: dgram.in, under the socket's lock
//
// The way of the last datagram (dgroute) holds until a route or an address changes (Kernel.rtgen).
// If it leads to a socket of the same stack, the route holds that socket too, until a port changes
// hands (portTable.gen), and the sender puts its datagrams on that queue itself. Datagrams of one
// length that follow each other to one address (Sosendmsgs, UDP_SEGMENT) are one chain up to the
// cutter, or up to the receiver's queue, from which readers take them one by one; what arrives in a
// batch is merged into such chains.
//
// # Links
//
// A link carries IP packets and knows nothing of the stack. The contract is the comment of
// bsdnet.Link, and package linktest tests any link against it. Attach looks for optional methods.
// If a link has Offload, each packet has a virtio-net header: then the cutter (tso.go) passes a
// chain on as one packet instead of forty, and a merged packet that arrives enters the machine
// whole, without a look at its checksum. If it also has OffloadUDP, chains of datagrams go both
// ways too. If a link has Queues, each queue has an ifqueue and a receive goroutine of its own, and
// a flow stays on one queue. Wrappers have neither method, so a link under netem.Impair carries
// packets as a wire would.
//
// A receive goroutine holds its queue while it handles a batch (ifqueue.hold): the answers to the
// batch go out together at its end, and a bare acknowledgment replaces an older one of its
// connection that still waits there (superseded). Two queues may bring segments of one handshake at
// the same time, so tcpListenInput looks again when it has locked the listener.
//
//	tun/               TUN devices: all of Linux's features; others by golang.zx2c4.com/wireguard/tun
//	udptunnel/         the UDP tunnel: docs/udp-tunnel.md; its machine has neither clock nor socket,
//	                   and any net.PacketConn can carry it
//	netem/             Pipe, a cable between two stacks, Impair, which makes a link bad, and switches
//	simnet/            networks of hosts for tests: stacks on netem's switches
//	wireguard/         WireGuard
//	internal/link/     what links share: their interfaces, and the states that they go through
//
// If a link breaks, its Read returns an error; from then on the interface is down, and outputs get
// ENETDOWN. A connection whose interface is down looks for another (reroute), so a link that is
// attached in its place with the same address takes over.
//
// # The locks
//
// At most two locks are held at a time in an order; every other lock is a leaf, which is taken
// last, and under which nothing is called.
//
//	so.mu of a listener  ->  so.mu of a connection on its queue       (tcpListenInput, soqtake, soqmend)
//	dgram.rmu, a reader's turn  ->  so.mu of its socket               (dgwait)
//	   leaves: pcbShard, listenShard, a port's shard and a destination's, portTable.nextMu, socketList,
//	           syncache, twList, ipReass, clock, ifqueue, bucket, bpf, Proc, inMulti, hostcache,
//	           Kernel.ifMu and closeMu
//
// syncache.mu is a leaf although it is held while an answer is composed, as composing calls
// nothing. ipReass sets its callout under its lock; the clock, which calls no one under its own, is
// the leaf there. A connection that ends on its listener's queue must not lock the listener: sofree
// sets sbMend, and soqmend removes it from the queue after the unlock. If two connections would
// have to be locked, as for both ends of a loopback connection, neither is: the segment between
// them goes through the queue.
//
// A lookup takes the bucket's lock, releases it, takes so.mu, and tests whether the socket is still
// there: so.dead and inp.dead. If one of them is set, tcpInput looks up the segment's socket again.
//
// No mutex is held across a sleep. A sleeper waits in sbwait, on the sync.Cond of the socket;
// SB_LOCK and SB_WANT are bits, not mutexes, as in BSD. All of it works in a testing/synctest
// bubble, in which a goroutine that waits for a mutex does not count as blocked.
//
// # The clock
//
// A socket has one callout and one deadline: the earliest of its machine's timers and of the calls
// that sleep in it (nextDeadline). leave compares it with the one that it last asked for, and
// changes the heap only if it has become earlier. A callout that fires too early finds nothing due
// and is set again, so none is removed as long as its socket lives: an acknowledgment that restarts
// the retransmission timer costs nothing. One time.Timer is set to the earliest callout, by
// (deadline, id). The TIME_WAIT list, the syncache and the reassembly queue have one callout each.
// If the timer is more than 20 ms late, or a call has taken that long, the clock waits up to 3 ms
// before it calls on: a busy processor must not look like a lost packet.
//
// Protocol timers fire at even nanoseconds of the day (Kernel.even), and our links deliver packets
// at odd ones. A synctest bubble runs events of one instant in any order; as a timer and a packet
// never share an instant, a run repeats byte for byte.
//
// # The handshake
//
// so_q0 is the syncache: an entry of a bounded table, which becomes a socket at the final ACK
// (syncacheExpand, sonewconn). If its bucket is full, a SYN is answered with a cookie; for as long
// as a cookie can come back (cookieLife), an ACK without an entry is tried as one. If so_q is full,
// SYNs from links are dropped, and a final ACK leaves its entry in place. The loopback loses
// nothing, so a SYN there reserves its place on so_q. One without a place is parked, first come,
// first served: soaccept lets the next one in (unpark), and the listener's close refuses those that
// wait.
//
// # Decisions
//
// These are the places where the stack differs from the book or from FreeBSD, and why:
//
//   - Deadlines of blocked calls are in the stack's clock, with the connection's timers, not in
//     runtime timers of their own: a read with a deadline costs two comparisons, and rarely touches
//     the heap.
//   - Soreceive first takes the bytes that it will copy out of the buffer (Sockbuf.Cut), tells the
//     machine, and copies without the lock: the window update and the next segment do not wait for
//     the copy. It copies up to 2 KiB under the lock, which is shorter than leaving it. Sosend does
//     the same in reverse.
//   - A header Mbuf carries its bytes in itself. A segment is one small allocation from a pool and
//     shares its payload; there is no header cluster. A payload that fits behind the headers (28
//     bytes with timestamps) is copied there, and a write of up to 136 bytes waits in an Mbuf of
//     its own.
//   - A segment over the loopback that has hardly waited on the queue has the time of arrival at
//     which it was sent (looptransmit): reading the clock costs as much as all of the header
//     prediction. The machine never lets time go back (onwards).
//   - Header prediction also takes data that brings an acknowledgment, as all data in a
//     conversation does (tcp.predicted); BSD's does not.
//   - Merged segments of up to 2 KiB are copied into larger clusters, a dozen each (gro.add): a
//     copy of a hot segment costs less than another cluster.
//   - Checksums use AVX2 if there is, 64 bytes a step (wire/cksum_amd64.s): 45 GB/s for a full
//     segment, against 11. On arm64 they use Advanced SIMD (wire/cksum_arm64.s): 8 instructions for
//     64 bytes, against 42.
//   - Buffers grow with the bytes that are read, or acknowledged, in the least round trip
//     (tcp/autobuf.go). Over a short path that keeps a flight within the processor's cache, and
//     over a long one it fills the path. The loopback's buffers stay at 256 KiB.
//   - A Socket is one allocation of 696 bytes, and TestSocketSize holds its size class. What a
//     stack's connections share is behind one pointer (tcp.Env), rare times are in seconds, tables
//     hold addresses of 16 bytes (in6Addr), lengths of buffers have 32 bits, and the one sync.Cond
//     of both buffers is made for the first sleeper. The clock, when it next comes by, drops a Cond
//     that has no sleeper; to drop it with each wake-up, as sleepqueue(9) does, was a tenth of a
//     round trip.
//   - Stack frames on the way of a segment are small (the drainer's batch is in its queue,
//     syncacheBegin is not inlined): most connections are made on fresh goroutines, and to grow
//     their stacks was a fifth of a connection's cost.
//   - A protocol's input takes what it needs of the IP headers (ipHdr) by value: a pointer would be
//     an allocation for each packet, as the compiler cannot see what a function in a table does
//     with it.
//   - Both families share the tables: connections, routes, fragments and limits are found by 16
//     bytes, and an IPv6 network of 64 bits counts as one source where an IPv4 address does.
//   - The unspecified address of a socket for both families is the zero in6Addr, and inp_vflag says
//     what it stands for. A socket of AF_INET6 has one hop limit and one class for both families,
//     as on FreeBSD; Linux keeps two of each. A hop limit of 0 is EINVAL.
//   - A peer over IPv6 that names no MSS takes 1220 bytes, and a black hole's last resort is that
//     too: every link carries 1280 (RFC 8200, 5).
//   - A link-local IPv6 address is no route: its zone, or the interface that a connection has, says
//     over which link it goes (rtalloc).
//   - A flow label comes from the hash that chooses the queue, through another keyed hash
//     (flowLabel), so no connection has to store one.
//   - On the loopback a chain holds up to 256 KiB (loTSO) in one packet. IP's length field cannot
//     say so; the length is in the Mbuf (Pkthdr.Len), and captures show the packets of a wire.
//   - TIME_WAIT is always a record, even while the user still holds the socket, so one set of rules
//     does. The record takes the connection's place in the table in one step, so no segment finds
//     nothing in between.
//   - A machine asks its socket through an interface (tcp.Sock) rather than by return values: it
//     has BSD's calls in BSD's places, so the call trees are the book's.
//   - Both directions of a loopback connection use one queue (tuple.flow is symmetric): the
//     goroutine that sends also brings the acknowledgment.
//   - sowakeup broadcasts. There is rarely more than one sleeper, and the others may have
//     deadlines.
//   - HyStart++ (RFC 9406) also looks at the last eight round trips within a round, and leaves
//     Conservative Slow Start if the queue continues to grow: a paced sender fills a queue of one
//     bandwidth-delay product in the middle of a round, and overflowed it before the round's least
//     round trip had grown.
//   - The time-out has its floor of 200 ms under the variance, as on Linux: with a sample for each
//     acknowledgment, the variance of a steady path comes close to 0. The tail's probe comes first
//     anyway.
//   - RACK's reordering window is at least the time by which an original has been late, and not
//     only D-SACK's multiples of a quarter of the round trip.
//   - PAWS accepts retransmissions that were overtaken by up to 50 ticks, and bare acknowledgments
//     that were overtaken. RFC 7323 drops both; on a path that reorders, each retransmission then
//     caused further losses.
//   - Merged segments are taken one by one while there are holes, so a sender sees as many
//     acknowledgments as on a wire.
//   - The MTU that an ICMP message names is believed at once only if no larger segment has arrived
//     (RFC 5927, 7.2). A black hole is suspected only if no full segment has arrived since the
//     first time-out; the full size is tried again after one round trip, then two, four, and so on.
//   - The stack asks for offloads (Offload before Start); a link does not announce them. So a
//     wrapper that does not know the method gets packets as on a wire, and need not refuse
//     anything.
//   - The UDP tunnel has an MTU of at least 1280, which IPv6 needs, also over a path that carries
//     less. Its datagrams go in fragments then, if the sender of the packet cannot be told to make
//     it smaller; otherwise the sender is told, as by a router.
//   - A tunnel over any net.PacketConn has a goroutine that calls WriteTo, because a link's Write
//     must not wait, and nothing is known of that WriteTo.
//   - The tunnel's replay window is golang.zx2c4.com/wireguard/replay's: that of pion/transport
//     makes a closure for every packet.
//   - A socket's datagrams are charged for the memory that they hold, of which SO_RCVBUF allows 208
//     KiB, as on Linux; BSD's 42 KB would hold no datagram of 64 KB. A small datagram that a link
//     has brought is copied out of the link's buffer.
//   - A sender over the loopback that would fill its receiver's queue first gives up its processor
//     a few times (dgpace). It never waits for a reader that does not come.
//   - A datagram that fits its path has DF, as on Linux, so that its identification can be anything
//     and the path's MTU becomes known. FreeBSD lets routers cut it.
//   - UDP's sockets share an ephemeral port with no other, whatever their peers, and it is drawn at
//     random: an answer to a datagram is believed because it comes to the right port.
//   - A datagram to a group is only for sockets that have joined the group on the interface that it
//     comes from, as in BSD. On Linux a socket also gets the groups of others.
//   - An AF_INET6 socket that connects anew chooses its source address anew.
//   - Secrets are drawn once and used under AES, one key for each purpose: with Config.Rand fixed a
//     run repeats, and a cookie reveals nothing about a port.
//   - Raw sockets receive copies of all packets of their protocol, as on Linux; BSD's ICMP keeps
//     echo requests to itself. There are none of TCP and UDP, whose segments are in part merged and
//     without checksums.
//   - A router's errors come from the address of the interface at which the packet arrived, as
//     traceroute should show it. RFC 1812, 4.3.2.4, names the interface on which the error leaves;
//     over links with two ends both are the same unless routes differ by direction.
//   - A router sends no redirects, as a link has no other routers, and passes on IP options as they
//     are. It merges segments (gro.go) only if they must not be fragmented, and cuts them again
//     into the same segments.
//
// # Driving a stack from outside
//
// A test or a harness needs no link of its own and no goroutine:
//
//	k, _ := kern.New(kern.Config{Profile: tcp.FreeBSD(), NoLoopback: true})
//	ifp, _ := k.Attach("tun0", link, []netip.Prefix{netip.MustParsePrefix("192.168.0.1/16")})
//	k.SetSysctl("net.inet.tcp.ecn.enable", 1)     // sysctl.go has the names
//	p := k.NewProc()                              // system calls, errnos
//	fd, _ := p.Socket(kern.AF_INET, kern.SOCK_STREAM, 0)
//	p.Fcntl(fd, kern.F_SETFL, kern.O_NONBLOCK)
//	p.Bind(fd, …); p.Listen(fd, 1)
//	ifp.Inject(pkt)                               // returns when all that follows from it has been done
//	k.Pcblist(); k.Tcpdrop(match); p.TCPInfo(fd)  // look, and interfere
//
// IPv6 goes the same way, also on the same interface: each packet says which it is. The MTU must be
// at least 1280.
//
//	ifp, _ := k.Attach("tun0", link, []netip.Prefix{netip.MustParsePrefix("fd00::1/64")})
//	k.AddRoute(netip.MustParsePrefix("::/0"), ifp)
//	fd, _ := p.Socket(kern.AF_INET6, kern.SOCK_STREAM, 0)
//	p.Setsockopt(fd, kern.IPPROTO_IPV6, kern.IPV6_UNICAST_HOPS, 5)
//	p.Setsockopt(fd, kern.IPPROTO_IPV6, kern.IPV6_TCLASS, 0x10)
//	p.Connect(fd, netip.MustParseAddrPort("[2001:db8::1]:8080"))
//
// A socket of AF_INET6 takes 16-byte addresses, and shows those of IPv4 mapped. A 4-byte one is
// EINVAL there, as its sockaddr would be too short; an IPv6 address on a socket of AF_INET is
// EAFNOSUPPORT. IPV6_V6ONLY is off by default as on Linux, and on in the profile tcp.FreeBSD
// (net.inet6.ip6.v6only).
//
// The packets that the stack sends arrive at the link's Write, on the goroutine of the call that
// caused them. In a testing/synctest bubble time stands still until all goroutines are blocked, so
// such a run is exact to the nanosecond. The three profiles are the same functions with other
// values: tcp.Default, tcp.FreeBSD (for conformance scripts) and tcp.Net3 (the book). Kernel.Stats
// has netstat's counters. Pool().Outstanding() is 0, 0 when a stack is closed, or something leaks.
//
// # BSD to Go
//
//	mbuf, cluster, m_copym    mbuf.Mbuf; a counted cluster; Copym shares it
//	so_snd, so_rcv            so.snd, so.rcv: an mbuf.Sendbuf and an mbuf.Sockbuf, with sleepers
//	splnet … splx             so.lock … so.unlock
//	tsleep, wakeup            sync.Cond with the clock's deadline: sbwait, sowakeup
//	schednetisr, ipintrq      Ifnet.queues of lo0; ifqueue.start
//	if_snd, if_start, OACTIVE ifqueue, start, oactive until the link calls ready
//	struct inpcb, tcpcb       in the Socket: so.inp, so.tp; one allocation, one lock
//	callout, tcp_slowtimo     clock; int64 nanoseconds since the stack began, plus one second, so that 0 is no time
//	errno, so_error           syscall.Errno; only package bsdnet makes a net.OpError
//	SS_NOFDREF, sofree        ssNofdref; a socket is garbage when neither the user nor the machine has it
//	globals                   Kernel; there can be any number of stacks
//
// # What is next
//
// In the order that makes sense, these are missing:
//
//   - Speed: bench/RESULTS.md shows where the stack stands. Delivery straight into a waiting
//     reader's slice would save a copy.
//   - Control messages of datagrams, such as IP_PKTINFO; source filters of groups (RFC 3678); a
//     wait of senders for others' packets on a queue in the order of their calls.
//   - Accurate ECN (RFC 9768), and a search for a path's MTU beyond that of the interface at the
//     beginning (RFC 8899).
package kern
