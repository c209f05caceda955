//go:build !linux

package tun

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"bsdnet/internal/link"
)

// A Link is a TUN device, made by package golang.zx2c4.com/wireguard/tun: utun on macOS, Wintun on
// Windows. It is a bsdnet.Link. Set the system's addresses and routes with ifconfig and route on
// macOS, and with netsh on Windows.
type Link struct {
	dev  device
	name string
	mtu  int

	state link.State
	rd    scratch // the reader's
	wrMu  sync.Mutex
	wr    scratch
}

// A device is the part of that package's Device that a Link needs.
type device interface {
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	Write(bufs [][]byte, offset int) (int, error)
	BatchSize() int
	Close() error
}

// A scratch is a buffer for one packet, with headroom bytes in front for the device.
type scratch struct {
	bufs  [1][]byte
	sizes [1]int
}

// headroom is 16 bytes: utun needs 4 of them for the address family.
const headroom = 16

var _ link.Link = (*Link)(nil)

// open makes a device. Several queues, Host and Host6 are for Linux only.
func open(config *Config) (*Link, error) {
	switch {
	case config.Host.IsValid() || config.Host6.IsValid():
		return nil, errors.New("tun: Host and Host6 can be set on Linux only; leave them out, and set the " +
			"addresses with ifconfig or netsh")
	case config.Queues > 1:
		return nil, errors.New("tun: more than one of Queues needs Linux; leave Queues at 1")
	}
	if config.MTU == 0 {
		config.MTU = link.DefaultMTU
	}
	dev, name, err := createDevice(config)
	if err != nil {
		return nil, fmt.Errorf("tun: %w", err)
	}
	t := &Link{dev: dev, name: name, mtu: config.MTU}
	t.rd.bufs[0] = make([]byte, headroom+link.MaxPacket)
	t.wr.bufs[0] = make([]byte, headroom+link.MaxPacket)
	return t, nil
}

// Name returns the device's name.
func (t *Link) Name() string { return t.name }

// MTU implements bsdnet.Link.
func (t *Link) MTU() int { return t.mtu }

// Start implements bsdnet.Link.
func (t *Link) Start(ready func()) error {
	t.wrMu.Lock()
	defer t.wrMu.Unlock()
	if err := t.state.StartError("tun", ready); err != nil {
		return err
	}
	if !t.state.CompareAndSwap(link.New, link.Started) {
		return net.ErrClosed // closed meanwhile
	}
	return nil
}

// Read implements bsdnet.Link. It reads one packet.
func (t *Link) Read(bufs [][]byte, sizes []int) (int, error) {
	if err := t.state.IOError("tun"); err != nil {
		return 0, err
	}
	if len(bufs) == 0 || len(sizes) == 0 {
		return 0, nil
	}
	for {
		n, err := t.dev.Read(t.rd.bufs[:], t.rd.sizes[:], headroom)
		switch size := t.rd.sizes[0]; {
		case t.state.Load() == link.Closed || errors.Is(err, os.ErrClosed):
			return 0, net.ErrClosed
		case err != nil:
			return 0, fmt.Errorf("tun: %s: read: %w", t.name, err)
		case n > 0 && size > 0 && size <= len(bufs[0]):
			sizes[0] = copy(bufs[0], t.rd.bufs[0][headroom:headroom+size])
			return 1, nil
		}
	}
}

// Write implements bsdnet.Link.
func (t *Link) Write(pkts []net.Buffers) (int, error) {
	if err := t.state.IOError("tun"); err != nil {
		return 0, err
	}
	t.wrMu.Lock()
	defer t.wrMu.Unlock()
	full := t.wr.bufs[0]
	defer func() { t.wr.bufs[0] = full }()
	for i, p := range pkts {
		b := full[:headroom]
		size := 0
		for _, piece := range p {
			if size += len(piece); size <= t.mtu {
				b = append(b, piece...)
			}
		}
		if size == 0 || size > t.mtu {
			continue
		}
		t.wr.bufs[0] = b
		if _, err := t.dev.Write(t.wr.bufs[:], headroom); err != nil {
			if t.state.Load() == link.Closed || errors.Is(err, os.ErrClosed) {
				return 0, net.ErrClosed
			}
			return i, fmt.Errorf("tun: %s: write: %w", t.name, err)
		}
	}
	return len(pkts), nil
}

// Close implements bsdnet.Link. The device is removed.
func (t *Link) Close() error {
	if t.state.Swap(link.Closed) == link.Closed {
		return net.ErrClosed
	}
	return t.dev.Close()
}
