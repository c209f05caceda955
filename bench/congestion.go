package main

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// A congestion is a congestion control, with the name that each implementation has for it.
type congestion struct{ kernel, bsdnet, gvisor string }

// congestions are the congestion controls that -cc accepts. The first is the default, as in Linux
// and bsdnet. The kernel's BBR is version 1. gVisor has no BBR, and uses CUBIC instead, which is as
// good as any if nothing is lost.
var congestions = []congestion{
	{kernel: "cubic", bsdnet: "cubic", gvisor: "cubic"},
	{kernel: "reno", bsdnet: "newreno", gvisor: "reno"},
	{kernel: "bbr", bsdnet: "bbr1", gvisor: "cubic"},
}

// findCongestion returns the congestion control with the kernel's name for it.
func findCongestion(name string) (congestion, error) {
	var names []string
	for _, c := range congestions {
		if c.kernel == name {
			return c, nil
		}
		names = append(names, c.kernel)
	}
	return congestion{}, fmt.Errorf("unknown congestion control %q; choose one of %s", name, strings.Join(names, ", "))
}

// listen listens with the kernel's TCP. The connections have the listener's congestion control. The
// default of the namespace would not do: it can only be one that the host allows to every user.
func (c congestion) listen(address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: c.control}
	return lc.Listen(context.Background(), "tcp4", address)
}

// dial dials with the kernel's TCP.
func (c congestion) dial(address string) (net.Conn, error) {
	d := net.Dialer{Control: c.control}
	return d.Dial("tcp4", address)
}

// possible returns an error if the kernel does not let the process use this congestion control.
func (c congestion) possible() error {
	ln, err := c.listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	return ln.Close()
}
