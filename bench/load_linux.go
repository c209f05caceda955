package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A load says how busy the machine has been, in seconds of one processor.
type load struct {
	at  time.Time
	own float64 // user and system time of this process
	all float64 // time of all processes, and of other machines on the same hardware; in steps of 10 ms
	dur float64 // the time between two loads, set by since
}

func readLoad() load {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	l := load{at: time.Now(), own: float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9}
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	// The fields of proc_stat(5) are user nice system idle iowait irq softirq steal; user and nice
	// include the rest. USER_HZ is 100 everywhere.
	for i, f := range strings.Fields(string(line)) {
		if i >= 1 && i <= 8 && i != 4 && i != 5 {
			n, _ := strconv.ParseFloat(f, 64)
			l.all += n / 100
		}
	}
	return l
}

func (l load) since(o load) load {
	return load{own: l.own - o.own, all: l.all - o.all, dur: l.at.Sub(o.at).Seconds()}
}

// others returns the part of the machine that other processes used.
func (l load) others() float64 {
	return max(0, l.all-l.own) / (l.dur * float64(runtime.NumCPU()))
}

// cpuModel returns the processor's name.
func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// kernelVersion returns the kernel's name and version.
func kernelVersion() string {
	v, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(v)), "-") // the builder's suffix follows
	return "Linux " + version
}

const congestionFile = "/proc/sys/net/ipv4/tcp_congestion_control"

// kernelCongestion returns the name of the kernel's congestion control.
func kernelCongestion() string {
	v, _ := os.ReadFile(congestionFile)
	return strings.TrimSpace(string(v))
}

// slab returns the bytes that the kernel's slab allocator holds in objects, except the objects of
// connections in TIME_WAIT, which belong to other rows. If only root may read that, it returns the
// bytes that the allocator holds in pages.
func slab() (float64, error) {
	if info, err := os.ReadFile("/proc/slabinfo"); err == nil {
		return slabinfo(string(info)), nil
	}
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "Slab:" {
			n, err := strconv.ParseFloat(f[1], 64)
			return n * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no line Slab")
}

// slabinfo adds up the table of slabinfo(5): name, active objects, objects, size.
func slabinfo(s string) (n float64) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasPrefix(f[0], "tw_sock") {
			continue
		}
		active, err1 := strconv.ParseFloat(f[1], 64)
		size, err2 := strconv.ParseFloat(f[3], 64)
		if err1 == nil && err2 == nil {
			n += active * size
		}
	}
	return n
}

// descriptors raises the limit of open files as far as the process may, and returns it.
func descriptors(want int) int {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return 0
	}
	if r.Cur < uint64(want) {
		up := syscall.Rlimit{Cur: uint64(want), Max: max(r.Max, uint64(want))}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &up) == nil {
			return want
		}
		r.Cur = min(uint64(want), r.Max)
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r)
	}
	return int(min(r.Cur, 1<<30))
}

// control sets the congestion control of a new socket (tcp(7), TCP_CONGESTION).
func (c congestion) control(_, _ string, rc syscall.RawConn) error {
	var set error
	err := rc.Control(func(fd uintptr) {
		set = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, c.kernel)
	})
	if set != nil {
		return fmt.Errorf("congestion control %s: %w", c.kernel, set)
	}
	return err
}
