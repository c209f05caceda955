//go:build linux

package interop

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/badlinks/lab"
	"bsdnet/internal/nstest"
)

// linkPairs are who sends to whom over a bad link. Linux to Linux, the first, is what the others
// are compared with.
var linkPairs = []struct {
	name     string
	from, to lab.Kind
}{
	{"Linux to Linux", lab.Kernel, lab.Kernel},
	{"to Linux", lab.BSD, lab.Kernel},
	{"from Linux", lab.Kernel, lab.BSD},
	{"to itself", lab.BSD, lab.BSD},
}

// linkSlots bounds how many transfers in real time run at once: in the long run few, since the log
// compares them.
var linkSlots = make(chan struct{}, func() int {
	if long {
		return 2
	}
	return parallel
}())

// TestBadLinks: over each bad link all bytes arrive, unchanged, and then the end of the stream: to
// Linux, from Linux, and from stack to stack. The log says how fast, in the long run beside Linux
// to Linux. The last pair has virtual time, so its goodput is the sender's, however busy the
// machine is:
//
//	go test -v -run 'TestBadLinks/.*/to_itself' ./internal/interop
func TestBadLinks(t *testing.T) {
	nstest.Need(t, "/dev/net/tun")
	for i, path := range lab.Paths() {
		t.Run(path.Name, func(t *testing.T) {
			t.Parallel()
			linux := 0.0
			for _, p := range linkPairs {
				reference := p.from == lab.Kernel && p.to == lab.Kernel
				if reference && !long && path.Name != "clean" {
					continue // Linux needs no test; that the harness is right shows on one path
				}
				virtual := p.from == lab.BSD && p.to == lab.BSD
				if path.Name == "loss30" && !virtual && !long {
					continue // half of all round trips fail, and the back-off has no bound that a test could wait for
				}
				c := lab.Cell{Path: path, From: p.from, To: p.to, Seed: uint64(i + 1)}
				c.Bytes, c.Limit = linkBytes(&path), linkLimit()
				if long {
					c.KernelCC = "cubic" // the numbers are to mean the same on each machine
				}
				t.Run(p.name, func(t *testing.T) {
					if !reference {
						t.Parallel() // the reference has ended
					}
					if !virtual {
						linkSlots <- struct{}{}
						defer func() { <-linkSlots }()
					}
					r := overLink(t, c)
					if reference {
						linux = r.Mbit()
					}
					ratio := ""
					if linux > 0 && !reference {
						ratio = fmt.Sprintf(", %.2f times Linux to Linux", r.Mbit()/linux)
					}
					t.Logf("%s, %s: %.3g Mbit/s%s", path.Name, p.name, r.Mbit(), ratio)
				})
			}
		})
	}
}

// linkBytes is how much a test sends over a path: in the normal run little, but enough to meet what
// is wrong with it.
func linkBytes(p *lab.Path) int64 {
	if long {
		return p.Bytes
	}
	switch p.Name {
	case "down5s", "tunflap":
		return 8 << 20 // it lasts until the path goes down
	}
	return max(p.Bytes/8, 16<<10)
}

// linkLimit is how long a transfer may take. It is not what a transfer should take, so the machine
// may be busy.
func linkLimit() time.Duration {
	if long {
		return 20 * limit
	}
	return 2 * limit
}

// overLink runs a cell, two stacks in a bubble. All must arrive, and the path must have been as bad
// as its name.
func overLink(t *testing.T, c lab.Cell) (r lab.Result) {
	t.Helper()
	var err error
	if c.From == lab.BSD && c.To == lab.BSD {
		c.Limit = time.Hour // of virtual time
		synctest.Test(t, func(*testing.T) { r, err = lab.Run(c) })
	} else {
		r, err = lab.Run(c)
	}
	if err != nil {
		t.Fatalf("seed %d: %v", c.Seed, err)
	}
	if !r.Done {
		t.Fatalf("seed %d: %d bytes of %d arrived in %v; error %v; %+v, %d packets vanished",
			c.Seed, r.Bytes, c.Bytes, r.Elapsed, r.Err, r.Stats, r.Vanished)
	}
	i, s := &c.Path.Impairment, &r.Stats.Write
	for _, d := range []struct {
		what   string
		wanted bool
		got    uint64
	}{
		{"lost", i.Loss > 0 || i.Burst != nil, s.Lost},
		{"duplicated", i.Duplicate > 0, s.Duplicated},
		{"corrupted", i.Corrupt > 0, s.Corrupted},
		{"reordered", i.Reorder > 0, s.Reordered},
		{"vanished", c.Path.Lose != nil, r.Vanished},
	} {
		if d.wanted && d.got == 0 {
			t.Errorf("seed %d: nothing was %s: %+v", c.Seed, d.what, s)
		}
	}
	return r
}
