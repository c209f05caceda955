package main

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// settings are the times and sizes of a measurement.
type settings struct {
	warm, time time.Duration
	verify     int // bytes that go through before a bulk transfer is timed
	scale      int // divides the number of connections in rows of very many; 1 except in tests
}

// A meter makes one measurement: of one row by one peer in one round. The row gets its connections
// from the meter, starts its goroutines with it, and calls window when they run.
type meter struct {
	settings
	net *network
	cpu io.Writer // gets a CPU profile of the window; nil: none is made

	phase  atomic.Int32
	failed chan struct{} // closed with the first error
	once   sync.Once
	err    error

	mu      sync.Mutex
	closers []io.Closer
	wg      sync.WaitGroup

	sample sample
}

// These are the phases of a measurement.
const (
	warming = iota
	timing
	over
)

// A sample is the result of a measurement.
type sample struct {
	Value float64 `json:"value"` // in the row's unit
	// CPU is in seconds per GB or in microseconds per operation, depending on the row.
	CPU        float64 `json:"cpu"`
	Allocs     float64 `json:"allocs"`      // per operation
	AllocBytes float64 `json:"alloc_bytes"` // per operation
	Others     float64 `json:"others"`      // part of the machine that other programs used, 0 to 1
	// Latency has the percentiles of the time of a round trip, in microseconds, if the row has one.
	Latency []float64          `json:"latency_us,omitempty"`
	Extra   map[string]float64 `json:"extra,omitempty"` // other results of the row, by name and unit
}

func newMeter(n *network, s settings) *meter {
	return &meter{net: n, settings: s, failed: make(chan struct{})}
}

// fail ends the measurement with an error, unless it is over.
func (m *meter) fail(err error) {
	if err == nil || m.phase.Load() == over {
		return
	}
	m.once.Do(func() {
		m.err = err
		close(m.failed)
	})
}

// spawn runs f on a goroutine, for which finish waits.
func (m *meter) spawn(f func() error) {
	m.wg.Go(func() { m.fail(f()) })
}

// keep closes c when the measurement is over.
func (m *meter) keep(c io.Closer) {
	m.mu.Lock()
	m.closers = append(m.closers, c)
	m.mu.Unlock()
}

// listen makes a listener for the measurement.
func (m *meter) listen() (net.Listener, error) {
	ln, err := m.net.listen()
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	m.keep(ln)
	return ln, nil
}

// connect makes n connections, the i-th server belonging to the i-th client.
func (m *meter) connect(n int) (clients, servers []net.Conn, err error) {
	clients, servers = make([]net.Conn, 0, n), make([]net.Conn, 0, n)
	var ln net.Listener
	for i := range n {
		if i%perListener == 0 {
			if ln, err = m.listen(); err != nil {
				return nil, nil, err
			}
		}
		c, err := m.net.dial(ln.Addr().String())
		if err != nil {
			return nil, nil, fmt.Errorf("dial %d of %d: %w", i+1, n, err)
		}
		m.keep(c)
		s, err := ln.Accept()
		if err != nil {
			return nil, nil, fmt.Errorf("accept %d of %d: %w", i+1, n, err)
		}
		m.keep(s)
		clients, servers = append(clients, c), append(servers, s)
	}
	runtime.GC() // later it would share the processors with the row
	return clients, servers, nil
}

// perListener is the number of connections to one port. It is less than the number of ports at the
// other side, some of which are in TIME_WAIT.
const perListener = 10000

// finish ends the goroutines and connections of the measurement, and returns its first error.
func (m *meter) finish() error {
	m.phase.Store(over)
	m.mu.Lock()
	for _, c := range m.closers {
		c.Close()
	}
	m.closers = nil
	m.mu.Unlock()
	m.wg.Wait()
	return m.err
}

// A counter is written by one goroutine and read by another. It has cache lines of its own.
type counter struct {
	_ [64]byte
	n atomic.Uint64
	_ [56]byte
}

func sum(c []counter) (n uint64) {
	for i := range c {
		n += c[i].n.Load()
	}
	return n
}

// A window has the counts and costs of the timed part of a measurement.
type window struct {
	seconds float64
	count   float64 // sum of the counters
	cpu     float64 // seconds
	others  float64
	allocs  float64
	bytes   float64
	gcs     uint32
	pause   uint64 // the longest of the garbage collector's last 256 pauses, in nanoseconds
}

// patience is how long a window stays open if nothing moves.
const patience = 5 * time.Second

// window lets the goroutines warm up, and times them.
func (m *meter) window(counters []counter) (w window, err error) {
	if err := m.wait(m.warm); err != nil {
		return w, err
	}
	var before, after runtime.MemStats
	stop, err := m.profile()
	if err != nil {
		return w, err
	}
	runtime.ReadMemStats(&before)
	load := readLoad()
	m.phase.CompareAndSwap(warming, timing)
	start, n := time.Now(), sum(counters)
	for err = m.wait(m.time); err == nil && sum(counters) == n && time.Since(start) < patience; {
		err = m.wait(time.Millisecond)
	}
	w.count = float64(sum(counters) - n)
	w.seconds = time.Since(start).Seconds()
	m.phase.Store(over)
	load = readLoad().since(load)
	runtime.ReadMemStats(&after)
	stop()
	w.cpu, w.others = load.own, load.others()
	w.allocs, w.bytes = float64(after.Mallocs-before.Mallocs), float64(after.TotalAlloc-before.TotalAlloc)
	w.gcs = after.NumGC - before.NumGC
	for i := range min(w.gcs, 256) {
		w.pause = max(w.pause, after.PauseNs[(after.NumGC+255-i)%256])
	}
	if err == nil && w.count == 0 {
		err = fmt.Errorf("no data has moved for %v", patience)
	}
	return w, err
}

// wait sleeps until d has passed or the measurement fails.
func (m *meter) wait(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-m.failed:
		return m.err
	}
}

func (m *meter) profile() (stop func(), err error) {
	if m.cpu == nil {
		return func() {}, nil
	}
	return pprof.StopCPUProfile, pprof.StartCPUProfile(m.cpu)
}

// perOp sets the cost of an operation.
func (m *meter) perOp(w window, ops float64) {
	s := &m.sample
	s.CPU, s.Others = w.cpu/ops*1e6, w.others
	s.Allocs, s.AllocBytes = w.allocs/ops, w.bytes/ops
}

// perGB sets the cost of a number of bytes that were sent in a number of operations.
func (m *meter) perGB(w window, bytes, ops float64) {
	m.perOp(w, ops)
	m.sample.CPU = w.cpu / (bytes / 1e9)
}
