package main

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"time"
)

// growRows returns the rows that show how the cost grows with the number of connections. All of
// them are in the scene memory.
func growRows() []row {
	var r []row
	for _, n := range []int{1, 3, 10, 30, 100, 300, 1000} {
		r = append(r, growFlows(n))
	}
	for _, n := range []int{0, 1000, 10000, 100000} {
		r = append(r, growIdle(n, true))
	}
	for _, n := range []int{0, 1000, 10000, 100000} {
		r = append(r, growIdle(n, false))
	}
	return append(r, growActive(10000))
}

// growFlows returns a bulk row with n flows.
func growFlows(n int) row {
	r := row{
		name: fmt.Sprintf("grow-flows-%d", n), title: "writes of 64 KiB, " + plural(n, "flow"),
		kind: kindGrow, unit: "Gbit/s", perGB: true, descriptors: filesFor(n),
		series: "Writes of 64 KiB against the number of flows", x: float64(n), xTitle: "flows",
		run: func(m *meter) error { return bulk(m, max(n/m.scale, 1), false) },
	}
	if n == 1 {
		r.same = "bulk1"
	}
	return r
}

// growIdle returns a row with one busy connection next to n idle ones.
func growIdle(n int, flow bool) row {
	r := row{kind: kindGrow, descriptors: filesFor(n), x: float64(n), xTitle: "idle connections", many: n}
	idle := fmt.Sprintf("next to %d idle ones", n)
	if flow {
		r.name, r.title = fmt.Sprintf("grow-idle-bulk-%d", n), "writes of 64 KiB on one connection "+idle
		r.unit, r.perGB = "Gbit/s", true
		r.series = "Writes of 64 KiB on one connection against the number of idle ones"
	} else {
		r.name, r.title = fmt.Sprintf("grow-idle-pp-%d", n), "1 B there and back on one connection "+idle
		r.unit, r.less = "µs (p50)", true
		r.series = "1 B there and back on one connection against the number of idle ones"
	}
	switch {
	case n == 0 && flow:
		r.same = "bulk1"
	case n == 0:
		r.same = "pp1"
	}
	r.run = func(m *meter) error {
		clients, servers, err := m.connect(n / m.scale)
		if err != nil {
			return err
		}
		if err := touch(clients, servers); err != nil {
			return err
		}
		if flow {
			return bulk(m, 1, false)
		}
		return pingPong(m, 1, 1)
	}
	return r
}

// growActive returns a row with n busy connections, and a garbage collector that has to look at all
// of them.
func growActive(n int) row {
	return row{
		name: fmt.Sprintf("grow-active-%d", n),
		title: fmt.Sprintf("1 KiB there and back, %d connections at once, "+
			"and a goroutine that allocates 1 GB/s", n),
		kind: kindGrow, unit: "round trips/s", descriptors: filesFor(n), many: n,
		run: func(m *meter) error { return active(m, max(n/m.scale, 1)) },
	}
}

func active(m *meter, n int) error {
	clients, servers, err := m.connect(n)
	if err != nil {
		return err
	}
	trips := make([]counter, n)
	for i := range clients {
		m.spawn(func() error { return echo(m, servers[i], 1024) })
		m.spawn(func() error { return ping(m, clients[i], 1024, &trips[i], nil) })
	}
	m.spawn(func() error { return litter(m) })
	w, err := m.window(trips)
	if err != nil {
		return err
	}
	if err := m.finish(); err != nil {
		return err
	}
	m.sample.Value = w.count / w.seconds
	m.perOp(w, w.count)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	m.sample.Extra = map[string]float64{
		"GCs": float64(w.gcs), "ms of longest GC pause": float64(w.pause) / 1e6,
		"MB of live heap": float64(live[0].Value.Uint64()) / 1e6,
	}
	return nil
}

// litter makes a gigabyte of garbage a second, so that the collector looks at all the connections.
func litter(m *meter) error {
	for m.phase.Load() != over {
		runtime.KeepAlive(make([]byte, 1<<20))
		if m.wait(time.Millisecond) != nil {
			return nil
		}
	}
	return nil
}
