//go:build linux

package interop

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/nstest"
)

// A flood is a kind of packet that an attacker sends to a server, as fast as it can up to a rate.
// If forge is set, each packet comes from another host that does not exist. Otherwise all come from
// the client's own address, whose kernel replies to the server's answers.
type flood struct {
	name  string
	rate  int // packets a second in the long run; a fifth of that otherwise
	proto uint8
	forge bool
	frag  bool                                // each packet is a fragment of a datagram that stays incomplete
	fill  bool                                // it fills the table of half-open connections before the clients begin
	body  func(b []byte, r *rand.Rand) []byte // appends the payload of the IP packet, without a checksum
}

var floodKinds = []flood{
	{name: "nothing"},
	{name: "SYN 10k", rate: 10_000, proto: wire.ProtoTCP, forge: true, body: tcpFlood(wire.SYN)},
	{name: "SYN 50k", rate: 50_000, proto: wire.ProtoTCP, forge: true, body: tcpFlood(wire.SYN)},
	{name: "SYN 100k", rate: 100_000, proto: wire.ProtoTCP, forge: true, fill: true, body: tcpFlood(wire.SYN)},
	{name: "SYN, true source", rate: 50_000, proto: wire.ProtoTCP, body: tcpFlood(wire.SYN)},
	{name: "SYN,ACK", rate: 50_000, proto: wire.ProtoTCP, forge: true, body: tcpFlood(wire.SYN | wire.ACK)},
	{name: "ACK", rate: 50_000, proto: wire.ProtoTCP, forge: true, body: tcpFlood(wire.ACK)},
	{name: "ACK, true source", rate: 50_000, proto: wire.ProtoTCP, body: tcpFlood(wire.ACK)},
	{name: "RST", rate: 100_000, proto: wire.ProtoTCP, forge: true, body: tcpFlood(wire.RST)},
	{name: "FIN", rate: 50_000, proto: wire.ProtoTCP, forge: true, body: tcpFlood(wire.FIN | wire.ACK)},
	{name: "junk TCP", rate: 50_000, proto: wire.ProtoTCP, forge: true, body: junkFlood},
	{name: "echo requests", rate: 50_000, proto: wire.ProtoICMP, forge: true, body: echoFlood},
	{name: "echo requests, true source", rate: 50_000, proto: wire.ProtoICMP, body: echoFlood},
	{name: "UDP", rate: 50_000, proto: wire.ProtoUDP, forge: true, body: udpFlood},
	{name: "fragments", rate: 50_000, proto: wire.ProtoUDP, forge: true, frag: true, body: udpFlood},
}

// floodPort is the server's port.
const floodPort = 80

// Honest clients connect, have 64 bytes echoed, and close, while an attacker floods the server.
// Each succeeds, and the server's memory does not grow beyond bounds. The test only logs how long a
// client waits, because the machine may have other work. The attacker and the clients are processes
// of their own.
func TestFloods(t *testing.T) {
	nstest.Need(t, "/dev/net/tun", "ip")
	which := modes[:1]
	if long {
		which = []mode{modes[0], modes[2]}
	}
	for _, m := range which {
		for _, f := range floodKinds {
			t.Run(m.name+"/"+f.name, func(t *testing.T) { f.test(t, m) })
		}
	}
}

func (f *flood) test(t *testing.T, m mode) {
	w := newWorld(t, m, options{})
	// Answers to hosts that do not exist go out too.
	if err := w.stack.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), w.link); err != nil {
		t.Fatal(err)
	}
	ln, err := w.stack.Listen("tcp", fmt.Sprintf(":%d", floodPort))
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { echoServer(ln) })
	t.Cleanup(func() { ln.Close(); served.Wait() })
	heap, stop := watchHeap()
	busy := cpuTime()
	sent := "0"
	job := clientJob{Clients: 4, Conns: 20, Pause: time.Millisecond}
	if long {
		job = clientJob{Clients: 4, For: 5 * time.Second, Pause: 10 * time.Millisecond}
	}
	var attacker *player
	if f.rate > 0 {
		rate := f.rate
		if !long {
			rate /= 5
		}
		attacker = play(t, w, "attacker", attackJob{f.name, rate})
		await(t, "the flood arrives", func() bool {
			st := w.stack.Stats()
			return st.IP.Total > 1000 && (!f.fill || st.TCP.ScSendcookie > 1000)
		})
	}
	report := play(t, w, "clients", job).wait(t, false)
	if attacker != nil {
		sent = attacker.wait(t, true)
	}
	var r clientReport
	if err := json.Unmarshal([]byte(report), &r); err != nil {
		t.Fatalf("%v: %s", err, report)
	}
	peak := stop()
	st := w.stack.Stats()
	t.Logf("%s sent, %d arrived, %s lost at the device; %d connections: dial %v, %v, %v; "+
		"whole connection %v, %v, %v (median, 99 %%, longest); heap +%d KiB; processor time a packet %v",
		strings.TrimSpace(sent), st.IP.Total, w.dropped(t), r.Done, r.Dial[0], r.Dial[1], r.Dial[2],
		r.Whole[0], r.Whole[1], r.Whole[2], (peak-heap)>>10, (cpuTime()-busy)/time.Duration(max(st.IP.Total, 1)))
	if r.Failed > 0 || r.Done == 0 {
		t.Errorf("%d connections have succeeded, %d have failed: %s", r.Done, r.Failed, r.Err)
	}
	if limit := int64(32 << 20); peak-heap > limit {
		t.Errorf("the heap has grown by %d bytes, more than %d", peak-heap, limit)
	}
}

// dropped returns the number of packets that the kernel has lost because the device's queues were
// full.
func (w *world) dropped(t *testing.T) string {
	for line := range strings.Lines(w.NS.Run(t, "cat", "/proc/net/dev")) {
		// After the name there are eight counters for receiving, and then bytes, packets, errors
		// and drops for sending.
		if name, counters, _ := strings.Cut(strings.TrimSpace(line), ":"); name == w.tun.Name() {
			return strings.Fields(counters)[11]
		}
	}
	return "?"
}

// cpuTime returns the processor time that this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// echoServer accepts connections and sends back what it reads from each, on a goroutine of its own.
func echoServer(ln net.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(limit))
			var b [64]byte
			for {
				n, err := c.Read(b[:])
				if err != nil {
					return
				}
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
			}
		})
	}
}

// watchHeap returns the size of the heap, and a function that returns its largest size since then,
// garbage included.
func watchHeap() (now int64, stop func() (most int64)) {
	runtime.GC()
	size := func() int64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	now = size()
	done := make(chan struct{})
	most := now
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, size())
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	return now, func() int64 { close(done); wg.Wait(); return most }
}

// A player is a process that plays a part in a test. It runs this program.
type player struct {
	cmd      *exec.Cmd
	stdin    io.Closer
	out, err bytes.Buffer
}

// partEnv is the environment variable with the part that this process plays, and jobEnv the one
// with its job as JSON.
const (
	partEnv = "BSDNET_INTEROP_PART"
	jobEnv  = "BSDNET_INTEROP_JOB"
)

// play starts a player in the world's namespace. The player ends with the test at the latest.
func play(t *testing.T, w *world, part string, job any) *player {
	t.Helper()
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	p := &player{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), partEnv+"="+part, jobEnv+"="+string(b))
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.NS.Start(p.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

// wait waits until the player has ended, and returns its output. If end is true, it first tells the
// player to end.
func (p *player) wait(t *testing.T, end bool) string {
	t.Helper()
	if end {
		p.stdin.Close()
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &p.err)
	}
	return p.out.String()
}

// parts are what a player can play.
var parts = map[string]func(job []byte) error{"attacker": attack, "clients": honest}

// perform plays the part that this process was started for. It reports false if there is none.
func perform() (status int, ok bool) {
	f := parts[os.Getenv(partEnv)]
	if f == nil {
		return 0, false
	}
	if err := f([]byte(os.Getenv(jobEnv))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// A clientJob is the job of the honest clients. A number of them at a time connect a number of
// times, or for some time, and pause after each connection.
type clientJob struct {
	Clients, Conns int
	For, Pause     time.Duration
}

// A clientReport is the report of the honest clients. The durations are the median, the 99th
// percentile and the longest.
type clientReport struct {
	Done, Failed int
	Err          string
	Dial, Whole  [3]time.Duration
}

// honest plays the part of the honest clients.
func honest(job []byte) error {
	var j clientJob
	if err := json.Unmarshal(job, &j); err != nil {
		return err
	}
	var (
		mu          sync.Mutex
		r           clientReport
		dial, whole []time.Duration
		wg          sync.WaitGroup
	)
	start := time.Now()
	for range j.Clients {
		wg.Go(func() {
			for n := 0; n < j.Conns || j.Conns == 0 && time.Since(start) < j.For; n++ {
				d, w, err := trip(fmt.Sprintf("%s:%d", bsdIP, floodPort))
				mu.Lock()
				if err != nil {
					r.Failed++
					r.Err = err.Error()
				} else {
					r.Done++
					dial, whole = append(dial, d), append(whole, w)
				}
				mu.Unlock()
				time.Sleep(j.Pause)
			}
		})
	}
	wg.Wait()
	r.Dial, r.Whole = quantiles(dial), quantiles(whole)
	return json.NewEncoder(os.Stdout).Encode(r)
}

// trip connects to an echo server, has it echo 64 bytes, and closes.
func trip(addr string) (dial, whole time.Duration, err error) {
	start := time.Now()
	c, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	dial = time.Since(start)
	c.SetDeadline(start.Add(limit))
	var b, got [64]byte
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	if _, err := c.Write(b[:]); err != nil {
		return 0, 0, err
	}
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return 0, 0, err
	}
	if got != b {
		return 0, 0, fmt.Errorf("sent % x, got % x", b, got)
	}
	return dial, time.Since(start), nil
}

func quantiles(d []time.Duration) (q [3]time.Duration) {
	slices.Sort(d)
	if n := len(d); n > 0 {
		q = [3]time.Duration{d[n/2], d[n*99/100], d[n-1]}
	}
	for i := range q {
		q[i] = q[i].Round(10 * time.Microsecond)
	}
	return q
}

// An attackJob is the job of the attacker: to send packets of a kind at a rate, until its input
// ends.
type attackJob struct {
	Kind string
	Rate int
}

// attack plays the part of the attacker.
func attack(job []byte) error {
	var j attackJob
	if err := json.Unmarshal(job, &j); err != nil {
		return err
	}
	i := slices.IndexFunc(floodKinds, func(f flood) bool { return f.name == j.Kind })
	if i < 0 {
		return fmt.Errorf("there is no flood %q", j.Kind)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(bsdIP).As4()}); err != nil {
		return err
	}
	var stopped atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stopped.Store(true)
	}()
	runtime.LockOSThread()
	v := newVolley(&floodKinds[i], fd)
	start := time.Now()
	n := 0
	for !stopped.Load() {
		due := int(time.Since(start).Seconds() * float64(j.Rate))
		if due-n > j.Rate/10 { // it was held up, and does not make up for the packets that it has missed
			start = time.Now().Add(-time.Duration(n) * time.Second / time.Duration(j.Rate))
		}
		for n < due {
			m := min(due-n, len(v.msgs))
			v.fire(m)
			n += m
		}
		time.Sleep(500 * time.Microsecond)
	}
	fmt.Printf("%d in %v\n", n, time.Since(start).Round(time.Millisecond))
	return nil
}

// An mmsghdr corresponds to the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// A volley has the packets of one system call.
type volley struct {
	f    *flood
	fd   int
	rnd  *rand.Rand
	msgs [64]mmsghdr
	iovs [64]unix.Iovec
	bufs [64][]byte
}

func newVolley(f *flood, fd int) *volley {
	v := &volley{f: f, fd: fd, rnd: rand.New(rand.NewPCG(rand.Uint64(), 1))}
	for i := range v.msgs {
		v.msgs[i].hdr.Iov = &v.iovs[i]
		v.msgs[i].hdr.SetIovlen(1)
	}
	return v
}

// fire sends n packets. Packets for which the device has no room are lost.
func (v *volley) fire(n int) {
	for i := range n {
		b := v.f.packet(v.bufs[i][:0], v.rnd)
		v.bufs[i] = b
		v.iovs[i].Base = &b[0]
		v.iovs[i].SetLen(len(b))
	}
	for at := 0; at < n; {
		done, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, uintptr(v.fd),
			uintptr(unsafe.Pointer(&v.msgs[at])), uintptr(n-at), 0, 0, 0)
		if errno != 0 {
			done = 1 // the first of them cannot be sent
		}
		at += int(done)
	}
}

// packet appends a packet of the flood.
func (f *flood) packet(b []byte, r *rand.Rand) []byte {
	src := netip.MustParseAddr(kernIP).As4()
	if f.forge {
		binary.BigEndian.PutUint32(src[:], 11<<24|r.Uint32N(1<<24))
	}
	dst := netip.MustParseAddr(bsdIP).As4()
	b = append(b, make([]byte, wire.IPv4MinLen)...)
	b = f.body(b, r)
	ip := wire.IPv4{Len: len(b), TTL: 64, ID: uint16(r.Uint32()), Proto: f.proto,
		Src: netip.AddrFrom4(src), Dst: netip.AddrFrom4(dst)}
	if f.frag {
		ip.Flags, ip.Off = wire.IPMF, 8*int(r.Uint32N(100))
	}
	ip.Put(b)
	p := b[wire.IPv4MinLen:]
	switch f.proto {
	case wire.ProtoTCP:
		binary.BigEndian.PutUint16(p[16:], ^wire.Fold(wire.Sum(p, wire.PseudoSum(ip.Src, ip.Dst, f.proto, len(p)))))
	case wire.ProtoICMP:
		binary.BigEndian.PutUint16(p[2:], wire.InCksum(p))
	}
	return b
}

// tcpFlood makes segments with these flags to the server's port.
func tcpFlood(flags wire.Flags) func(b []byte, r *rand.Rand) []byte {
	return func(b []byte, r *rand.Rand) []byte {
		th := wire.TCP{Sport: uint16(r.Uint32()) | 1, Dport: floodPort, Flags: flags, Win: 64240}
		th.Seq, th.Ack = wire.Seq(r.Uint32()), wire.Seq(r.Uint32())
		if flags == wire.SYN {
			th.Opt = wire.Options{Has: wire.TofMSS | wire.TofScale | wire.TofSackperm | wire.TofTS,
				MSS: 1460, Scale: 7, TSVal: r.Uint32()}
		}
		var h [wire.TCPMaxLen]byte
		return append(b, h[:th.Put(h[:])]...)
	}
}

// junkFlood makes segments with any flags and data to any port.
func junkFlood(b []byte, r *rand.Rand) []byte {
	b = tcpFlood(wire.Flags(r.Uint32()))(b, r)
	for range r.IntN(100) {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

func echoFlood(b []byte, r *rand.Rand) []byte {
	b = append(b, wire.ICMPEcho, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, r.Uint32())
	return append(b, make([]byte, 56)...)
}

func udpFlood(b []byte, r *rand.Rand) []byte {
	b = binary.BigEndian.AppendUint32(b, r.Uint32())
	b = binary.BigEndian.AppendUint16(b, 8+56)
	return append(b, make([]byte, 2+56)...)
}
