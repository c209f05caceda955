package netem

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"bsdnet"
	"bsdnet/internal/link"
)

// An Impairment says what happens to the packets of one direction. The zero Impairment does nothing
// to them.
//
// A packet first waits in the queue for the line (Rate, Queue). Then it is sent, and then it may be
// lost (Loss, Burst), duplicated, corrupted and delayed. A packet that is lost on the line has used
// the line's bandwidth; a packet that the queue drops has not.
//
// Each probability is between 0 and 1 and applies to each packet separately. The draws of a packet
// depend on Path.Seed (of a port or trunk, SwitchConfig.Seed and its name), the direction, the
// packet's flow, and how many packets of that flow came before it. They do not depend on other
// flows. A flow is all packets that have the same protocol, source address, destination address
// and, in TCP and UDP, source and destination port, so the two directions of a connection are two
// flows. All packets that are not IP form one flow. The 8192 most recently used flows are
// remembered.
type Impairment struct {
	// Loss is the probability that a packet is lost.
	Loss float64

	// Burst loses packets in bursts, in addition to Loss. If it is nil, there are no bursts.
	Burst *BurstLoss

	// Duplicate is the probability that a packet arrives twice. The copy is never corrupted or
	// reordered. It arrives directly behind the place that the packet has in its flow.
	Duplicate float64

	// Corrupt is the probability that one bit, anywhere in the packet, is flipped.
	Corrupt float64

	// Reorder is the probability that a packet is held back for an additional ReorderDelay. Packets
	// that are sent within that time overtake it.
	Reorder float64

	// ReorderDelay is how long a reordered packet is held back, from 0 to 24 hours. If it is 0, it
	// is 1 ms.
	ReorderDelay time.Duration

	// Delay is how long a packet is on the line, from 0 to 24 hours.
	Delay time.Duration

	// Jitter is the largest additional delay, from 0 to 24 hours. Each packet draws its own,
	// uniformly between 0 and Jitter. Jitter does not reorder a flow: a packet behind a late packet
	// is late too.
	Jitter time.Duration

	// Rate is the line's speed in bits per second, at least 1000. Only the bytes of IP packets
	// count, without any framing. If it is 0, sending takes no time.
	Rate int64

	// Queue is how many bytes may wait for a line that has a Rate: from the link's MTU to 2^30. The
	// part of the current packet that has not been sent yet counts as waiting. A packet that does
	// not fit is dropped. If it is 0, the queue holds what the line sends in 100 ms, but at least
	// two packets of the MTU.
	Queue int

	// Limit is how many packets may be on their way, whether they wait, are being sent or are on
	// the line: from 1 to 1048576. Further packets are dropped. If it is 0, it is 65536.
	Limit int
}

// BurstLoss is the loss model of Gilbert (Capacity of a Burst-Noise Channel, 1960) and Elliott
// (Estimates of Error Rates for Codes on Burst-Noise Channels, 1963). It has a good and a bad
// state, and loses packets in the bad state. Each flow has its own state, which is good at first
// and may change before each packet of the flow. A burst lasts 1/PLeave packets on average, and
// PEnter/(PEnter+PLeave) of all packets meet the bad state.
type BurstLoss struct {
	// PEnter is the probability that the state changes from good to bad.
	PEnter float64

	// PLeave is the probability that the state changes from bad to good. It must be above 0 if
	// PEnter is.
	PLeave float64

	// LossInBad is the probability that a packet is lost in the bad state. If it is 0, it is 1.
	LossInBad float64
}

// A Path says what happens to packets on their way through [Impair]. The zero Path only gives them
// an order that is the same in every run: see [Impaired].
type Path struct {
	// Write is what happens to the packets that the stack writes.
	Write Impairment

	// Read is what happens to the packets that the stack reads. If both are set, one wrapped end
	// impairs both directions of the path.
	Read Impairment

	// Seed determines all random choices. Two runs with the same seed and the same packets have the
	// same result.
	Seed uint64
}

// Counts are the counters of the packets of one direction. When no packet is on its way, Packets +
// Duplicated = Lost + Cut + Filtered + Dropped + Delivered.
type Counts struct {
	Packets    uint64 // written by the stack, or read from the wrapped link
	Lost       uint64 // lost on the line, by Loss or Burst
	Cut        uint64 // lost because the line was cut
	Filtered   uint64 // dropped by a script
	Duplicated uint64 // copies made, by Duplicate or a script
	Corrupted  uint64
	Reordered  uint64 // held back, by Reorder or a script
	Dropped    uint64 // dropped by Queue or Limit, too large for the link, or refused by it
	Delivered  uint64
}

// Stats are the counters of an [Impaired] link.
type Stats struct {
	Write, Read Counts
}

// An Impaired is a bsdnet.Link that wraps another link and impairs the packets that are written and
// read through it. [Impair] makes one.
//
// Like a network, it takes all packets at once and drops those for which it has no room; its Write
// never takes less than it is given. While the wrapped link is full, or nobody reads, packets wait,
// up to Limit.
//
// At most one packet leaves per instant, that is, per nanosecond, counting both directions, and it
// leaves at least 1 ns after it has come. If several packets come at the same instant, they leave
// in the order of their flows (protocol, addresses, ports), and the packets of one flow in their
// own order. So in a testing/synctest bubble every run treats the packets in the same way at the
// same times, even if several goroutines write at the same instant. The zero Path does this and
// nothing else. Two separate Impaired links may deliver packets at the same instant. If it matters
// which of them is first, give them different delays.
type Impaired struct {
	inner bsdnet.Link
	write func(pkts []net.Buffers) (int, error) // inner's Write, or that of its first queue
	mtu   int
	state link.State

	sched  scheduler
	ways   ways
	out    line          // from Write to inner.Write
	in     line          // from inner.Read to rx
	vecs   []net.Buffers // for out.deliver
	broken atomic.Bool   // inner breaks its contract, or another goroutine has closed it

	rx queue // what Read reads

	mu    sync.Mutex // guards Start, changes of state, and pumps
	ended sync.Cond  // signals that pumps has fallen
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

// Impair wraps inner, which may be any bsdnet.Link that has not been started. From then on inner
// belongs to the Impaired: attach the Impaired instead. If inner is a bsdnet.QueueLink, the
// Impaired reads all its queues and writes to queue 0. It does not use the offloads of a
// bsdnet.OffloadLink.
//
// If inner is nil, or a nil pointer, or its MTU is not within 1..65535, or a field of path is out
// of range, Impair returns an error that names the field, and inner still belongs to the caller.
func Impair(inner bsdnet.Link, path Path) (*Impaired, error) {
	if inner == nil {
		return nil, errNilLink
	}
	if v := reflect.ValueOf(inner); v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, fmt.Errorf("%w %T", errNilLink, inner)
	}
	mtu := inner.MTU()
	if mtu < 1 || mtu > link.MaxPacket {
		return nil, fmt.Errorf("netem: impair: the link's MTU %d is not within 1..%d", mtu, link.MaxPacket)
	}
	im := &Impaired{inner: inner, mtu: mtu, vecs: make([]net.Buffers, batchLen), write: inner.Write}
	im.ways = ways{sched: &im.sched, out: &im.out, in: &im.in, mtu: mtu, where: "netem: impair"}
	if err := im.ways.complete(&path); err != nil {
		return nil, err
	}
	im.ways.path = path
	if m, ok := inner.(bsdnet.QueueLink); ok && m.Queues() > 1 {
		im.write = func(pkts []net.Buffers) (int, error) { return m.WriteQueue(0, pkts) }
	}
	im.ended.L = &im.mu
	im.rx.init(defaultQueue)
	// The directions use different seeds. An IP flow has another key on its way back anyway, but
	// packets that are not IP have the same key both ways.
	im.out.model = newModel(&path.Write, mix(path.Seed))
	im.in.model = newModel(&path.Read, mix(^path.Seed))
	im.out.deliver = im.deliverOut
	im.in.deliver = im.deliverIn
	im.sched.init(&im.out, &im.in)
	return im, nil
}

// complete checks an Impairment for a link with an MTU, and fills in the defaults. Its errors begin
// with the name of a field.
func (imp *Impairment) complete(mtu int) error {
	type field[T any] struct {
		name  string
		value T
	}
	probabilities := []field[float64]{{"Loss", imp.Loss}, {"Duplicate", imp.Duplicate}, {"Corrupt", imp.Corrupt},
		{"Reorder", imp.Reorder}}
	if imp.Burst != nil {
		burst := *imp.Burst // a copy: the caller's BurstLoss is not changed
		imp.Burst = &burst
		probabilities = append(probabilities, field[float64]{"Burst.PEnter", burst.PEnter},
			field[float64]{"Burst.PLeave", burst.PLeave}, field[float64]{"Burst.LossInBad", burst.LossInBad})
	}
	for _, p := range probabilities {
		if !(p.value >= 0 && p.value <= 1) { // also catches NaN
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
			return errors.New("Burst.PLeave: 0, with a PEnter above 0, would never end a burst; set PLeave above 0")
		}
		if imp.Burst.LossInBad == 0 {
			imp.Burst.LossInBad = 1
		}
	}
	return imp.completeLine(mtu)
}

// completeLine checks Limit, Rate and Queue, and fills in their defaults.
func (imp *Impairment) completeLine(mtu int) error {
	if imp.Limit == 0 {
		imp.Limit = defaultLimit
	}
	if imp.Limit < 1 || imp.Limit > maxLimit {
		return fmt.Errorf("Limit: %d is not within 1..%d packets", imp.Limit, maxLimit)
	}
	if imp.Rate == 0 {
		if imp.Queue != 0 {
			return errors.New("Queue: needs a Rate; set Rate, or leave Queue out")
		}
		return nil
	}
	if imp.Rate < minRate {
		return fmt.Errorf("Rate: %d is below %d bits per second", imp.Rate, minRate)
	}
	if imp.Queue == 0 {
		imp.Queue = int(min(max(imp.Rate/8/10, int64(2*mtu)), maxRateQueue))
	}
	if imp.Queue < mtu || imp.Queue > maxRateQueue {
		return fmt.Errorf("Queue: %d is not within %d (the MTU)..%d bytes", imp.Queue, mtu, maxRateQueue)
	}
	return nil
}

// MTU returns the MTU of the wrapped link.
func (im *Impaired) MTU() int { return im.mtu }

// Start implements bsdnet.Link. It starts the wrapped link. It never calls ready, because Write
// never takes less than it is given.
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
	submit(&im.sched, &im.out, pkts, im.mtu)
	return len(pkts), nil
}

// submit passes copies of packets to a line with a model. It drops and counts packets that are
// empty or larger than mtu.
func submit(s *scheduler, l *line, pkts []net.Buffers, mtu int) {
	var batch [batchLen]*packet
	unfit := 0
	for done := 0; done < len(pkts); {
		n := min(len(pkts)-done, len(batch))
		for i, bufs := range pkts[done : done+n] {
			p := copyPacket(bufs, mtu)
			if p != nil {
				p.flow = flowOf(p.data)
			} else {
				unfit++
			}
			batch[i] = p
		}
		s.submit(l, batch[:n])
		done += n
	}
	if unfit > 0 {
		s.mu.Lock()
		l.model.counts.Packets += uint64(unfit)
		l.model.counts.Dropped += uint64(unfit)
		s.mu.Unlock()
	}
}

// Close implements bsdnet.Link. It drops the packets that are on their way, closes the wrapped link
// and returns the error of the wrapped link's Close.
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

// Diagnose implements bsdnet.DiagnosingLink. It asks the wrapped link if that is a DiagnosingLink,
// and returns nil otherwise.
func (im *Impaired) Diagnose(to netip.Addr) error {
	if d, ok := im.inner.(bsdnet.DiagnosingLink); ok {
		return d.Diagnose(to)
	}
	return nil
}

// Stats returns what has happened to the packets so far. The fate of a packet is decided 1 ns after
// the packet has come.
func (im *Impaired) Stats() Stats { return im.ways.stats() }

// deliverOut sends packets on the wrapped link. It returns how many need not be offered again.
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
		// The wrapped link may be written by anyone. If its Write returns the number of bytes, for
		// example, it breaks the contract, and nothing it says can be relied on.
		err = fmt.Errorf("netem: impair: the wrapped link breaks its contract: Write has returned %d of %d packets",
			n, len(pkts))
		n = 0
		im.broken.Store(true)
		im.rx.fail(err)
	}
	gone := n
	if err != nil {
		// bsdnet.Link says that packets that could not be sent are dropped.
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

// checkRead returns an error if the wrapped link's Read has returned something that the contract of
// bsdnet.Link does not allow.
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

// pump reads from the wrapped link, or from one of its queues, until the link is closed.
func (im *Impaired) pump(read func(bufs [][]byte, sizes []int) (int, error)) {
	// Each buffer is as large as the MTU. If the MTU is large there are fewer of them.
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
			// Read returns the packets that have arrived before it returns the error.
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
