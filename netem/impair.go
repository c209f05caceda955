package netem

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"bsdnet"
	"bsdnet/internal/link"
)

// An Impairment says what happens to the packets of one direction. The zero Impairment does nothing to them.
//
// A packet first waits in the queue for the line (Rate, Queue), then it is sent, and then it may be lost (Loss, Burst),
// duplicated, changed and delayed. What is lost on the line has used its bandwidth, what the queue drops has not.
//
// Each probability is within 0..1 and holds for each packet on its own. The draws of a packet depend upon
// Path.Seed, the direction, the packet's flow, and how many packets the flow has had before; not on what other
// flows do. A flow is what has the same protocol, addresses and, in TCP and UDP, ports; source and destination are not
// exchanged. Whatever is not IP is one flow. The 8192 flows that were used last are remembered.
type Impairment struct {
	// Loss is the probability that a packet is lost.
	Loss float64

	// Burst loses packets in bursts, in addition to Loss. nil does not.
	Burst *BurstLoss

	// Duplicate is the probability that a packet arrives twice. The copy is never corrupted or reordered; it arrives
	// right behind the place that the packet has in its flow.
	Duplicate float64

	// Corrupt is the probability that one bit of a packet, anywhere in it, is flipped.
	Corrupt float64

	// Reorder is the probability that a packet is held back for another ReorderDelay, while those behind it go on: what is
	// sent within that time overtakes it.
	Reorder float64

	// ReorderDelay is how long a reordered packet is held back, 0 to 24 hours. 0 is 1 ms.
	ReorderDelay time.Duration

	// Delay is how long a packet is on the line, 0 to 24 hours.
	Delay time.Duration

	// Jitter is the most by which a packet is delayed longer, 0 to 24 hours, uniformly distributed from 0 on. It keeps
	// the order of the packets of a flow: one behind a late one is late too.
	Jitter time.Duration

	// Rate is how many bits a second the line sends, 1000 or more, counting IP packets without any framing. 0 sends
	// in no time.
	Rate int64

	// Queue is how many bytes may wait for a line with a Rate, the packet that is being sent included as far as it is not
	// sent yet. A packet that does not fit is dropped. At least the MTU of the link, at most 2^30. 0 is 100 ms at
	// Rate, but two packets of the MTU at least.
	Queue int

	// Limit is how many packets are on their way at most, waiting, being sent and on the line, 1 to 1048576. Further
	// ones are dropped. 0 is 65536.
	Limit int
}

// BurstLoss is the loss model of Gilbert (Capacity of a Burst-Noise Channel, 1960) and Elliott (Estimates of Error Rates
// for Codes on Burst-Noise Channels, 1963): a good and a bad state, and loss in the bad one. Each flow has a state of its
// own, good to begin with, which may change before each of its packets. A burst lasts 1/PLeave packets on average, and
// PEnter/(PEnter+PLeave) of all packets meet the bad state.
type BurstLoss struct {
	// PEnter is the probability that the state changes from good to bad.
	PEnter float64

	// PLeave is the probability that the state changes from bad to good. It is above 0.
	PLeave float64

	// LossInBad is the probability that a packet is lost in the bad state. 0 is 1.
	LossInBad float64
}

// A Path says what happens to packets on their way through [Impair]. The zero Path only puts them in an order that repeats: see [Impaired].
type Path struct {
	// Write is what happens to the packets that are written.
	Write Impairment

	// Read is what happens to the packets that are read. With both, one wrapped end impairs a whole path.
	Read Impairment

	// Seed selects what chance does. Two runs with one seed and the same packets go the same way.
	Seed uint64
}

// Counts are of the packets of one direction. When nothing is on its way, Packets and Duplicated together are Lost,
// Dropped and Delivered together.
type Counts struct {
	Packets    uint64 // handed over
	Lost       uint64 // on the line, by Loss or Burst
	Duplicated uint64
	Corrupted  uint64
	Reordered  uint64 // held back
	Dropped    uint64 // by Queue or Limit, or too large for the link or refused by it
	Delivered  uint64
}

// Stats are the counts of an [Impaired] link.
type Stats struct {
	Write, Read Counts
}

// An Impaired is a bsdnet.Link around another, which impairs what is written through it and what is read from it. [Impair] makes one.
//
// Like a network it takes all packets at once and drops those for which it has no room; its Write is never cut short. When
// the wrapped link is full, or nobody reads, packets wait within Limit.
//
// Packets leave one an instant, at least 1 ns apart, counting both directions, and at the earliest 1 ns after they have
// come. Of those that come at one instant the flows go in the order of their protocols, addresses and ports, and each
// flow in its own order. So in a testing/synctest bubble all that happens to packets, and when, is the same in every run,
// even if goroutines write at the same instant in any order; a zero configuration does this and nothing else. Two links
// that are impaired apart share no instants: if it matters which of them comes first, give them different delays.
type Impaired struct {
	inner bsdnet.Link
	write func(pkts []net.Buffers) (int, error) // of inner, or of its first queue
	mtu   int
	state link.State

	sched  scheduler
	out    line          // from Write to inner.Write
	in     line          // from inner.Read to rx
	vecs   []net.Buffers // for out.deliver
	broken atomic.Bool   // inner was closed by somebody else

	rx queue // what Read reads

	mu    sync.Mutex // over Start and the state
	ended sync.Cond  // pumps has fallen
	pumps int        // goroutines that read from the wrapped link, one for each of its queues
}

var _ bsdnet.DiagnosingLink = (*Impaired)(nil)

// The defaults and bounds of an Impairment.
const (
	defaultLimit        = 65536
	maxLimit            = 1 << 20
	defaultReorderDelay = time.Millisecond
	minRate             = 1000
	maxRateQueue        = 1 << 30
)

// Impair wraps inner, which is any bsdnet.Link that has not been started, and belongs to the Impaired from now on: attach that instead. Of a
// bsdnet.QueueLink all queues are read, and queue 0 is written to; the offloads of a bsdnet.OffloadLink are not used. The error says what is wrong with
// path, and then inner is still the caller's.
func Impair(inner bsdnet.Link, path Path) (*Impaired, error) {
	if inner == nil {
		return nil, errors.New("netem: impair: the link is nil")
	}
	mtu := inner.MTU()
	if mtu < 1 || mtu > link.MaxPacket {
		return nil, fmt.Errorf("netem: impair: the link's MTU %d is not within 1..%d", mtu, link.MaxPacket)
	}
	if err := path.Write.complete(mtu); err != nil {
		return nil, fmt.Errorf("netem: impair: Write.%w", err)
	}
	if err := path.Read.complete(mtu); err != nil {
		return nil, fmt.Errorf("netem: impair: Read.%w", err)
	}
	im := &Impaired{inner: inner, mtu: mtu, vecs: make([]net.Buffers, batchLen), write: inner.Write}
	if m, ok := inner.(bsdnet.QueueLink); ok && m.Queues() > 1 {
		im.write = func(pkts []net.Buffers) (int, error) { return m.WriteQueue(0, pkts) }
	}
	im.ended.L = &im.mu
	im.rx.init(defaultQueue)
	// The directions draw from different numbers: a flow has another key on its way back, but what is not IP has not.
	im.out.model = newModel(&path.Write, mix(path.Seed))
	im.in.model = newModel(&path.Read, mix(^path.Seed))
	im.out.deliver = im.deliverOut
	im.in.deliver = im.deliverIn
	im.sched.init(&im.out, &im.in)
	return im, nil
}

// complete checks an Impairment and puts the defaults in. Its errors begin with the name of a field.
func (imp *Impairment) complete(mtu int) error {
	type field[T any] struct {
		name  string
		value T
	}
	probabilities := []field[float64]{{"Loss", imp.Loss}, {"Duplicate", imp.Duplicate}, {"Corrupt", imp.Corrupt},
		{"Reorder", imp.Reorder}}
	if imp.Burst != nil {
		burst := *imp.Burst // the caller's stays as it is
		imp.Burst = &burst
		probabilities = append(probabilities, field[float64]{"Burst.PEnter", burst.PEnter},
			field[float64]{"Burst.PLeave", burst.PLeave}, field[float64]{"Burst.LossInBad", burst.LossInBad})
	}
	for _, p := range probabilities {
		if !(p.value >= 0 && p.value <= 1) { // nor NaN
			return fmt.Errorf("%s: %v is not a probability within 0..1", p.name, p.value)
		}
	}
	for _, d := range []field[time.Duration]{{"Delay", imp.Delay}, {"Jitter", imp.Jitter},
		{"ReorderDelay", imp.ReorderDelay}} {
		if d.value < 0 || d.value > maxDelay {
			return fmt.Errorf("%s: %v is not within 0..%v", d.name, d.value, maxDelay)
		}
	}
	if imp.ReorderDelay == 0 {
		imp.ReorderDelay = defaultReorderDelay
	}
	if imp.Burst != nil {
		if imp.Burst.PEnter > 0 && imp.Burst.PLeave == 0 {
			return errors.New("Burst.PLeave: 0, with a PEnter of more, never ends a burst")
		}
		if imp.Burst.LossInBad == 0 {
			imp.Burst.LossInBad = 1
		}
	}
	if imp.Limit == 0 {
		imp.Limit = defaultLimit
	}
	if imp.Limit < 1 || imp.Limit > maxLimit {
		return fmt.Errorf("Limit: %d is not within 1..%d packets", imp.Limit, maxLimit)
	}
	if imp.Rate == 0 {
		if imp.Queue != 0 {
			return errors.New("Queue: needs a Rate")
		}
		return nil
	}
	if imp.Rate < minRate {
		return fmt.Errorf("Rate: %d is below %d bits a second", imp.Rate, minRate)
	}
	if imp.Queue == 0 {
		imp.Queue = int(min(max(imp.Rate/8/10, int64(2*mtu)), maxRateQueue))
	}
	if imp.Queue < mtu || imp.Queue > maxRateQueue {
		return fmt.Errorf("Queue: %d is not within %d (the MTU)..%d bytes", imp.Queue, mtu, maxRateQueue)
	}
	return nil
}

// MTU returns that of the wrapped link.
func (im *Impaired) MTU() int { return im.mtu }

// Start implements bsdnet.Link. It starts the wrapped link. ready is never called, since Write is never cut short.
func (im *Impaired) Start(ready func()) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	if err := im.state.StartError("netem", ready); err != nil {
		return err
	}
	if err := im.inner.Start(func() { im.sched.unblock(&im.out) }); err != nil {
		return err
	}
	im.state.Store(link.Started)
	if m, ok := im.inner.(bsdnet.QueueLink); ok && m.Queues() > 1 {
		im.pumps = m.Queues()
		for q := range im.pumps {
			go im.pump(func(bufs [][]byte, sizes []int) (int, error) { return m.ReadQueue(q, bufs, sizes) })
		}
		return nil
	}
	im.pumps = 1
	go im.pump(im.inner.Read)
	return nil
}

// Read implements bsdnet.Link.
func (im *Impaired) Read(bufs [][]byte, sizes []int) (int, error) {
	if err := im.state.IOError("netem"); err != nil || len(bufs) == 0 || len(sizes) == 0 {
		return 0, err
	}
	for {
		n, room, err := im.rx.read(bufs, sizes)
		if room {
			im.sched.unblock(&im.in)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements bsdnet.Link. It takes all packets.
func (im *Impaired) Write(pkts []net.Buffers) (int, error) {
	if err := im.state.IOError("netem"); err != nil {
		return 0, err
	}
	if im.broken.Load() {
		return 0, net.ErrClosed
	}
	var batch [batchLen]*packet
	unfit := 0
	for done := 0; done < len(pkts); {
		n := min(len(pkts)-done, len(batch))
		for i, bufs := range pkts[done : done+n] {
			p := copyPacket(bufs, im.mtu)
			if p != nil {
				p.flow = flowOf(p.data)
			} else {
				unfit++
			}
			batch[i] = p
		}
		im.sched.submit(&im.out, batch[:n])
		done += n
	}
	if unfit > 0 {
		im.sched.mu.Lock()
		im.out.model.counts.Packets += uint64(unfit)
		im.out.model.counts.Dropped += uint64(unfit)
		im.sched.mu.Unlock()
	}
	return len(pkts), nil
}

// Close implements bsdnet.Link. It closes the wrapped link and returns what its Close returns. What is on its way is dropped.
func (im *Impaired) Close() error {
	im.mu.Lock()
	was := im.state.Swap(link.Closed)
	im.mu.Unlock()
	if was == link.Closed {
		return net.ErrClosed
	}
	im.sched.drop(&im.out, &im.in)
	im.rx.close()
	err := im.inner.Close()
	im.mu.Lock()
	for im.pumps > 0 {
		im.ended.Wait()
	}
	im.mu.Unlock()
	return err
}

// Diagnose implements bsdnet.DiagnosingLink: it asks the wrapped link, if that is one.
func (im *Impaired) Diagnose(to netip.Addr) error {
	if d, ok := im.inner.(bsdnet.DiagnosingLink); ok {
		return d.Diagnose(to)
	}
	return nil
}

// Stats returns what has happened to the packets so far. The fate of a packet is settled 1 ns after it has come.
func (im *Impaired) Stats() Stats {
	im.sched.mu.Lock()
	defer im.sched.mu.Unlock()
	return Stats{Write: im.out.model.counts, Read: im.in.model.counts}
}

// deliverOut sends packets on the wrapped link.
func (im *Impaired) deliverOut(pkts []*packet) int {
	for i, p := range pkts {
		im.vecs[i] = append(im.vecs[i][:0], p.data)
	}
	vecs := im.vecs[:len(pkts)]
	n, err := im.write(vecs)
	for i := range vecs {
		clear(vecs[i])
	}
	if n < 0 || n > len(pkts) {
		// The wrapped link may be anybody's. One that returns bytes, say, has broken the contract, and is broken.
		err = fmt.Errorf("netem: impair: the wrapped link breaks its contract: Write has returned %d of %d packets", n, len(pkts))
		n = 0
		im.broken.Store(true)
		im.rx.fail(err)
	}
	gone := n
	if err != nil {
		// The rest is not to be sent again, as after any error of a network.
		gone = len(pkts)
		if errors.Is(err, net.ErrClosed) {
			im.broken.Store(true)
		}
	}
	freeAll(pkts[:gone])
	im.sched.mu.Lock()
	im.out.model.counts.Delivered += uint64(n)
	im.out.model.counts.Dropped += uint64(gone - n)
	im.sched.mu.Unlock()
	return gone
}

// deliverIn hands packets to Read.
func (im *Impaired) deliverIn(pkts []*packet) int {
	n, closed := im.rx.put(pkts, true)
	if closed {
		freeAll(pkts)
		return len(pkts)
	}
	im.sched.mu.Lock()
	im.in.model.counts.Delivered += uint64(n)
	im.sched.mu.Unlock()
	return n
}

// checkRead returns what is wrong with what Read of the wrapped link has returned, which may be anybody's.
func (im *Impaired) checkRead(n int, sizes []int, err error) error {
	const broken = "netem: impair: the wrapped link breaks its contract: Read has returned "
	switch {
	case n < 0 || n > len(sizes):
		return fmt.Errorf(broken+"%d packets for %d buffers", n, len(sizes))
	case n == 0 && err == nil:
		return errors.New(broken + "no packet and no error")
	}
	for _, s := range sizes[:n] {
		if s < 0 || s > im.mtu {
			return fmt.Errorf(broken+"a packet of %d bytes in a buffer of %d", s, im.mtu)
		}
	}
	return nil
}

// pump reads from the wrapped link, or one queue of it, until it is closed.
func (im *Impaired) pump(read func(bufs [][]byte, sizes []int) (int, error)) {
	// A buffer as large as the MTU each, but not megabytes of them.
	n := min(max(1<<18/im.mtu, 4), batchLen)
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, im.mtu)
	}
	sizes := make([]int, n)
	pkts := make([]*packet, n)
	for {
		n, err := read(bufs, sizes)
		if bad := im.checkRead(n, sizes, err); bad != nil {
			n, err = 0, bad
		}
		for i := range n {
			if sizes[i] == 0 {
				continue
			}
			p := newPacket(sizes[i])
			copy(p.data, bufs[i])
			p.flow = flowOf(p.data)
			pkts[i] = p
		}
		im.sched.submit(&im.in, pkts[:n])
		clear(pkts[:n])
		if err != nil {
			// What has arrived is read before the error.
			im.sched.drain(&im.in)
			im.rx.fail(err)
			break
		}
	}
	im.mu.Lock()
	im.pumps--
	im.mu.Unlock()
	im.ended.Broadcast()
}
