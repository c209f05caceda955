// Package kern is the BSD kernel around the TCP machine: sockets, control blocks, IP, ICMP, the loopback and all the locks. It is one flat package
// because code that shares a lock stays together: Go cannot say "the caller holds so.mu" across a package border. The file names are BSD's, and
// they are the map. What needs no lock has a package of its own: [bsdnet/internal/kern/tcp] is the protocol machine, wire the headers, mbuf the buffers.
//
// This page is for whoever reads on or carries on: the way of a segment, the files, the locks, the words, and what is next.
//
// # One segment's way: three doors, one exit
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
//	                  v  tcp.Sock: Emit(m) -> ipOutput -> Ifnet.output: on the interface's queue (looutput: on ipintrq)
//	================= so.leave: take note of whom to wake and what to drain, set the clock, unlock ====  one exit
//	                  exit.do: wake them; ifqueue.start: whoever finds the queue idle drains it
//
// Whoever changes a socket enters by lock, and leaves by unlock, which is leave and do. Under the lock nothing is sent and nobody is woken: Emit puts
// a segment on its interface's queue and notes the queue in so.txq; sowakeup notes in so.wake. leave takes both notes away with the lock, and do acts on
// them, BSD's splx: it wakes the sleepers and drains the queues. So the order of segments is made under the lock, where two goroutines cannot
// overtake each other, and the work is done outside of it. leave and do are apart for the callers that have something to do in between (the copy
// of user bytes), or two sockets to leave (tcpListenInput).
//
// A drainer carries each packet to its end: over the loopback that is ipintr, tcpInput, the peer's machine, the wake-up of its reader, and the
// acknowledgment on its way back, on the same goroutine; to a link it is Link.Write, a batch at a time. It has a budget (drainBudget); what is left goes
// to a goroutine that ends when the queue is empty. The draining flag makes the drainer unique, so nothing recurses: a packet that is put on the
// queue by the drainer itself is taken in its next round. No goroutine but the application's own is needed on the loopback; a link has one, in Read.
//
// # The files
//
//	kern.go            Kernel (the globals), Config, New, Close; secrets; the keyed hashes of tuples, ISNs, timestamps
//	uipc_syscalls.go   Proc: descriptors and system calls, the seed of every test that speaks BSD
//	uipc_socket.go     Socreate … Soclose: what a call does; Sosend and Soreceive
//	uipc_socket2.go    Socket; lock, leave, do; sbwait, sblock; soisconnected and its like; sonewconn and so_q
//	uipc_sockopt.go    Sosetopt, Sogetopt, TCP_INFO
//	uipc_stat.go       Pcblist, Tcpdrop, deadlines: a socket seen from outside
//	sysctl.go          variables under FreeBSD's names
//	bubble.go          calls from another testing/synctest bubble than the stack's
//	clock.go           callouts: the heap and its one timer
//	in_proto.go        the protocol switch, PRU_ requests
//	in_pcb.go          inpcb, the table of connections, the listeners and their match order
//	in_ports.go        bind, connect, ephemeral ports (RFC 6056)
//	tcp_usrreq.go      tcpUsrreq, and what the machine asks of its socket (tcp.Sock)
//	tcp_input.go       checksum, lookup, lock, listener or connection or record
//	tcp_syncache.go    half-open connections
//	tcp_park.go        SYNs over the loopback that wait for a place on so_q; a listener's close
//	tcp_syncookie.go   the answer that needs no memory
//	tcp_timewait.go    TIME_WAIT records
//	tcp_subr.go        segments without a machine: tcpRespond, dropwithreset; tcpCtlinput
//	tcp_debug.go       what happens on a connection, for Config.Trace: BSD's tcp_trace
//	ip_input.go        ipintr              ip_output.go    ipOutput
//	ip_reass.go        fragments, bounded  ip_icmp.go      echo, errors both ways, path MTU
//	route.go           rtalloc: longest prefix, copied on write
//	if.go              Ifnet, Link, attach and detach, ifqueue
//	if_input.go        the receive goroutines; virtio-net headers: what a link with offloads leaves undone, or has done
//	if_loop.go         lo0, looutput       bpf.go          captures
//	tso.go             chains cut for links that do not take them whole, and checksums
//	gro.go             segments of a batch merged before they enter the machine
//
//	mbuf/mbuf.go       Mbuf on shared clusters    mbuf/sockbuf.go   what waits to be sent, or read; zone.go: pools for the machine;
//	                   stripe.go: counters that processors do not fight for; poison.go: freed memory is marked, with a build tag
//	wire/              IPv4, TCP with options, ICMP, checksums, pcap; wire/trace is tcpdump's notation, for the tests
//	tcp/tcb.go         TCB, states, flags, Sock   tcp/usrreq.go     the user's requests
//	tcp/input.go       Input, step by step in RFC 9293's order
//	tcp/output.go      Output: BSD's questions in BSD's order
//	tcp/timer.go       the timers                 tcp/rtt.go        RFC 6298
//	tcp/reass.go       out of order: tcp_reass    tcp/sack.go       SACK blocks out
//	tcp/ecn.go         RFC 3168                   tcp/profile.go    Default, FreeBSD, Net3
//	tcp/timewait.go    what a record answers      tcp/autobuf.go    buffers that grow with what goes through them
//	tcp/info.go        TCP_INFO                   tcp/stats.go      the counters of netstat -s
//	tcp/trace.go       the events that a machine tells of
//
//	tcp/sender.go      what a connection that can lose has beside BSD's half: see "The sender" below
//	tcp/scoreboard.go  what is in flight          tcp/sendack.go    what an acknowledgment does to it
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
//	tcp/input_ack.go, reno.go   BSD's recovery and congestion control, of connections without a scoreboard
//
// # The sender
//
// A connection over a path that can lose has a sender (sender.go), made when the first data goes out. Its scoreboard holds a span for each chain
// that was emitted, from sndUna to sndNxt without a gap; SACK splits spans at the edges of segments and merges what has arrived. All of recovery asks the
// scoreboard:
//
//	acknowledgment -> senderAck: takeSacks, takeAck (spans delivered: rate sample, RACK, round trip)
//	               -> recover:   what state recovery is in; undo; detectLoss marks spans lost; lossFound begins a recovery
//	               -> control:   the congestion controller's new window and rate, or proportional rate reduction's
//	               -> Output:    planRexmit (what is lost, while the pipe has room), then BSD's questions about new data
//
// sndNxt and the persist code are BSD's. With a scoreboard sndNxt goes back in one case only: the peer has closed its window over what is in flight, and
// all of it is sent again as the window opens (startOver). A time-out marks spans lost instead, and they leave like any others.
//
// The retransmission timer has three deadlines (armSender): RACK's, when something that may only be late is lost, the tail's probe, and the
// time-out. The pacer has a timer of its own; it holds data back only if the window would let more out than about a millisecond's worth, or ten segments.
//
// A congestion controller (CC) belongs to one connection. It sees a View and an Ack, never the TCB, and answers with a Control. CUBIC and NewReno leave the window to
// proportional rate reduction while losses are repaired; both versions of BBR keep it (OwnWindow).
//
// The loopback of one stack cannot lose: its connections have no sender, and this costs them a comparison. The profiles FreeBSD and Net3 keep BSD's recovery,
// duplicate acknowledgments counted, as their scripts and traces pin it down.
//
// # Links
//
// A link carries IP packets and knows nothing of the stack; the contract is in package link, and one test holds every link to it. The optional methods
// of a link are found at attach: with Offload each packet has a virtio-net header, so the cutter (tso.go) makes one packet of a chain where it would make
// forty, and what comes up whole enters the machine whole, its checksum not looked at; with Queues each queue has an ifqueue and a receive goroutine of its
// own, and a flow stays on one. Wrappers have neither method, so what is under an Impair carries packets as a wire would.
//
// A receive goroutine holds its queue while it deals with a batch (ifqueue.hold): what the batch brings about goes out in one go at its end, and a
// bare acknowledgment takes the place of an older one of its connection that still waits there (superseded). Two queues may bring segments of one
// handshake at the same time; tcpListenInput looks again once it has the listener.
//
//	link/link.go       the contract               link/pipe.go      the cable between two stacks
//	link/tun*.go       TUN: Linux's, with everything; others by golang.zx2c4.com/wireguard/tun
//	link/udp*.go       the UDP tunnel: docs/udp-tunnel.md; udp_session.go and udp_hello.go are a machine without clock or socket
//	link/impair.go …   what a bad path does; sched.go: one packet an instant
//	wireguard/         WireGuard, as a package of its own that only its users link: the protocol's module weighs three lines in go.mod
//
// A link that breaks ends its Read with an error: the interface is down then, and outputs get ENETDOWN. A connection's interface is looked up again
// when it is down (reroute), so one that is attached in its place with the same address takes over.
//
// # The locks
//
// Two locks at most have an order, and everything else is a leaf: taken last, alone, and with nothing called under it.
//
//	so.mu of a listener  ->  so.mu of a connection on its queue       (tcpListenInput, soqtake, soqmend)
//	   leaves: pcbShard, listenShard, a port's shard and a destination's, socketList, syncache, twList, ipReass,
//	           clock, ifqueue, bucket, bpf, Proc, Kernel.ifMu and closeMu
//
// syncache.mu is a leaf, although it is held while an answer is composed: composing calls nothing. ipReass sets its callout under its lock; the
// clock, which calls nobody under its own, is the leaf there. Where a child dies on its listener's queue it must not
// lock upwards: sofree sets so.mend, and soqmend takes it off after the unlock. Where two connections would have to be locked (both ends of a loopback
// connection) nothing is: the segment between them goes over the queue.
//
// A lookup takes the bucket's lock, leaves it, takes so.mu, and looks whether the socket still lives there: so.dead and inp.dead are what every door
// tests first. tcpInput begins anew where it finds them set.
//
// No mutex is held across a sleep. A sleeper waits in sbwait, on the sync.Cond of the socket; SB_LOCK and SB_WANT are bits, not mutexes, as in BSD.
// All of it works in a testing/synctest bubble, in which a goroutine that waits for a mutex does not count as asleep.
//
// # The clock
//
// A socket has one callout, and one deadline: the earliest of its machine's timers and of those who sleep in it (nextDeadline). leave
// compares it with what it last asked for, and goes to the heap only when it has become earlier. A callout that comes too early finds nothing due and
// is set again, so no one is taken out while its socket lives: an acknowledgment that restarts the retransmission timer costs nothing. One time.Timer stands at the
// earliest callout, by (deadline, id). The TIME_WAIT list, the syncache and the reassembly queue have a callout each. If the timer is
// more than 20 ms late, or a call has taken so long, the clock waits up to 3 ms before it calls: a busy processor must not look like a lost packet.
//
// # The handshake
//
// so_q0 is the syncache: an entry of a bounded table, which becomes a socket at the final ACK (syncacheExpand, sonewconn). A full bucket answers with
// a cookie; for the time that one can come back (cookieLife), an ACK without an entry is tried as a cookie. A full so_q drops SYNs from the wire,
// and keeps the entry of a final ACK. The loopback loses nothing, so there a SYN reserves its place on so_q, and one without a place is parked,
// first come first served: soaccept lets the next one in (unpark), and the listener's close refuses those who wait.
//
// # Decisions of our own
//
// Where this differs from the book, from FreeBSD, or from what the project set out with, and why:
//
//   - Deadlines of blocked calls stand in the stack's clock, with the connection's timers, not in runtime timers of their own: a read with a deadline
//     costs two comparisons, and the heap is touched once in many.
//   - Soreceive takes what it will copy out of the buffer first (Sockbuf.Cut), tells the machine, and copies without the lock: the window update and the
//     next segment do not wait for the copy. Up to 2 KiB are copied under the lock; that is shorter than leaving it. Sosend does the same in reverse.
//   - A header Mbuf carries its bytes in itself. A segment is one small allocation from a pool and shares its payload; there is no header cluster. What
//     is as short as the room behind the headers (28 bytes with timestamps) is copied there, and writes of up to 136 bytes wait in an Mbuf of their own.
//   - A segment over the loopback arrives when it was sent, where it has hardly been on the queue (looptransmit): reading the clock costs as much as all of
//     the header prediction. The machine never lets time go back (onwards).
//   - Header prediction also takes data that brings an acknowledgment along, as all data in a conversation does (tcp.predicted); BSD's does not.
//   - Merged segments of up to 2 KiB are copied into larger clusters, a dozen each (gro.add): a copy of a hot segment costs less than another cluster.
//   - Checksums use AVX2 where there is, 64 bytes a step (wire/cksum_amd64.s): 45 GB/s for a full segment, against 11. On arm64 they use Advanced SIMD
//     (wire/cksum_arm64.s): 8 instructions for 64 bytes, against 42.
//   - Buffers grow with what is read, or acknowledged, in the least round trip (tcp/autobuf.go): over a short way that is what a flight needs to stay in
//     the processor's cache, and over a long one what fills the path. The loopback's stay at 256 KiB.
//   - A Socket is one allocation of 688 bytes, and TestSocketSize holds its size class: what a stack's connections share is behind one pointer (tcp.Env),
//     rare times are in seconds, tables hold addresses of 16 bytes (in6Addr), lengths of buffers have 32 bits, and the one sync.Cond of both buffers is
//     made for the first who sleeps. The clock, when it next comes by, lets go of a cond that nobody sleeps in: to give it back with each wake-up, as
//     sleepqueue(9) does, was a tenth of a round trip.
//   - Frames on the way of a segment are kept small (the drainer's batch is in its queue, syncacheBegin is not inlined): connections are mostly made on fresh
//     goroutines, and growing their stacks was a fifth of a connection's cost.
//   - On the loopback a chain holds up to 256 KiB (loTSO) in one packet. IP's length field cannot say so; the length travels in the Mbuf
//     (Pkthdr.Len), and captures show what a wire would have seen.
//   - TIME_WAIT is a record always, also while the user still holds the socket: one representation, one set of rules. The record takes the connection's
//     place in the table in one step, so no segment finds nothing in between.
//   - A machine asks its socket by an interface (tcp.Sock) rather than by return values: it keeps BSD's calls where BSD has them, so the call trees are
//     the book's.
//   - Both directions of a loopback connection use one queue (tuple.flow is symmetric): the goroutine that sends also brings the acknowledgment.
//   - sowakeup broadcasts. There is rarely more than one sleeper, and the others may have deadlines.
//   - HyStart++ (RFC 9406) also looks at the last eight round trips within a round, and leaves Conservative Slow Start when the queue goes on growing: a paced sender
//     fills a queue of one bandwidth-delay product in the midst of a round, and overflowed it before the round's least round trip had grown.
//   - The time-out has its floor of 200 ms under the variance, as Linux has it: with a sample for each acknowledgment the variance of a steady path comes close to
//     nothing. The tail's probe comes first anyway.
//   - RACK's reordering window is also what an original has been late by, and not only D-SACK's multiples of a quarter of the round trip.
//   - PAWS lets pass what something sent again has overtaken by up to 50 ticks, and bare acknowledgments that were overtaken; RFC 7323 drops both, and on a path that
//     reorders each retransmission then made further losses.
//   - Merged segments are taken one by one while there are holes, so a sender sees as many acknowledgments as on a wire.
//   - ICMP's word on the path's MTU is believed at once only if no larger segment has arrived (RFC 5927, 7.2); a black hole only if no full segment has arrived
//     since the first time-out, and the size is tried again after one round trip, then two, four, and so on.
//   - Offloads are asked for by the stack (Offload before Start), not announced by the link: so a wrapper that does not know the method gets packets as on
//     a wire, without a way to say no.
//   - The tunnel's replay window is golang.zx2c4.com/wireguard/replay's: that of pion/transport makes a closure for every packet.
//   - Secrets are drawn once and used under AES, one key a purpose: with Config.Rand fixed a run repeats, and what a cookie lets out says nothing of a port.
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
// What the stack sends arrives at the link's Write, on the goroutine of the call that caused it. In a testing/synctest bubble time stands still
// until all sleep, so such a run is exact to the nanosecond. The three profiles are the same functions with other values: tcp.Default,
// tcp.FreeBSD (what conformance scripts expect) and tcp.Net3 (the book). Kernel.Stats are netstat's counters; Pool().Outstanding() is 0, 0 once a
// stack is closed, or something leaks.
//
// Instants have a parity: protocol timers fire at even nanoseconds of the day (Kernel.even), our links deliver at odd ones (link's scheduler). Two things
// that a synctest bubble would run at one instant in any order thus never share one, which is what makes a run repeat byte for byte.
//
// # BSD to Go
//
//	mbuf, cluster, m_copym    mbuf.Mbuf; a counted cluster; Copym shares it
//	so_snd, so_rcv            so.snd, so.rcv: a mbuf.Sendbuf and a mbuf.Sockbuf, with sleepers
//	splnet … splx             so.lock … so.unlock
//	tsleep, wakeup            sync.Cond with the clock's deadline: sbwait, sowakeup
//	schednetisr, ipintrq      Ifnet.queues of lo0; ifqueue.start
//	if_snd, if_start, OACTIVE ifqueue, start, oactive until the link calls ready
//	struct inpcb, tcpcb       in the Socket: so.inp, so.tp; one allocation, one lock
//	callout, tcp_slowtimo     clock; int64 nanoseconds since the stack began, plus one second, so that 0 is no time
//	errno, so_error           syscall.Errno; net.OpError is made in package bsdnet and nowhere else
//	SS_NOFDREF, sofree        ssNofdref; a socket is garbage once neither user nor machine has it
//	globals                   Kernel; there are as many stacks as one likes
//
// # What is next
//
// This is TCP over IPv4 on the loopback, in the process and out of it, whole. Not there yet, in the order that makes sense:
//
//   - Speed: bench/RESULTS.md says where this stands. Delivery straight into a waiting reader's slice; a second look at
//     what a fresh goroutine's stack still has to grow for.
//   - Accurate ECN (RFC 9768), and a larger segment than the first one if a path's MTU grows beyond the interface's at the beginning (RFC 8899's search).
//   - UDP and ListenPacket; IPv6 (addresses are netip.Addr, in tables in6Addr; ::1 is reserved; what is missing is wire, ICMPv6 and the dual-stack listener);
//     names by DNS, Happy Eyeballs.
package kern
