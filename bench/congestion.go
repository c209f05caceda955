package main

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// A congestion is a congestion control, by the names that those have for it whose TCP is measured.
type congestion struct{ kernel, bsdnet, gvisor string }

// congestions are those that -cc knows; the first is the default, as it is Linux's and bsdnet's. The
// kernel's BBR is version 1. gVisor has none, and CUBIC is as good as anything if nothing is lost.
var congestions = []congestion{
	{kernel: "cubic", bsdnet: "cubic", gvisor: "cubic"},
	{kernel: "reno", bsdnet: "newreno", gvisor: "reno"},
	{kernel: "bbr", bsdnet: "bbr1", gvisor: "cubic"},
}

// findCongestion returns the congestion control that the kernel calls by a name.
func findCongestion(name string) (congestion, error) {
	var names []string
	for _, c := range congestions {
		if c.kernel == name {
			return c, nil
		}
		names = append(names, c.kernel)
	}
	return congestion{}, fmt.Errorf("there is no %q; there are %s", name, strings.Join(names, ", "))
}

// listen listens by the kernel. Its connections have the listener's congestion control, and not the
// namespace's: that can be only one of those that the host allows to anybody.
func (c congestion) listen(address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: c.control}
	return lc.Listen(context.Background(), "tcp4", address)
}

// dial dials by the kernel.
func (c congestion) dial(address string) (net.Conn, error) {
	d := net.Dialer{Control: c.control}
	return d.Dial("tcp4", address)
}

// possible returns an error if the kernel does not let the process have this congestion control.
func (c congestion) possible() error {
	ln, err := c.listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	return ln.Close()
}
