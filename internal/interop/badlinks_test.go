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

// linkPairs are the pairs of sender and receiver over a bad link. The first, Linux to Linux, is the
// reference for the others.
var linkPairs = []struct {
	name     string
	from, to lab.Kind
}{
	{"Linux to Linux", lab.Kernel, lab.Kernel},
	{"to Linux", lab.BSD, lab.Kernel},
	{"from Linux", lab.Kernel, lab.BSD},
	{"to itself", lab.BSD, lab.BSD},
}

// linkSlots bounds the number of transfers in real time that run at once. It is small in the long
// run, whose log compares them.
var linkSlots = make(chan struct{}, func() int {
	if long {
		return 2
	}
	return parallel
}())

// TestBadLinks tests that over each bad link all bytes arrive, unchanged, and then the end of the
// stream: to Linux, from Linux, and from stack to stack. The log has the speed, in the long run
// also relative to Linux to Linux. The last pair has virtual time, so its goodput does not depend
// on the load of the machine:
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
					continue // Linux needs no test; one path shows that the harness is right
				}
				virtual := p.from == lab.BSD && p.to == lab.BSD
				if path.Name == "loss30" && !virtual && !long {
					continue // half of all round trips fail, and a test cannot wait for the end of the back-off
				}
				c := lab.Cell{Path: path, From: p.from, To: p.to, Seed: uint64(i + 1)}
				c.Bytes, c.Limit = linkBytes(&path), linkLimit()
				if long {
					c.KernelCC = "cubic" // so that numbers of different machines can be compared
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

// linkBytes returns the number of bytes to send over a path. In the normal run it is small, but
// large enough that the transfer meets the path's fault.
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

// linkLimit is how long a transfer may take. It is much longer than a transfer should take, so the
// machine may be busy.
func linkLimit() time.Duration {
	if long {
		return 20 * limit
	}
	return 2 * limit
}

// overLink runs a cell, two stacks in a bubble. All bytes must arrive, and the path must have been
// as bad as its name says.
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
