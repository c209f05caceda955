//go:build linux

package lab

import (
	"errors"
	"net"
	"sync"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// A relay carries packets over a path between the outsides of two ends.
type relay struct {
	a     *gate           // before A
	b     *gate           // before B, in line
	line  *netem.Impaired // to B
	done  chan struct{}
	pumps sync.WaitGroup
}

// newRelay connects two ends by a path. It takes ownership of the ends, even if it returns an
// error. The function tap sees the packets that A sends and those that A receives.
func newRelay(p *Path, seed uint64, a, b bsdnet.Link, tap func(packet []byte)) (*relay, error) {
	begin := time.Now()
	lose := func(back bool) func([]byte) bool {
		if p.Lose == nil {
			return nil
		}
		return func(packet []byte) bool { return p.Lose(time.Since(begin), back, packet) }
	}
	r := &relay{done: make(chan struct{})}
	r.a, r.b = newGate(a, lose(true), p.Scatter, 2*seed+1), newGate(b, lose(false), p.Scatter, 2*seed)
	way := p.impairment()
	var err error
	r.line, err = netem.Impair(r.b, netem.Path{Write: way, Read: way, Seed: seed})
	if err != nil {
		return nil, errors.Join(err, a.Close(), b.Close())
	}
	roomA, roomB := make(chan struct{}, 1), make(chan struct{}, 1)
	err = r.a.Start(signal(roomA))
	if err == nil {
		err = r.line.Start(signal(roomB))
	}
	if err != nil {
		return nil, errors.Join(err, r.a.Close(), r.line.Close())
	}
	r.pumps.Go(func() { r.pump(r.a, r.line, roomB, tap, nil) })
	r.pumps.Go(func() { r.pump(r.line, r.a, roomA, nil, tap) })
	return r, nil
}

// signal returns the function ready for a link, which never blocks.
func signal(c chan struct{}) func() {
	return func() {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// close closes both ends' links and waits for the goroutines of the path to end.
func (r *relay) close() {
	close(r.done)
	r.a.Close()
	r.line.Close()
	r.pumps.Wait()
}

// batch is the number of packets that a pump reads at once.
const batch = 64

// pump carries packets until a link is closed. The channel room says when the target may take
// packets again.
func (r *relay) pump(from, to bsdnet.Link, room <-chan struct{}, read, written func(packet []byte)) {
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = make([]byte, MTU)
	}
	pkts := make([]net.Buffers, batch)
	for {
		n, err := from.Read(bufs, sizes)
		if err != nil {
			return
		}
		for i := range n {
			packet := bufs[i][:sizes[i]]
			pkts[i] = append(pkts[i][:0], packet)
			if read != nil {
				read(packet)
			}
			if written != nil {
				written(packet)
			}
		}
		for left := pkts[:n]; len(left) > 0; {
			k, err := to.Write(left)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				break // a network loses packets
			}
			if left = left[k:]; len(left) > 0 {
				select {
				case <-room:
				case <-r.done:
					return
				}
			}
		}
	}
}
