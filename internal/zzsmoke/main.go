//go:build linux

package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime/pprof"
	"syscall"
	"time"

	"bsdnet"
)

func main() {
	queues := flag.Int("q", 1, "")
	noff := flag.Bool("nooff", false, "")
	flows := flag.Int("flows", 1, "")
	up := flag.Bool("up", false, "")
	pp := flag.Bool("pp", false, "")
	prof := flag.String("prof", "", "")
	flag.Parse()
	if os.Getenv("INNS") == "" {
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), "INNS=1")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if err := c.Run(); err != nil {
			fmt.Println(err)
		}
		return
	}
	s, _ := bsdnet.New(bsdnet.Config{TCP: bsdnet.TCPConfig{ReadBuffer: 1 << 20, WriteBuffer: 1 << 20}})
	tun, err := bsdnet.OpenTUN(bsdnet.TUNConfig{Host: netip.MustParsePrefix("10.0.0.1/24"), Queues: *queues, NoOffload: *noff})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Attach(tun, netip.MustParsePrefix("10.0.0.2/24")); err != nil {
		fmt.Println(err)
		return
	}
	ln, err := s.Listen("tcp", ":80")
	if err != nil {
		fmt.Println(err)
		return
	}
	if *prof != "" {
		f, _ := os.Create(*prof)
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	const total = 2 << 30
	const dur = 2 * time.Second
	sink := func(c net.Conn) int64 {
		buf := make([]byte, 64<<10)
		var n int64
		for {
			k, err := c.Read(buf)
			n += int64(k)
			if err != nil {
				return n
			}
		}
	}
	src := func(c net.Conn) {
		buf := make([]byte, 64<<10)
		for end := time.Now().Add(dur); time.Now().Before(end); {
			if _, err := c.Write(buf); err != nil {
				fmt.Println(err)
				return
			}
		}
		c.Close()
	}
	if *pp {
		go func() {
			c, _ := ln.Accept()
			io.Copy(c, c)
		}()
		c, err := net.Dial("tcp", "10.0.0.2:80")
		if err != nil {
			fmt.Println(err)
			return
		}
		b := make([]byte, 1)
		n := 0
		start := time.Now()
		for time.Since(start) < dur {
			c.Write(b)
			c.Read(b)
			n++
		}
		fmt.Printf("pingpong %v\n", time.Since(start)/time.Duration(n))
		return
	}
	done := make(chan int64)
	start := time.Now()
	for range *flows {
		go func() {
			c, err := ln.Accept()
			if err != nil {
				fmt.Println(err)
				return
			}
			if *up {
				done <- sink(c)
			} else {
				src(c)
			}
		}()
		c, err := net.Dial("tcp", "10.0.0.2:80")
		if err != nil {
			fmt.Println(err)
			return
		}
		if *up {
			go src(c)
		} else {
			go func() { done <- sink(c) }()
		}
	}
	var sum int64
	for range *flows {
		sum += <-done
	}
	fmt.Printf("%.1f Gbit/s\n", float64(sum)*8/time.Since(start).Seconds()/1e9)
	for _, c := range s.Conns() {
		fmt.Println(c.State, c.Retransmits, c.Cwnd, c.RTT)
	}
}
