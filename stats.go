package bsdnet

import (
	"net/netip"
	"reflect"

	"bsdnet/internal/kern"
)

// Stats are what a stack has counted since it was made, under BSD's names: "netstat -s", and the
// interfaces of "netstat -i". Counters are read one after the other while the stack goes on, so
// they may differ by what happens meanwhile.
type Stats struct {
	TCP        TCPStats
	UDP        UDPStats
	IP         IPStats
	ICMP       ICMPStats
	IP6        IP6Stats
	ICMP6      ICMP6Stats
	DNS        DNSStats
	Interfaces []InterfaceStats // the loopback first
	Memory     MemoryStats
}

// TCPStats are the counters of TCP, under the names of BSD's struct tcpstat. Segments are counted
// as the machine sees them: one that a link with offloads cuts, or has merged, may be many on the
// wire.
type TCPStats struct {
	// Connections.
	Connattempt uint64 // connections begun by dialing
	Accepts     uint64 // connections begun by a peer
	Connects    uint64 // connections established, from either side
	Drops       uint64 // connections dropped after the peer's SYN had arrived
	Conndrops   uint64 // attempts to connect that failed
	Closed      uint64 // connections closed, drops included
	Listendrop  uint64 // SYNs and handshakes without a place on the listener's queue, or memory
	Badsyn      uint64 // SYNs that arrived on a connection, and were challenged (RFC 5961, 4)
	Badrst      uint64 // resets that were in the window, but not at its edge, and were challenged (RFC 5961, 3)
	Challenges  uint64 // challenge ACKs sent (RFC 5961)
	Noport      uint64 // segments for ports at which nobody listens
	Twreuse     uint64 // connections that took the place of one in TIME_WAIT (RFC 6191)
	Twevict     uint64 // connections taken out of TIME_WAIT as there were too many

	// Round trips and timers.
	Segstimed    uint64 // segments of which the round trip was to be measured
	Rttupdated   uint64 // round trips measured
	Delack       uint64 // delayed acknowledgments sent
	Draindrop    uint64 // connections ended while memory was short, as their peers kept their windows closed
	Rexmttimeo   uint64 // retransmission time-outs
	Timeoutdrop  uint64 // connections dropped by a retransmission time-out
	Fastrexmit   uint64 // recoveries begun (RFC 5681, RFC 6675)
	Sndtlp       uint64 // tail loss probes (RFC 8985)
	Sndundo      uint64 // reductions of the window taken back (RFC 3522, RFC 5682)
	Sackreneged  uint64 // selective acknowledgments that the peer has taken back (RFC 2018, 8)
	Persisttimeo uint64 // time-outs of the persist timer
	Persistdrop  uint64 // connections dropped while the peer's window was closed
	Keeptimeo    uint64 // time-outs of the keep-alive timer
	Keepprobe    uint64 // keep-alive probes sent
	Keepdrops    uint64 // connections dropped by the keep-alive timer

	// Segments sent.
	Sndtotal      uint64 // all
	Sndpack       uint64 // with data that was new
	Sndbyte       uint64 // bytes of such data
	Sndrexmitpack uint64 // with data that was sent again
	Sndrexmitbyte uint64 // bytes of such data
	Sndacks       uint64 // acknowledgments alone
	Sndprobe      uint64 // window probes
	Sndctrl       uint64 // SYN, FIN or RST alone, and what is sent for half-open connections

	// Segments received.
	Rcvtotal        uint64 // all
	Rcvpack         uint64 // with data in order
	Rcvbyte         uint64 // bytes of such data
	Rcvbadsum       uint64 // with a bad checksum
	Rcvbadoff       uint64 // with a bad header length
	Rcvduppack      uint64 // with data that had all arrived before
	Rcvdupbyte      uint64 // bytes of such data
	Rcvpartduppack  uint64 // with data of which a part had arrived before
	Rcvpartdupbyte  uint64 // bytes of that part
	Rcvoopack       uint64 // with data out of order
	Rcvoobyte       uint64 // bytes of such data
	Rcvpackafterwin uint64 // with data beyond the window
	Rcvbyteafterwin uint64 // bytes of such data
	Rcvafterclose   uint64 // with data for a connection that its user had closed
	Rcvwinprobe     uint64 // window probes
	Rcvdupack       uint64 // duplicate acknowledgments
	Rcvdsack        uint64 // reports of duplicates (RFC 2883)
	Rcvacktoomuch   uint64 // acknowledgments of what had not been sent
	Rcvacktooold    uint64 // acknowledgments that were too old to be the peer's (RFC 5961, 5)
	Rcvackpack      uint64 // acknowledgments of something new
	Rcvackbyte      uint64 // bytes that they acknowledged
	Rcvwinupd       uint64 // window updates
	Rcvmemdrop      uint64 // with data for which there was no memory, or which was too far ahead
	Pawsdrop        uint64 // dropped as their timestamp was old (RFC 7323, 5)
	Predack         uint64 // acknowledgments that header prediction dealt with
	Preddat         uint64 // with data that header prediction dealt with

	// Handshakes of connections that peers begin: the SYN cache.
	ScAdded          uint64 // entries made
	ScRetransmitted  uint64 // SYN,ACKs sent again
	ScDupsyn         uint64 // SYNs that came again
	ScCompleted      uint64 // handshakes completed
	ScBucketoverflow uint64 // entries that gave way to newer ones
	ScReset          uint64 // handshakes that the peer reset
	ScStale          uint64 // entries that timed out
	ScAborted        uint64 // handshakes that could not become a connection
	ScBadack         uint64 // acknowledgments that did not fit an entry
	ScUnreach        uint64 // handshakes that ICMP errors ended
	ScSendcookie     uint64 // SYN cookies sent
	ScRecvcookie     uint64 // SYN cookies that came back
}

// UDPStats are the counters of UDP, under the names of BSD's struct udpstat.
type UDPStats struct {
	Ipackets    uint64 // datagrams received
	Hdrops      uint64 // packets that were shorter than a header
	Badsum      uint64 // with a bad checksum, or with none over IPv6
	Nosum       uint64 // with no checksum, over IPv4, where that is allowed
	Badlen      uint64 // with a length field that contradicts the packet
	Noport      uint64 // for ports that no socket has
	Noportmcast uint64 // those of them that were sent to a multicast or broadcast address
	Fullsock    uint64 // dropped because the socket's queue was full, or memory short
	Opackets    uint64 // datagrams sent
}

// IPStats are the counters of IP, under the names of BSD's struct ipstat.
type IPStats struct {
	// Packets received.
	Total       uint64 // all
	Badsum      uint64 // with a bad checksum
	Tooshort    uint64 // shorter than their header
	Badlen      uint64 // with an impossible total length
	Badvers     uint64 // of another version than 4
	Badoptions  uint64 // with source routes
	Badaddr     uint64 // with source addresses that no host has
	Cantforward uint64 // for other hosts, if the stack does not forward them, or may not
	Fragments   uint64 // fragments
	Fragdropped uint64 // fragments dropped
	Fragtimeout uint64 // packets of which not all fragments came in time
	Reassembled uint64 // packets put together
	Delivered   uint64 // handed to a protocol
	Noproto     uint64 // for a protocol that the stack does not have
	Fullsock    uint64 // for a raw socket, or a ping socket, whose buffer was full

	// Packets sent.
	Localout   uint64 // all
	Noroute    uint64 // without a route
	Fragmented uint64 // cut into fragments
	Ofragments uint64 // fragments made

	// Packets forwarded.
	Forward  uint64 // all
	Cantfrag uint64 // packets not forwarded because they were too long and may not be cut
	Odropped uint64 // packets and fragments lost to a full queue
}

// ICMPStats are the counters of ICMP, under the names of BSD's struct icmpstat.
type ICMPStats struct {
	Error      uint64 // errors sent
	Limited    uint64 // errors not sent, to keep to a rate
	Reflect    uint64 // echoes answered
	Tooshort   uint64 // messages received that were too short
	Checksum   uint64 // with a bad checksum
	Badlen     uint64 // with a quoted packet that was too short
	Bmcastecho uint64 // echo requests to more than one host, not answered
	Inerror    uint64 // errors received
}

// IP6Stats are the counters of IPv6, under the names of FreeBSD's struct ip6stat. Those that IP
// also has are named as there.
type IP6Stats struct {
	// Packets received.
	Total       uint64 // all
	Tooshort    uint64 // shorter than their headers
	Badlen      uint64 // with a payload length beyond the packet
	Badoptions  uint64 // with options or headers that have them discarded
	Badaddr     uint64 // with addresses that no packet on a link may have
	Toomanyhdr  uint64 // with more extension headers, or longer ones, than a packet has a use for
	Notmember   uint64 // for groups that the stack has not joined
	Cantforward uint64 // for other hosts, if the stack does not forward them, or may not
	Fragments   uint64 // fragments
	Fragdropped uint64 // fragments dropped
	Fragtimeout uint64 // packets of which not all fragments came in time
	Reassembled uint64 // packets put together
	Delivered   uint64 // handed to a protocol
	Noproto     uint64 // for a protocol that the stack does not have
	Fullsock    uint64 // for a raw socket, or a ping socket, whose buffer was full

	// Packets sent.
	Localout   uint64 // all
	Noroute    uint64 // without a route
	Fragmented uint64 // cut into fragments
	Ofragments uint64 // fragments made

	// Packets forwarded.
	Forward  uint64 // all
	Cantfrag uint64 // packets not forwarded because they were too long
	Odropped uint64 // packets lost to a full queue
}

// ICMP6Stats are the counters of ICMPv6, under the names of FreeBSD's struct icmp6stat.
type ICMP6Stats struct {
	Error     uint64 // errors sent
	Canterror uint64 // errors not sent, as none may be sent about such a packet (RFC 4443, 2.4)
	Toofreq   uint64 // errors, and echoes to groups, not sent, to keep to a rate
	Reflect   uint64 // echoes answered
	Tooshort  uint64 // messages received that were too short
	Checksum  uint64 // with a bad checksum
	Badlen    uint64 // with a quoted packet that was too short
	Badpmtu   uint64 // Packet Too Big with an MTU that no link may have (RFC 8201, 4)
	Inerror   uint64 // errors received
}

// InterfaceStats are the state and the counters of an interface. A packet that an [OffloadLink]
// takes or brings whole, or that the loopback carries whole, counts as one.
type InterfaceStats struct {
	Name  string         // "lo0", or "if" and a number in the order of attachment
	Link  Link           // what was attached; nil: the loopback
	MTU   int            // largest packet, bytes
	Up    bool           // it works; else [Stack.LinkErr] says why not
	Addrs []netip.Prefix // its addresses, with their networks

	PacketsIn, PacketsOut uint64
	BytesIn, BytesOut     uint64 // of IP packets
	ErrorsIn, ErrorsOut   uint64 // packets too short for an IP header; packets lost to an error of the link
	DropsOut              uint64 // packets for which there was no room on the queue, or no link

	// Captured and CaptureDrops count the packets of the capture that is under way
	// ([Stack.Capture]): those that it has taken, and those that it has dropped because its writer
	// was too slow.
	Captured, CaptureDrops uint64
}

// MemoryStats tell what a stack's buffers hold.
type MemoryStats struct {
	Buffers int64 // how many are in use
	Bytes   int64 // what they take
	Limit   int64 // bytes from which on memory is short: thirteen sixteenths of Config.Memory
}

// DNSStats are the counters of the look-ups of names, by [Stack.Resolver] too.
type DNSStats struct {
	Queries   uint64 // sent to servers, those over TCP included
	Answers   uint64 // taken, those over TCP included
	Timeouts  uint64 // queries to which no answer has come in time
	Truncated uint64 // answers over UDP that were asked for again over TCP
	Ignored   uint64 // datagrams that were no answer to the query: forged, or late
}

// Stats returns the stack's counters.
func (s *Stack) Stats() Stats {
	var st Stats
	loadCounters(&st.TCP, &s.k.Stats.TCP)
	loadCounters(&st.UDP, &s.k.Stats.UDP)
	loadCounters(&st.IP, &s.k.Stats.IP)
	loadCounters(&st.ICMP, &s.k.Stats.ICMP)
	loadCounters(&st.IP6, &s.k.Stats.IP6)
	loadCounters(&st.ICMP6, &s.k.Stats.ICMP6)
	for _, ifp := range s.k.Ifs() {
		c := ifp.Counts()
		i := InterfaceStats{
			Name: ifp.Name, MTU: ifp.MTU(), Up: ifp.Up(), Addrs: append([]netip.Prefix(nil), ifp.Prefixes()...),
			PacketsIn: c.Ipackets, PacketsOut: c.Opackets, BytesIn: c.Ibytes, BytesOut: c.Obytes,
			ErrorsIn: c.Ierrors, ErrorsOut: c.Oerrors, DropsOut: c.Odrops,
			Captured: c.Bpfrecv, CaptureDrops: c.Bpfdrop,
		}
		i.Link, _ = ifp.Link().(Link)
		st.Interfaces = append(st.Interfaces, i)
	}
	c := &s.names.Stats
	st.DNS = DNSStats{
		Queries: c.Queries.Load(), Answers: c.Answers.Load(), Timeouts: c.Timeouts.Load(),
		Truncated: c.Truncated.Load(), Ignored: c.Ignored.Load(),
	}
	st.Memory.Buffers, st.Memory.Bytes = s.k.Pool().Outstanding()
	st.Memory.Limit = s.k.Pool().Limit()
	return st
}

// loadCounters reads into each field of one struct the counter of the same name in another. A
// test asserts that there is one.
func loadCounters(to, from any) {
	t, f := reflect.ValueOf(to).Elem(), reflect.ValueOf(from).Elem()
	for i := range t.NumField() {
		c := f.FieldByName(t.Type().Field(i).Name).Addr().Interface().(*kern.Counter)
		t.Field(i).SetUint(c.Load())
	}
}
