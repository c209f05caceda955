package kern

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// An idle connection is a Socket and little else, so its size is what each costs a server with
// many. A new field must not move it to a larger size class of the allocator.
func TestSocketSize(t *testing.T) {
	// The allocator puts 8 bytes before what has pointers and is this large.
	if n := unsafe.Sizeof(Socket{}); n > 704-8 {
		t.Errorf("a Socket has %d bytes, and takes more than the 704 of its class", n)
	}
}

// TestCondGoes: a connection has a cond only while calls sleep in it, or shortly after.
func TestCondGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := attacked(t, nil)
		defer v.done()
		l := v.listen(80, 5)
		p, fd := v.established(l, 5000, 80)
		so := v.p.Sock(fd)
		conds := func() bool {
			so.lock()
			defer so.mu.Unlock()
			return so.cond != nil
		}
		read := func() chan int {
			done := make(chan int)
			go func() {
				n, _ := so.Soreceive(make([]byte, 10), 0)
				done <- n
			}()
			synctest.Wait()
			return done
		}
		so.Setnbio(false)
		done := read()
		pass(20 * time.Second) // a keep-alive probe
		if !conds() {
			t.Error("the clock has taken the cond of one who sleeps")
		}
		p.send([]byte("x"))
		if n := <-done; n != 1 {
			t.Errorf("read %d", n)
		}
		if !conds() {
			t.Error("no cond right after a sleep: the next would make another")
		}
		pass(time.Second) // the acknowledgment
		if conds() {
			t.Error("an idle connection has a cond")
		}
		done = read()
		p.send([]byte("yz"))
		if n := <-done; n != 2 {
			t.Errorf("read %d with a new cond", n)
		}
	})
}

// TestSocketList: whatever the order in which sockets come and go, the list has those that are
// there, each once.
func TestSocketList(t *testing.T) {
	var l socketList
	var all []*Socket
	there := map[*Socket]bool{}
	check := func(step string) {
		t.Helper()
		got := l.all()
		seen := map[*Socket]bool{}
		for _, so := range got {
			if !there[so] || seen[so] {
				t.Fatalf("%s: a socket that is not there, or twice", step)
			}
			seen[so] = true
		}
		if len(got) != len(there) || int(l.n.Load()) != len(there) {
			t.Fatalf("%s: %d sockets, counted %d, want %d", step, len(got), l.n.Load(), len(there))
		}
	}
	k := new(Kernel)
	for i := range 5000 {
		so := &Socket{k: k}
		so.out.id = uint32(i)
		all = append(all, so)
		there[so] = true
		l.add(so)
	}
	check("all in")
	for i := range all {
		so := all[i*2503%len(all)] // 2503 and 5000 have no common factor
		l.remove(so)
		l.remove(so) // nothing
		delete(there, so)
		if i%611 == 0 {
			check("removing")
		}
	}
	check("all out")
	for i := range l.shards {
		if c := cap(l.shards[i].list); c > 64 {
			t.Errorf("an empty list has room for %d", c)
		}
	}
}

// TestIn6Addr: the way there and back, and what is unspecified.
func TestIn6Addr(t *testing.T) {
	for s, unspec := range map[string]bool{"0.0.0.0": true, "127.0.0.1": false, "255.255.255.255": false,
		"::1": false, "2001:db8::1": false, "::fffe:0:0": false} {
		a := netip.MustParseAddr(s)
		b := in6(a)
		if b.addr() != a || b.unspecified() != unspec || b.is4() != a.Is4() {
			t.Errorf("%s: back as %s, unspecified %v, is4 %v", s, b.addr(), b.unspecified(), b.is4())
		}
	}
	none := in6(netip.Addr{})
	if none.addr().IsValid() || !none.unspecified() || none.is4() {
		t.Error("no address is one")
	}
}
