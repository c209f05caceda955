package linktest_test

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"bsdnet"
	"bsdnet/linktest"
	"bsdnet/netem"
)

// faults are ways to break the contract, each of an end of a good cable, and the test that must
// fail for it.
var faults = []struct {
	name, point string
	end         func(l bsdnet.Link) bsdnet.Link
}{
	{"reorders", "Order", func(l bsdnet.Link) bsdnet.Link { return &reorders{l} }},
	{"only4", "Order", func(l bsdnet.Link) bsdnet.Link { return &only4{l} }},
	{"cuts", "Size", func(l bsdnet.Link) bsdnet.Link { return &cuts{l} }},
	{"readyInWrite", "Full", func(l bsdnet.Link) bsdnet.Link { return &readyInWrite{Link: l} }},
	{"scribbles", "Lent", func(l bsdnet.Link) bsdnet.Link { return &scribbles{l} }},
	{"startsTwice", "Start", func(l bsdnet.Link) bsdnet.Link { return &startsTwice{Link: l} }},
	{"closesTwice", "Close", func(l bsdnet.Link) bsdnet.Link { return &closesTwice{l} }},
	{"leaks", "Leak", func(l bsdnet.Link) bsdnet.Link { return &leaks{l} }},
}

// A link that reorders packets of one flow.
type reorders struct{ bsdnet.Link }

func (l *reorders) Write(pkts []net.Buffers) (int, error) {
	backwards := slices.Clone(pkts)
	slices.Reverse(backwards)
	return l.Link.Write(backwards)
}

// A link that takes every packet for IPv4, and cuts it to the length at that place of the header.
type only4 struct{ bsdnet.Link }

func (l *only4) Read(bufs [][]byte, sizes []int) (int, error) {
	n, err := l.Link.Read(bufs, sizes)
	for i := range n {
		sizes[i] = min(sizes[i], max(int(binary.BigEndian.Uint16(bufs[i][2:])), minPacket))
	}
	return n, err
}

// minPacket is the size of the headers that the tests look at.
const minPacket = 52

// A link that cuts what its buffer has no room for.
type cuts struct{ bsdnet.Link }

func (l *cuts) Read(bufs [][]byte, sizes []int) (int, error) {
	if len(bufs) == 0 {
		return l.Link.Read(bufs, sizes)
	}
	whole := [][]byte{make([]byte, l.MTU())}
	n, err := l.Link.Read(whole, sizes)
	if n > 0 {
		sizes[0] = copy(bufs[0], whole[0][:sizes[0]])
	}
	return n, err
}

// A link that calls ready from within Write.
type readyInWrite struct {
	bsdnet.Link
	ready func()
}

func (l *readyInWrite) Start(ready func()) error {
	l.ready = ready
	return l.Link.Start(ready)
}

func (l *readyInWrite) Write(pkts []net.Buffers) (int, error) {
	n, err := l.Link.Write(pkts)
	if n < len(pkts) && err == nil {
		l.ready()
	}
	return n, err
}

// A link that changes what it is lent.
type scribbles struct{ bsdnet.Link }

func (l *scribbles) Write(pkts []net.Buffers) (int, error) {
	n, err := l.Link.Write(pkts)
	for _, p := range pkts[:n] {
		for _, b := range p {
			clear(b)
		}
	}
	return n, err
}

// A link that starts again.
type startsTwice struct {
	bsdnet.Link
	started bool
}

func (l *startsTwice) Start(ready func()) error {
	if l.started {
		return nil
	}
	l.started = ready != nil
	return l.Link.Start(ready)
}

// A link whose second Close succeeds.
type closesTwice struct{ bsdnet.Link }

func (l *closesTwice) Close() error {
	l.Link.Close()
	return nil
}

// A link that leaves a goroutine behind.
type leaks struct{ bsdnet.Link }

func (l *leaks) Start(ready func()) error {
	go func() { select {} }()
	return l.Link.Start(ready)
}

// child is set in the process whose tests are to fail.
const child = "BSDNET_LINKTEST_FAULTS"

// TestFaults: each fault is found by the test that is there for it, and none in a link without. The
// tests run in processes of their own, where they fail.
func TestFaults(t *testing.T) {
	run := func(tests string) (string, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+tests, "-test.timeout=5m")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("^TestFaulty$/^none$"); err != nil {
		t.Errorf("a good link: %v\n%s", err, out)
	}
	for _, f := range faults {
		out, err := run("^TestFaulty$/^" + f.name + "$/^" + f.point + "$")
		if want := "--- FAIL: TestFaulty/" + f.name + "/" + f.point + " "; err == nil || !strings.Contains(out, want) {
			t.Errorf("there is no %q: %v\n%s", want, err, out)
		}
	}
}

// TestFaulty tests links with faults, and one without, if it is told to.
func TestFaulty(t *testing.T) {
	if os.Getenv(child) == "" {
		return
	}
	connect := func(end func(l bsdnet.Link) bsdnet.Link) func(t testing.TB) (a, b bsdnet.Link) {
		return func(t testing.TB) (a, b bsdnet.Link) {
			x, y, err := netem.Pipe(netem.PipeConfig{})
			if err != nil {
				t.Fatal(err)
			}
			return end(x), end(y)
		}
	}
	t.Run("none", func(t *testing.T) {
		linktest.Test(t, linktest.Config{Connect: connect(func(l bsdnet.Link) bsdnet.Link { return l })})
	})
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) { linktest.Test(t, linktest.Config{Connect: connect(f.end)}) })
	}
}
