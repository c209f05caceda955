package contract

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet"
	"bsdnet/netem"
)

// A sloppyLink is a link whose first Read, and each Write, return the values that a test has set.
type sloppyLink struct {
	read   func(bufs [][]byte, sizes []int) (int, error)
	write  func(pkts []net.Buffers) (int, error)
	queues int

	mu     sync.Mutex
	reads  int
	writes int
	closed chan struct{}
	once   sync.Once
}

func (l *sloppyLink) MTU() int           { return 1500 }
func (l *sloppyLink) Start(func()) error { return nil }
func (l *sloppyLink) Queues() int        { return l.queues }

func (l *sloppyLink) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *sloppyLink) Read(bufs [][]byte, sizes []int) (int, error) {
	l.mu.Lock()
	l.reads++
	first := l.reads == 1
	l.mu.Unlock()
	if first && l.read != nil {
		return l.read(bufs, sizes)
	}
	<-l.closed
	return 0, net.ErrClosed
}

func (l *sloppyLink) Write(pkts []net.Buffers) (int, error) {
	l.mu.Lock()
	l.writes++
	l.mu.Unlock()
	if l.write != nil {
		return l.write(pkts)
	}
	return len(pkts), nil
}

func (l *sloppyLink) ReadQueue(_ int, bufs [][]byte, sizes []int) (int, error) {
	return l.Read(bufs, sizes)
}

func (l *sloppyLink) WriteQueue(_ int, pkts []net.Buffers) (int, error) { return l.Write(pkts) }

// A link that breaks its contract is a broken link, and LinkErr says how it broke the contract. The
// stack and its other links go on. This holds for a link with one queue, with several, and inside a
// netem.Impaired.
func TestLinkBreaksContract(t *testing.T) {
	errOwn := errors.New("out of order")
	reads := func(n int, size int, err error) *sloppyLink {
		return &sloppyLink{read: func(bufs [][]byte, sizes []int) (int, error) {
			sizes[0] = size
			return n, err
		}}
	}
	writes := func(f func(pkts []net.Buffers) int, err error) *sloppyLink {
		return &sloppyLink{write: func(pkts []net.Buffers) (int, error) { return f(pkts), err }}
	}
	bytes := func(pkts []net.Buffers) (n int) {
		for _, p := range pkts {
			for _, b := range p {
				n += len(b)
			}
		}
		return n
	}
	minusOne := func([]net.Buffers) int { return -1 }
	for _, c := range []struct {
		name string
		mk   func() *sloppyLink
		want string
		err  error
	}{
		{"Read returns bytes", func() *sloppyLink { return reads(1000, 1000, nil) },
			"Read has returned 1000 packets", nil},
		{"Read returns -1", func() *sloppyLink { return reads(-1, 0, nil) }, "Read has returned -1 packets", nil},
		{"Read returns -1 and an error", func() *sloppyLink { return reads(-1, 0, errOwn) },
			"Read has returned -1 packets", errOwn},
		{"Read returns bytes and an error", func() *sloppyLink { return reads(1000, 0, errOwn) },
			"Read has returned 1000 packets", errOwn},
		{"Read returns a size of its own", func() *sloppyLink { return reads(1, 1501, nil) },
			"a packet of 1501 bytes in a buffer of 1500", nil},
		{"Read returns a negative size", func() *sloppyLink { return reads(1, -1, nil) }, "a packet of -1 bytes", nil},
		{"Read returns nothing", func() *sloppyLink { return reads(0, 0, nil) }, "no packet and no error", nil},
		{"Read returns an error", func() *sloppyLink { return reads(0, 0, errOwn) }, "out of order", errOwn},
		{"Read says closed", func() *sloppyLink { return reads(0, 0, net.ErrClosed) }, "closed", net.ErrClosed},
		{"Write returns bytes", func() *sloppyLink { return writes(bytes, nil) }, "Write has returned", nil},
		{"Write returns bytes and an error", func() *sloppyLink { return writes(bytes, errOwn) },
			"Write has returned", errOwn},
		{"Write returns -1", func() *sloppyLink { return writes(minusOne, nil) }, "Write has returned -1", nil},
		{"Write returns -1 and an error", func() *sloppyLink { return writes(minusOne, errOwn) },
			"Write has returned -1", errOwn},
	} {
		for _, how := range []string{"alone", "of two queues", "impaired"} {
			t.Run(c.name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := c.mk()
					l.closed = make(chan struct{})
					l.queues = 1
					want := c.want
					var attached bsdnet.Link = l
					switch how {
					case "of two queues":
						l.queues = 2
						r := strings.NewReplacer("Read has", "ReadQueue has", "Write has", "WriteQueue has")
						want = r.Replace(want)
					case "impaired":
						var err error
						if attached, err = netem.Impair(l, netem.Path{}); err != nil {
							t.Fatal(err)
						}
						if c.err != nil {
							want = "" // any text will do
						}
					}
					s := stack(t, bsdnet.Config{})
					a, b, err := netem.Pipe(netem.PipeConfig{})
					if err != nil {
						t.Fatal(err)
					}
					peer := stack(t, bsdnet.Config{})
					for _, at := range []struct {
						s *bsdnet.Stack
						l bsdnet.Link
						p string
					}{{s, attached, "10.0.0.1/24"}, {s, a, "10.0.1.1/24"}, {peer, b, "10.0.1.2/24"}} {
						if err := at.s.Attach(at.l, netip.MustParsePrefix(at.p)); err != nil {
							t.Fatal(err)
						}
					}
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					if c, err := s.DialContext(ctx, "tcp", "10.0.0.9:80"); err == nil {
						c.Close()
						t.Error("a dial over the link has got through")
					}
					got := s.LinkErr(attached)
					if got == nil || !strings.Contains(got.Error(), want) ||
						c.err != nil && how != "impaired" && !errors.Is(got, c.err) {
						t.Errorf("LinkErr: %v, want %q and %v", got, want, c.err)
					}
					if _, err := s.Dial("tcp", "10.0.0.9:80"); !errors.Is(err, syscall.ENETDOWN) {
						t.Errorf("the next dial: %v, want ENETDOWN", err)
					}
					l.mu.Lock()
					n := l.writes
					l.mu.Unlock()
					if n > 16 {
						t.Errorf("the link has been written to %d times", n)
					}
					ln, err := peer.Listen("tcp", ":80")
					if err != nil {
						t.Fatal(err)
					}
					defer ln.Close()
					other, err := s.Dial("tcp", "10.0.1.2:80")
					if err != nil {
						t.Fatalf("over another link: %v", err)
					}
					other.Close()
					if err := s.Detach(attached); err != nil {
						t.Errorf("Detach: %v", err)
					}
				})
			})
		}
	}
}

// A valueLink is a link that is a struct value with a field that cannot be compared.
type valueLink struct {
	bsdnet.Link
	logf func(format string, args ...any)
}

// A nestedLink has a type that can be compared, but some of its values cannot.
type nestedLink struct {
	bsdnet.Link
	note any
}

// Attach refuses a link that cannot be compared, and says what to do. The other methods do not know
// the link, and none of them panics.
func TestLinkNotComparable(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	a, b, err := netem.Pipe(netem.PipeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix("10.0.0.1/24")
	for _, l := range []bsdnet.Link{
		valueLink{a, t.Logf},
		nestedLink{a, t.Logf},
		nestedLink{valueLink{a, t.Logf}, nil},
	} {
		if err := s.Attach(l, p); err == nil || !strings.Contains(err.Error(), "pass a pointer") {
			t.Errorf("Attach(%T): %v", l, err)
		}
		_, captured := s.Capture(l, new(strings.Builder))
		for name, err := range map[string]error{
			"LinkErr":  s.LinkErr(l),
			"Detach":   s.Detach(l),
			"AddRoute": s.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), l),
			"Capture":  captured,
		} {
			if err == nil || !strings.Contains(err.Error(), "not attached") {
				t.Errorf("%s(%T): %v", name, l, err)
			}
		}
	}
	for i, l := range []bsdnet.Link{&valueLink{a, t.Logf}, nestedLink{b, "compared"}} {
		if err := s.Attach(l, netip.MustParsePrefix(fmt.Sprintf("10.0.%d.1/24", i))); err != nil {
			t.Errorf("Attach(%T): %v", l, err)
		}
		if err := s.LinkErr(l); err != nil {
			t.Errorf("LinkErr(%T): %v", l, err)
		}
		if err := s.Detach(l); err != nil {
			t.Errorf("Detach(%T): %v", l, err)
		}
	}
}

// Attach refuses a link with too many queues.
func TestLinkQueuesBeyond(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	l := &sloppyLink{queues: 1 << 30, closed: make(chan struct{})}
	err := s.Attach(l, netip.MustParsePrefix("10.0.0.1/24"))
	if err == nil || !strings.Contains(err.Error(), "at most 256") {
		t.Errorf("Attach: %v", err)
	}
	l.queues = -1 // the same as no queues: the stack calls Read and Write
	if err := s.Attach(l, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
		t.Errorf("Attach: %v", err)
	}
}

// A chatterbox is a link whose Read goes on to return packets after Close.
type chatterbox struct{ sloppyLink }

func (l *chatterbox) Read(bufs [][]byte, sizes []int) (int, error) {
	sizes[0] = copy(bufs[0], make([]byte, 20))
	time.Sleep(time.Millisecond)
	return 1, nil
}

// A link whose Read does not end after Close holds up neither Detach nor Close of the stack.
func TestLinkReadsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, end := range []func(s *bsdnet.Stack, l bsdnet.Link) error{
			func(s *bsdnet.Stack, l bsdnet.Link) error { return s.Detach(l) },
			func(s *bsdnet.Stack, l bsdnet.Link) error { return s.Close() },
		} {
			s, err := bsdnet.New(bsdnet.Config{})
			if err != nil {
				t.Fatal(err)
			}
			l := &chatterbox{sloppyLink{queues: 1, closed: make(chan struct{})}}
			if err := s.Attach(l, netip.MustParsePrefix("10.0.0.1/24")); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- end(s, l) }()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(time.Hour):
				t.Fatal("the link holds it up")
			}
			s.Close()
		}
	})
}
