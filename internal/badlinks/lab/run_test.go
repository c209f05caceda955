//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/netem"
)

// inBubble runs a cell between two stacks, in virtual time.
func inBubble(t *testing.T, c Cell) (r Result, err error) {
	t.Helper()
	c.From, c.To = BSD, BSD
	synctest.Test(t, func(*testing.T) { r, err = Run(c) })
	return r, err
}

// All bytes arrive, no faster than the path allows, and each run of a seed is the same.
func TestRun(t *testing.T) {
	c := Cell{Path: Lossy(100e6, 20*ms, 0.01), Seed: 1, Bytes: 1 << 20}
	first, err := inBubble(t, c)
	if err != nil || !first.Done || first.Err != nil || first.Bytes != c.Bytes {
		t.Fatalf("%+v, %v", first, err)
	}
	if first.Mbit() > 100 || first.Elapsed < 20*ms || first.Stats.Write.Lost == 0 || first.Stats.Read.Lost == 0 {
		t.Errorf("%.1f Mbit/s in %v, %+v", first.Mbit(), first.Elapsed, first.Stats)
	}
	if first.Info == nil || first.Info.Remote != addrB || first.Info.Retransmits == 0 {
		t.Errorf("Info: %+v", first.Info)
	}
	again, _ := inBubble(t, c)
	first.Stats.Read, again.Stats.Read = netem.Counts{}, netem.Counts{} // with or without the last ACK
	if !reflect.DeepEqual(first, again) {
		t.Errorf("one seed, two results:\n%+v\n%+v", first, again)
	}
	c.Seed = 2
	if other, _ := inBubble(t, c); reflect.DeepEqual(first.Stats.Write, other.Stats.Write) {
		t.Errorf("two seeds, one result: %+v", other)
	}
}

// With a Time the transfer ends by the clock.
func TestRunTime(t *testing.T) {
	r, err := inBubble(t, Cell{Path: Lossy(1e6, 20*ms, 0), Seed: 1, Time: 3 * time.Second})
	if err != nil || !r.Done || r.Elapsed != 3*time.Second || r.Mbit() < 0.5 || r.Mbit() > 1 {
		t.Errorf("%.3f Mbit/s, %+v, %v", r.Mbit(), r, err)
	}
}

// If not all bytes arrive within the limit, the result has the bytes so far.
func TestRunTooSlow(t *testing.T) {
	r, err := inBubble(t, Cell{Path: Lossy(1e6, 20*ms, 0), Seed: 1, Bytes: 1 << 20, Limit: 2 * time.Second})
	if err != nil || r.Done || r.Err != nil || r.Bytes < 100e3 || r.Bytes > 250e3 {
		t.Errorf("%+v, %v", r, err)
	}
	dead := Lossy(1e6, 20*ms, 1)
	r, err = inBubble(t, Cell{Path: dead, Seed: 1, Limit: 2 * time.Second})
	if err != nil || r.Done || r.Err != nil || r.Bytes != 0 {
		t.Errorf("a dead path: %+v, %v", r, err)
	}
	r, err = inBubble(t, Cell{Path: dead, Seed: 1, Limit: 10 * time.Minute})
	if err != nil || r.Done || r.Err == nil || !strings.Contains(r.Err.Error(), "dial") {
		t.Errorf("a dial that gives up: %+v, %v", r, err)
	}
}

// Bytes that differ from those that were sent are found, even if the checksums are right.
func TestRunFindsChangedBytes(t *testing.T) {
	path := Lossy(100e6, 20*ms, 0)
	changed := false
	path.Lose = func(_ time.Duration, back bool, p []byte) bool {
		if !back && !changed && len(p) == MTU {
			a, b := p[1000:1002], p[1002:1004] // this does not change the sum of 16-bit words
			a[0], a[1], b[0], b[1] = b[0], b[1], a[0], a[1]
			changed = true
		}
		return false
	}
	_, err := inBubble(t, Cell{Path: path, Seed: 1, Bytes: 1 << 20})
	if err == nil || !strings.Contains(err.Error(), "was sent") {
		t.Errorf("the error is %v", err)
	}
}

// A capture has the packets that A sends and receives.
func TestCapture(t *testing.T) {
	var file bytes.Buffer
	r, err := inBubble(t, Cell{Path: Lossy(100e6, 20*ms, 0), Seed: 1, Bytes: 100e3, Capture: &file})
	if err != nil {
		t.Fatal(err)
	}
	var there, back uint64
	b := file.Bytes()[24:]
	for len(b) > 16 {
		n := binary.LittleEndian.Uint32(b[8:])
		packet := b[16 : 16+n]
		switch src := [4]byte(packet[12:16]); src {
		case addrA.Addr().As4():
			there++
		case addrB.Addr().As4():
			back++
		}
		b = b[16+n:]
	}
	if len(b) > 0 || there < r.Stats.Write.Packets || there < 100_000/MTU || back == 0 {
		t.Errorf("%d packets there and %d back, %d bytes left; the path has seen %+v", there, back, len(b), r.Stats)
	}
}

// The named paths are complete, and Run takes each of them.
func TestPaths(t *testing.T) {
	var names []string
	for _, p := range append(Paths(), Grid()...) {
		if p.About == "" || p.Bytes == 0 || slices.Contains(names, p.Name) {
			t.Errorf("%+v", p)
		}
		names = append(names, p.Name)
		way := p.impairment()
		a, b, err := netem.Pipe(netem.PipeConfig{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := netem.Impair(a, netem.Path{Write: way, Read: way})
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		l.Close()
		b.Close()
	}
	if i := slices.Index(names, "mtuhole"); i != Bad-1 {
		t.Errorf("mtuhole is path %d, and the last of %d bad ones", i, Bad)
	}
}

// A stream does not depend on the pieces in which it is made and checked. A changed byte is found.
func TestStream(t *testing.T) {
	const n = 1000
	whole := make([]byte, n)
	(&stream{seed: 7}).fill(whole)
	for _, piece := range []int{1, 3, 7, 8, 9, 64, 999} {
		s, c := stream{seed: 7}, checker{stream: stream{seed: 7}}
		var got []byte
		for len(got) < n {
			b := make([]byte, min(piece, n-len(got)))
			s.fill(b)
			got = append(got, b...)
		}
		if !bytes.Equal(got, whole) {
			t.Errorf("in pieces of %d the stream differs", piece)
		}
		for b := whole; len(b) > 0; b = b[min(piece, len(b)):] {
			if err := c.check(b[:min(piece, len(b))]); err != nil {
				t.Errorf("in pieces of %d: %v", piece, err)
			}
		}
	}
	other := make([]byte, n)
	(&stream{seed: 8}).fill(other)
	if bytes.Equal(other, whole) {
		t.Error("two seeds, one stream")
	}
	whole[500] ^= 1
	err := (&checker{stream: stream{seed: 7}}).check(whole)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("byte %d ", 500)) {
		t.Errorf("byte 500 is changed: %v", err)
	}
}
