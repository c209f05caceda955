package tcp

import "sync/atomic"

// Stats are a stack's TCP counters, as "netstat -s" prints them, under the names of BSD's struct
// tcpstat.
type Stats struct {
	Connattempt, Accepts, Connects, Drops, Conndrops, Closed                       Counter
	Segstimed, Rttupdated, Delack, Timeoutdrop, Rexmttimeo, Persisttimeo           Counter
	Keeptimeo, Keepprobe, Keepdrops, Persistdrop                                   Counter
	Sndtotal, Sndpack, Sndbyte, Sndrexmitpack, Sndrexmitbyte, Sndacks, Sndprobe    Counter
	Sndctrl                                                                        Counter
	Rcvtotal, Rcvpack, Rcvbyte, Rcvbadsum, Rcvbadoff                               Counter
	Rcvduppack, Rcvdupbyte, Rcvpartduppack, Rcvpartdupbyte, Rcvoopack, Rcvoobyte   Counter
	Rcvpackafterwin, Rcvbyteafterwin, Rcvafterclose, Rcvwinprobe                   Counter
	Rcvdupack, Rcvacktoomuch, Rcvacktooold, Rcvackpack, Rcvackbyte, Rcvwinupd      Counter
	Rcvmemdrop, Pawsdrop, Predack, Preddat, Badsyn, Badrst, Listendrop, Challenges Counter
	Draindrop, Noport, Fastrexmit                                                  Counter
	ScAdded, ScRetransmitted, ScDupsyn, ScCompleted, ScBucketoverflow              Counter
	ScReset, ScStale, ScAborted, ScBadack, ScUnreach                               Counter
	ScSendcookie, ScRecvcookie, Twreuse, Twevict                                   Counter
	Rcvdsack, Sndundo, Sackreneged, Sndtlp                                         Counter
}

// A Counter counts events.
type Counter struct{ n atomic.Uint64 }

// Add adds n.
func (c *Counter) Add(n int) { c.n.Add(uint64(n)) }

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Load returns the count.
func (c *Counter) Load() uint64 { return c.n.Load() }
