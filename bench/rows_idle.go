package main

import (
	"fmt"
	"net"
	"runtime"
	"time"
)

// idleRow returns a row that counts the memory of n connections.
func idleRow(n int) row {
	return row{
		name: "idle", title: fmt.Sprintf("memory per idle connection, both ends, %d of them", n),
		kind: kindIdle, unit: "bytes", less: true, many: n,
		run: func(m *meter) error { return idle(m, max(n/m.scale, 1)) },
	}
}

// idle makes n connections, or as many as the limit of open files allows.
func idle(m *meter, n int) error {
	if m.net.kernel {
		n = min(n, (descriptors(filesFor(n))-filesFor(0))/2)
	}
	before, err := memory(m.net.kernel)
	if err != nil {
		return err
	}
	start := time.Now()
	load := readLoad()
	clients, servers, err := m.connect(n)
	if err != nil {
		return err
	}
	if err := touch(clients, servers); err != nil {
		return err
	}
	load = readLoad().since(load)
	m.sample.Extra = map[string]float64{"connections": float64(n), "s to connect": time.Since(start).Seconds()}
	if err := m.wait(m.warm); err != nil { // delayed acknowledgments are still to be sent
		return err
	}
	after, err := memory(m.net.kernel)
	if err != nil {
		return err
	}
	runtime.KeepAlive(clients)
	runtime.KeepAlive(servers)
	m.sample.Value = after.sub(before).all() / float64(n)
	m.sample.Extra["bytes of Go's heap"] = (after.heap - before.heap) / float64(n)
	m.sample.Extra["bytes of stacks"] = (after.stacks - before.stacks) / float64(n)
	m.sample.Extra["bytes of the kernel's"] = (after.kernel - before.kernel) / float64(n)
	m.sample.Extra["goroutines"] = (after.goroutines - before.goroutines) / float64(n)
	m.sample.CPU, m.sample.Others = load.own/float64(n)*1e6, load.others()
	m.sample.Allocs = (after.mallocs - before.mallocs) / float64(n)
	m.sample.AllocBytes = (after.bytes - before.bytes) / float64(n)
	return nil
}

// touch sends a byte there and back over each connection.
func touch(clients, servers []net.Conn) error {
	errs := make(chan error, 1)
	go func() {
		var p [1]byte
		for _, s := range servers {
			if err := readFull(s, p[:]); err != nil {
				errs <- err
				return
			}
			if _, err := s.Write(p[:]); err != nil {
				errs <- err
				return
			}
		}
		errs <- nil
	}()
	var p [1]byte
	for i, c := range clients {
		p[0] = byte(i)
		if _, err := c.Write(p[:]); err != nil {
			return err
		}
		if err := readFull(c, p[:]); err != nil {
			return err
		}
		if p[0] != byte(i) {
			return errEcho
		}
	}
	return <-errs
}

// A memoryUse has the memory that the process uses, in bytes, and the number of allocations.
type memoryUse struct {
	heap, stacks, kernel float64
	goroutines, mallocs  float64
	bytes                float64 // bytes allocated so far, including freed ones
}

func (u memoryUse) sub(o memoryUse) memoryUse {
	return memoryUse{heap: u.heap - o.heap, stacks: u.stacks - o.stacks, kernel: u.kernel - o.kernel}
}

func (u memoryUse) all() float64 { return u.heap + u.stacks + max(0, u.kernel) }

// memory returns the memory in use without garbage, including the kernel's if the caller asks for
// it.
func memory(kernel bool) (u memoryUse, err error) {
	runtime.GC()
	runtime.GC() // the first has only moved the contents of pools to their victims
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	u = memoryUse{
		heap: float64(s.HeapAlloc), stacks: float64(s.StackInuse),
		goroutines: float64(runtime.NumGoroutine()), mallocs: float64(s.Mallocs), bytes: float64(s.TotalAlloc),
	}
	if kernel {
		u.kernel, err = slab()
	}
	return u, err
}
