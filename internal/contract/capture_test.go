package contract

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/bpf"

	"bsdnet"
	"bsdnet/internal/testutil"
	"bsdnet/netem"
)

// A slowWriter is a writer that needs some time for each call.
type slowWriter struct {
	mu    sync.Mutex
	pause time.Duration
	buf   bytes.Buffer
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.pause)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

// records returns the captured length and the original length of each packet in a capture.
func records(t *testing.T, pcap []byte) (captured, sizes []int) {
	t.Helper()
	for b := pcap[24:]; len(b) > 0; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		captured, sizes = append(captured, n), append(sizes, int(binary.LittleEndian.Uint32(b[12:])))
		b = b[16+n:]
	}
	return captured, sizes
}

// A capture whose writer takes no data, or far too little, does not delay the stack: it drops and
// counts the packets that do not fit, deadlines hold, and stop and Close return.
func TestCaptureStalls(t *testing.T) {
	for _, c := range []struct {
		name string
		link bool
		take int // bytes that the writer takes before it stalls
	}{
		{"loopback", false, 24},
		{"loopback, in a packet", false, 100},
		{"link", true, 24},
		{"link, in a packet", true, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := loopback(t)
				var l bsdnet.Link
				if c.link {
					cfg := netem.PipeConfig{MTU: 1500, Delay: time.Millisecond}
					n = cableOf(t, cfg, func(inner bsdnet.Link) bsdnet.Link {
						l = inner
						return inner
					})
				}
				r, w := io.Pipe()
				go io.ReadFull(r, make([]byte, c.take))
				stop, err := n.client.Capture(l, w)
				if err != nil {
					t.Fatal(err)
				}
				d := bsdnet.Dialer{Stack: n.client, Timeout: time.Second}
				if _, err := d.Dial("tcp", net.JoinHostPort(n.shost, "1")); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("dial to a closed port: %v", err)
				}
				began := time.Now()
				a, b := n.pair(t)
				go func() {
					a.Write(make([]byte, 30<<20))
					a.Close()
				}()
				if n, err := io.Copy(io.Discard, b); n != 30<<20 || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
				b.Close()
				if took := time.Since(began); took > 15*time.Second { // of virtual time
					t.Errorf("30 MiB take %v", took)
				}
				var drops, taken uint64
				for _, i := range n.client.Stats().Interfaces {
					if i.Link == l {
						drops, taken = i.CaptureDrops, i.Captured
					}
				}
				if drops == 0 || taken == 0 {
					t.Errorf("the capture has taken %d packets and dropped %d", taken, drops)
				}
				began = time.Now()
				n.client.Close()
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("Close takes %v", took)
				}
				if err := stop(); err == nil || !strings.Contains(err.Error(), "taken nothing") {
					t.Errorf("stop: %v", err)
				}
				r.Close() // ends the goroutine that writes
			})
		})
	}
}

// A writer that is slow, but fast enough on average, gets all packets. stop waits for it, so that
// the capture ends with the last packet.
func TestCaptureSlowWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stack(t, bsdnet.Config{})
		w := &slowWriter{}
		stop, err := s.Capture(nil, w)
		if err != nil {
			t.Fatal(err)
		}
		w.pause = 100 * time.Millisecond
		c, p := testutil.Pair(t, s.Listen, s.Dial)
		go func() {
			c.Write(make([]byte, 1<<20))
			c.Close()
		}()
		if _, err := io.Copy(io.Discard, p); err != nil {
			t.Fatal(err)
		}
		p.Close()
		synctest.Wait()
		lo := s.Stats().Interfaces[0]
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		got, _ := records(t, w.buf.Bytes())
		bytes := 0
		for _, n := range got {
			bytes += n
		}
		if lo.CaptureDrops != 0 || lo.Captured != uint64(len(got)) || bytes < 1<<20 {
			t.Errorf("%d packets of %d bytes in the capture, which has counted %d and %d drops",
				len(got), bytes, lo.Captured, lo.CaptureDrops)
		}
	})
}

// A writer that fails ends the capture, and stop returns its error. The link goes on.
func TestCaptureWriterFails(t *testing.T) {
	s := stack(t, bsdnet.Config{})
	r, w := io.Pipe()
	full := errors.New("disk full")
	go func() {
		io.ReadFull(r, make([]byte, 50))
		r.CloseWithError(full)
	}()
	stop, err := s.Capture(nil, w)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Dial("tcp", "127.0.0.1:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	}
	for range 2 {
		if err := stop(); !errors.Is(err, full) {
			t.Errorf("stop: %v", err)
		}
	}
	stop, err = s.Capture(nil, shortWriter{})
	if err != nil {
		t.Fatal(err)
	}
	s.Dial("tcp", "127.0.0.1:1")
	if err := stop(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("stop, of a writer that takes half and says nothing: %v", err)
	}
}

// A shortWriter takes half of the bytes that it is given.
type shortWriter struct{}

func (shortWriter) Write(p []byte) (int, error) { return len(p) / 2, nil }

// A capture with filters, such as those of golang.org/x/net/bpf, has the packets that all of them
// accept, and as many bytes as all of them accept.
func TestCaptureFilter(t *testing.T) {
	// tcp[tcpflags] & tcp-syn != 0, in IP packets without options: 40 bytes
	syn, err := bpf.NewVM([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 33, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 2, SkipFalse: 1},
		bpf.RetConstant{Val: 40},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	short, err := bpf.NewVM([]bpf.Instruction{bpf.RetConstant{Val: 28}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filters []bsdnet.CaptureFilter
		want    int
	}{{[]bsdnet.CaptureFilter{syn}, 40}, {[]bsdnet.CaptureFilter{syn, short}, 28}} {
		s := stack(t, bsdnet.Config{})
		var pcap bytes.Buffer
		stop, err := s.Capture(nil, &pcap, c.filters...)
		if err != nil {
			t.Fatal(err)
		}
		conn, p := testutil.Pair(t, s.Listen, s.Dial)
		go conn.Write(make([]byte, 100_000))
		if _, err := io.ReadFull(p, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		got, sizes := records(t, pcap.Bytes())
		if len(got) != 2 || got[0] != c.want || got[1] != c.want || sizes[0] < 44 || sizes[1] < 44 {
			t.Errorf("%d bytes of %d are captured, want %d bytes of a SYN and a SYN,ACK", got, sizes, c.want)
		}
	}
}
