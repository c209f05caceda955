package kern

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"bsdnet/internal/kern/mbuf"
	"bsdnet/internal/kern/tcp"
)

// Variables have FreeBSD's names, and a script, a test or a debugger can set them on one stack.
// Times are in milliseconds, as in sysctl(8), sizes in bytes, booleans 0 or 1. A variable holds for
// sockets that are made after it has been set.

// A sysctlVar reads and writes a variable.
type sysctlVar struct {
	get      func(k *Kernel) int64
	set      func(k *Kernel, v int64)
	min, max int64
}

// boolVar makes a variable, 0 or 1, of a flag in the profile, which f finds.
func boolVar(f func(p *tcp.Profile) *bool) sysctlVar {
	return sysctlVar{max: 1,
		get: func(k *Kernel) int64 {
			if *f(&k.prof) {
				return 1
			}
			return 0
		},
		set: func(k *Kernel, v int64) { *f(&k.prof) = v != 0 },
	}
}

// flagVar makes a variable, 0 or 1, of a flag that f finds. It holds at once.
func flagVar(f func(k *Kernel) *atomic.Bool) sysctlVar {
	return sysctlVar{max: 1,
		get: func(k *Kernel) int64 {
			if f(k).Load() {
				return 1
			}
			return 0
		},
		set: func(k *Kernel, v int64) { f(k).Store(v != 0) },
	}
}

// intVar makes a variable of a number in the profile, which f finds, between lo and hi.
func intVar(lo, hi int64, f func(p *tcp.Profile) *int) sysctlVar {
	return kernelVar(lo, hi, func(k *Kernel) *int { return f(&k.prof) })
}

// kernelVar makes a variable of a number that f finds, between lo and hi. If int has 32 bits, a
// larger value counts as the largest int.
func kernelVar(lo, hi int64, f func(k *Kernel) *int) sysctlVar {
	return sysctlVar{min: lo, max: hi,
		get: func(k *Kernel) int64 { return int64(*f(k)) },
		set: func(k *Kernel, v int64) { *f(k) = int(min(v, math.MaxInt)) },
	}
}

// msVar makes a variable in milliseconds of a time in the profile, which f finds.
func msVar(f func(p *tcp.Profile) *int64) sysctlVar {
	const ms = int64(time.Millisecond)
	return sysctlVar{max: maxInt,
		get: func(k *Kernel) int64 { return *f(&k.prof) / ms },
		set: func(k *Kernel, v int64) { *f(&k.prof) = v * ms },
	}
}

type profile = tcp.Profile

const maxInt = 1<<31 - 1

var sysctls = map[string]sysctlVar{
	"kern.ipc.maxsockbuf":                    intVar(2048, 1<<32-1, func(p *profile) *int { return &p.Maxsockbuf }),
	"kern.ipc.somaxconn":                     kernelVar(1, maxInt, func(k *Kernel) *int { return &k.somaxconn }),
	"net.inet.ip.forwarding":                 flagVar(func(k *Kernel) *atomic.Bool { return &k.ipforwarding }),
	"net.inet6.ip6.v6only":                   boolVar(func(p *profile) *bool { return &p.V6Only }),
	"net.inet6.ip6.forwarding":               flagVar(func(k *Kernel) *atomic.Bool { return &k.ip6forwarding }),
	"net.inet.tcp.sendspace":                 intVar(1, mbuf.MaxHiwat, func(p *profile) *int { return &p.Sendspace }),
	"net.inet.tcp.recvspace":                 intVar(1, mbuf.MaxHiwat, func(p *profile) *int { return &p.Recvspace }),
	"net.inet.tcp.sendbuf_auto":              boolVar(func(p *profile) *bool { return &p.SendbufAuto }),
	"net.inet.tcp.sendbuf_max":               intVar(1, mbuf.MaxHiwat, func(p *profile) *int { return &p.SendbufMax }),
	"net.inet.tcp.recvbuf_auto":              boolVar(func(p *profile) *bool { return &p.RecvbufAuto }),
	"net.inet.tcp.recvbuf_max":               intVar(1, mbuf.MaxHiwat, func(p *profile) *int { return &p.RecvbufMax }),
	"net.inet.tcp.rfc1323":                   boolVar(func(p *profile) *bool { return &p.RFC1323 }),
	"net.inet.tcp.sack.enable":               boolVar(func(p *profile) *bool { return &p.Sack }),
	"net.inet.tcp.ecn.enable":                intVar(0, 2, func(p *profile) *int { return &p.ECN }),
	"net.inet.tcp.ecn.maxretries":            intVar(0, 12, func(p *profile) *int { return &p.ECNRetries }),
	"net.inet.tcp.mssdflt":                   intVar(32, 65495, func(p *profile) *int { return &p.MSSDflt }),
	"net.inet.tcp.v6mssdflt":                 intVar(32, 65475, func(p *profile) *int { return &p.V6MSSDflt }),
	"net.inet.tcp.minmss":                    intVar(32, 65495, func(p *profile) *int { return &p.MinMSS }),
	"net.inet.tcp.initcwnd_segments":         intVar(1, 1000, func(p *profile) *int { return &p.InitCwndSegs }),
	"net.inet.tcp.rfc3042":                   boolVar(func(p *profile) *bool { return &p.LimitedTransmit }),
	"net.inet.tcp.rfc3465":                   boolVar(func(p *profile) *bool { return &p.ABC }),
	"net.inet.tcp.delacktime":                msVar(func(p *profile) *int64 { return &p.Delack }),
	"net.inet.tcp.delayed_ack":               {max: 1, get: getDelayedAck, set: setDelayedAck},
	"net.inet.tcp.ack_war_cnt":               intVar(0, maxInt, func(p *profile) *int { return &p.ChallengeN }),
	"net.inet.tcp.ack_war_timewindow":        msVar(func(p *profile) *int64 { return &p.ChallengeT }),
	"net.inet.tcp.rexmit_initial":            msVar(func(p *profile) *int64 { return &p.RTOInit }),
	"net.inet.tcp.rexmit_min":                msVar(func(p *profile) *int64 { return &p.RTOMin }),
	"net.inet.tcp.rexmit_slop":               msVar(func(p *profile) *int64 { return &p.RTOSlop }),
	"net.inet.tcp.rexmit_drop_options":       boolVar(func(p *profile) *bool { return &p.DropOptions }),
	"net.inet.tcp.persmin":                   msVar(func(p *profile) *int64 { return &p.PersMin }),
	"net.inet.tcp.persmax":                   msVar(func(p *profile) *int64 { return &p.PersMax }),
	"net.inet.tcp.reass.maxqueuelen":         intVar(1, 1<<16, func(p *profile) *int { return &p.ReassMaxqueuelen }),
	"net.inet.tcp.retries":                   intVar(1, 12, func(p *profile) *int { return &p.MaxRxtShift }),
	"net.inet.tcp.pmtud_blackhole_detection": boolVar(func(p *profile) *bool { return &p.Blackhole }),
	"net.inet.tcp.scoreboard":                boolVar(func(p *profile) *bool { return &p.Scoreboard }),
	"net.inet.tcp.msl":                       msVar(func(p *profile) *int64 { return &p.MSL }),
	"net.inet.tcp.finwait2_timeout":          msVar(func(p *profile) *int64 { return &p.FinWait2 }),
	"net.inet.tcp.nolocaltimewait":           boolVar(func(p *profile) *bool { return &p.NoLocalTimeWait }),
	"net.inet.tcp.drop_synfin":               boolVar(func(p *profile) *bool { return &p.DropSynFin }),
	"net.inet.tcp.insecure_rst":              boolVar(func(p *profile) *bool { return &p.InsecureRST }),
	"net.inet.tcp.insecure_syn":              boolVar(func(p *profile) *bool { return &p.InsecureSYN }),
	"net.inet.tcp.icmp_may_rst":              boolVar(func(p *profile) *bool { return &p.ICMPMayRST }),
	"net.inet.tcp.always_keepalive":          boolVar(func(p *profile) *bool { return &p.Keepalive }),
	"net.inet.tcp.keepinit":                  msVar(func(p *profile) *int64 { return &p.Keepinit }),
	"net.inet.tcp.keepidle":                  msVar(func(p *profile) *int64 { return &p.Keepidle }),
	"net.inet.tcp.keepintvl":                 msVar(func(p *profile) *int64 { return &p.Keepintvl }),
	"net.inet.tcp.keepcnt":                   intVar(1, 255, func(p *profile) *int { return &p.Keepcnt }),
	"net.inet.tcp.syncache.rexmtlimit":       kernelVar(0, 10, func(k *Kernel) *int { return &k.syncache.rexmtLimit }),
	"net.inet.tcp.maxtcptw":                  kernelVar(0, maxInt, func(k *Kernel) *int { return &k.twMax }),
}

func getDelayedAck(k *Kernel) int64 {
	if k.prof.Delack > 0 {
		return 1
	}
	return 0
}

func setDelayedAck(k *Kernel, v int64) {
	switch {
	case v == 0:
		k.prof.Delack = 0
	case k.prof.Delack == 0:
		k.prof.Delack = 40 * int64(time.Millisecond)
	}
}

// Sysctl returns the value of a variable. It fails with ENOENT if there is none of that name.
func (k *Kernel) Sysctl(name string) (int64, error) {
	v, ok := sysctls[name]
	if !ok {
		return 0, fmt.Errorf("sysctl %s: %w", name, syscall.ENOENT)
	}
	return v.get(k), nil
}

// SetSysctl sets a variable. It fails with ENOENT if there is none of that name, and with EINVAL if
// the variable cannot have the value.
func (k *Kernel) SetSysctl(name string, val int64) error {
	v, ok := sysctls[name]
	if !ok {
		return fmt.Errorf("sysctl %s: %w", name, syscall.ENOENT)
	}
	if val < v.min || val > v.max {
		return fmt.Errorf("sysctl %s=%d: %w: it can be %d to %d", name, val, syscall.EINVAL, v.min, v.max)
	}
	v.set(k, val)
	return nil
}

// ccAlgorithm is the only variable that is a word.
const ccAlgorithm = "net.inet.tcp.cc.algorithm"

// SysctlString returns the value of a variable that is a word. It fails with ENOENT if there is
// none of that name.
func (k *Kernel) SysctlString(name string) (string, error) {
	if name != ccAlgorithm {
		return "", fmt.Errorf("sysctl %s: %w", name, syscall.ENOENT)
	}
	return k.prof.CCName(), nil
}

// SetSysctlString sets a variable that is a word. It fails with ENOENT if there is none of that
// name, and with EINVAL if the variable cannot have the value.
func (k *Kernel) SetSysctlString(name, val string) error {
	if name != ccAlgorithm {
		return fmt.Errorf("sysctl %s: %w", name, syscall.ENOENT)
	}
	if !k.prof.HasCC(val) {
		names := strings.Join(k.prof.CCNames(), ", ")
		return fmt.Errorf("sysctl %s=%q: %w: it can be %s", name, val, syscall.EINVAL, names)
	}
	k.prof.CC = val
	return nil
}
