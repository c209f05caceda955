//go:build !linux

package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// TUN is a TUN device, one of golang.zx2c4.com/wireguard/tun: utun on macOS, Wintun on Windows. It is a [Link]. Addresses and routes of the kernel's
// side are set with ifconfig and route, or netsh.
type TUN struct {
	dev  tunDevice
	name string
	mtu  int

	state atomic.Int32
	rd    tunScratch // the reader's
	wrMu  sync.Mutex
	wr    tunScratch
}

// A tunDevice is the part of that package's Device that a TUN needs.
type tunDevice interface {
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	Write(bufs [][]byte, offset int) (int, error)
	BatchSize() int
	Close() error
}

// A tunScratch is one packet, with room in front for what the device puts there.
type tunScratch struct {
	bufs  [1][]byte
	sizes [1]int
}

// tunOffset is that room: utun has 4 bytes with the address family.
const tunOffset = 16

var _ Link = (*TUN)(nil)

// OpenTUN makes a device, as the configuration says. Several queues and Host are for Linux alone.
func OpenTUN(config TUNConfig) (*TUN, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	switch {
	case config.Host.IsValid():
		return nil, errors.New("link: tun: Host can be set on Linux only; leave it out, and set the address with ifconfig or netsh")
	case config.Queues > 1:
		return nil, errors.New("link: tun: several Queues are for Linux only; leave it at 1")
	}
	if config.MTU == 0 {
		config.MTU = defaultMTU
	}
	dev, name, err := createTUN(&config)
	if err != nil {
		return nil, fmt.Errorf("link: tun: %w", err)
	}
	t := &TUN{dev: dev, name: name, mtu: config.MTU}
	t.rd.bufs[0] = make([]byte, tunOffset+maxPacket)
	t.wr.bufs[0] = make([]byte, tunOffset+maxPacket)
	return t, nil
}

// Name returns the device's name.
func (t *TUN) Name() string { return t.name }

// MTU implements [Link].
func (t *TUN) MTU() int { return t.mtu }

// Start implements [Link].
func (t *TUN) Start(ready func()) error {
	if ready == nil {
		return errNoReady
	}
	if t.state.CompareAndSwap(stateNew, stateStarted) {
		return nil
	}
	if t.state.Load() == stateClosed {
		return net.ErrClosed
	}
	return errStarted
}

// Read implements [Link]. It reads one packet.
func (t *TUN) Read(bufs [][]byte, sizes []int) (int, error) {
	if err := stateError(t.state.Load()); err != nil {
		return 0, err
	}
	if len(bufs) == 0 || len(sizes) == 0 {
		return 0, nil
	}
	for {
		n, err := t.dev.Read(t.rd.bufs[:], t.rd.sizes[:], tunOffset)
		switch size := t.rd.sizes[0]; {
		case t.state.Load() == stateClosed || errors.Is(err, os.ErrClosed):
			return 0, net.ErrClosed
		case err != nil:
			return 0, fmt.Errorf("link: tun %s: read: %w", t.name, err)
		case n > 0 && size > 0 && size <= len(bufs[0]):
			sizes[0] = copy(bufs[0], t.rd.bufs[0][tunOffset:tunOffset+size])
			return 1, nil
		}
	}
}

// Write implements [Link].
func (t *TUN) Write(pkts []net.Buffers) (int, error) {
	if err := stateError(t.state.Load()); err != nil {
		return 0, err
	}
	t.wrMu.Lock()
	defer t.wrMu.Unlock()
	full := t.wr.bufs[0]
	defer func() { t.wr.bufs[0] = full }()
	for i, p := range pkts {
		b := full[:tunOffset]
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
		if _, err := t.dev.Write(t.wr.bufs[:], tunOffset); err != nil {
			if t.state.Load() == stateClosed || errors.Is(err, os.ErrClosed) {
				return 0, net.ErrClosed
			}
			return i, fmt.Errorf("link: tun %s: write: %w", t.name, err)
		}
	}
	return len(pkts), nil
}

// Close implements [Link]. The device goes away.
func (t *TUN) Close() error {
	if t.state.Swap(stateClosed) == stateClosed {
		return net.ErrClosed
	}
	return t.dev.Close()
}
