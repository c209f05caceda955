package bsdnet

import (
	"time"

	"bsdnet/internal/link"
)

// PipeConfig configures a [Pipe].
type PipeConfig struct {
	// MTU is the largest packet in bytes, 68 to 65535. 0: 1500.
	MTU int

	// Queue is how many packets may be on the cable in each direction before the sender has to wait, at most 1048576. 0: 512, or 16384 with a Delay.
	Queue int

	// Delay is the time that a packet takes, at most 24 hours. With a delay packets arrive one at a time, in an order that does not depend on the scheduler.
	Delay time.Duration
}

// Pipe makes a cable: what is written to one end is read from the other, without loss; a full cable holds the sender up. The error says what is
// wrong with the configuration.
func Pipe(c PipeConfig) (a, b Link, err error) {
	x, y, err := link.NewPipe(link.PipeConfig(c))
	if err != nil {
		return nil, nil, err
	}
	return x, y, nil
}

// ImpairConfig configures an [Impair].
type ImpairConfig struct {
	// Write is what happens to packets on their way out, Read to those on their way in. The zero Impairment lets all pass.
	Write, Read Impairment

	// Seed decides the fate of every packet, together with its flow and its number in that flow: a run with the same seed repeats.
	Seed uint64
}

// An Impairment is what a bad link does in one direction. Probabilities are 0 to 1.
type Impairment struct {
	Loss         float64       // probability that a packet is lost
	Burst        *BurstLoss    // loss in bursts, in addition; nil: none
	Duplicate    float64       // probability that a packet comes twice
	Corrupt      float64       // probability that one bit of a packet is flipped
	Reorder      float64       // probability that a packet is held back by ReorderDelay, so that others overtake it
	ReorderDelay time.Duration // 0: 1 ms
	Delay        time.Duration // time that every packet takes
	Jitter       time.Duration // up to so much more, without changing the order in a flow
	Rate         int64         // bits a second, at least 1000; 0: unlimited
	Queue        int           // bytes that wait for the Rate, the rest is lost; 0: 100 ms of it
	Limit        int           // packets under way at most, the rest is lost; 0: 65536
}

// BurstLoss is loss after Gilbert and Elliott: a link has a good and a bad state.
type BurstLoss struct {
	PEnter    float64 // probability, at each packet, of going from good to bad
	PLeave    float64 // probability of going from bad to good, above 0
	LossInBad float64 // probability that a packet is lost in the bad state; 0: 1
}

// ImpairStats counts what an [Impair] has done.
type ImpairStats struct{ Write, Read ImpairCounts }

// ImpairCounts counts packets in one direction. Lost are those that Loss and Burst have taken; Dropped those for which there was no room within Queue or
// Limit, or that the link has not taken.
type ImpairCounts struct {
	Packets, Lost, Duplicated, Corrupted, Reordered, Dropped, Delivered uint64
}

// An ImpairedLink is a [Link] with something wrong with it.
type ImpairedLink struct{ *link.Impair }

// Stats returns what has happened so far.
func (l ImpairedLink) Stats() ImpairStats {
	s := l.Impair.Stats()
	return ImpairStats{ImpairCounts(s.Write), ImpairCounts(s.Read)}
}

// Impair wraps any link, so that packets suffer delay, loss and the like on their way; attach the result instead. Packets arrive one at a time, so
// that in a testing/synctest bubble a run repeats exactly. The error says what is wrong with the configuration.
func Impair(l Link, c ImpairConfig) (ImpairedLink, error) {
	i, err := link.NewImpair(l, link.ImpairConfig{Write: c.Write.internal(), Read: c.Read.internal(), Seed: c.Seed})
	return ImpairedLink{i}, err
}

func (i Impairment) internal() link.Impairment {
	return link.Impairment{
		Loss: i.Loss, Burst: (*link.BurstLoss)(i.Burst), Duplicate: i.Duplicate, Corrupt: i.Corrupt, Reorder: i.Reorder,
		ReorderDelay: i.ReorderDelay, Delay: i.Delay, Jitter: i.Jitter, Rate: i.Rate, Queue: i.Queue, Limit: i.Limit,
	}
}
