package main

import "fmt"

// A row is a task to measure.
type row struct {
	name  string
	title string
	kind  string // one of the kinds below
	scene string
	unit  string
	less  bool // less is better
	perGB bool // CPU is in seconds per GB, not in microseconds per operation

	// series and x put rows of growth into one chart: a line over x.
	series string
	x      float64
	xTitle string

	// same is the name of the row that measures the same thing; "": none does, or this is that row.
	same string

	// many is the number of connections, if making them takes longer than timing them.
	many int

	// descriptors is the number of open files that the kernel's peers need to take part; 0: few.
	descriptors int

	run func(m *meter) error
}

// These are the kinds of rows.
const (
	kindBulk     = "bulk"
	kindPingPong = "pp"
	kindConn     = "conn"
	kindHTTP     = "http"
	kindIdle     = "idle"
	kindGrow     = "grow"
	kindDgram    = "dgram"
)

// kindsTCP are the kinds of rows of peers that have no UDP here.
var kindsTCP = []string{kindBulk, kindPingPong, kindConn, kindHTTP, kindIdle, kindGrow}

// rows returns all rows. Those of growth come last.
func rows() []row {
	var r []row
	r = append(r, bulkRow("", 1), bulkRow("", 8))
	r = append(r, pingPongRow("", 1, 1), pingPongRow("", 1, 1024), pingPongRow("", 64, 1), pingPongRow("", 64, 1024))
	r = append(r, connRow("", 1), connRow("", 16))
	r = append(r, httpRow("", 1<<10), httpRow("", 1<<20))
	r = append(r, idleRow(10000))
	r = append(r, dgramRow("", "", 64), dgramRow("", "", 1200), dgramRow("", "", maxDatagram), quicRow())
	r = append(r, bulkRow("pair", 1), bulkRow("pair", 8))
	r = append(r, upRow(1), upRow(8), downRow(1), downRow(8))
	r = append(r, pingPongRow("tun", 1, 1), pingPongRow("tun", 64, 1))
	r = append(r, connRow("tun", 1), connRow("tun", 16), httpRow("tun", 1<<10))
	for _, way := range []string{"-up", "-down"} {
		r = append(r, dgramRow("tun", way, 64), dgramRow("tun", way, 1200), dgramRow("tun", way, maxDatagram))
	}
	r = append(r, bulkRow("udp", 1), pingPongRow("udp", 1, 1))
	return append(r, growRows()...)
}

// filesFor returns the number of open files that the process needs for both ends of n connections
// of the kernel, including its other files.
func filesFor(n int) int { return 2*n + 200 }

// named returns a row's name with the scene's name before it.
func named(scene, name string) string {
	if scene == "" {
		return name
	}
	return scene + "-" + name
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// sizeName returns the part of a row's name for a number of bytes: k, m or nothing.
func sizeName(n int) string {
	switch n {
	case 1:
		return ""
	case 1 << 10:
		return "k"
	case 1 << 20:
		return "m"
	}
	return fmt.Sprint(n)
}

// sizeTitle formats a number of bytes for people.
func sizeTitle(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
