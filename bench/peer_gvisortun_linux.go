package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/rawfile"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// vnetHdrLen is the length of struct virtio_net_hdr.
const vnetHdrLen = 10

// These constants are from linux/virtio_net.h.
const (
	vnetNeedsCsum = 1
	vnetGSOTCPv4  = 1
)

// A vnetLink is gVisor's end of a TUN device whose packets have virtio-net headers: host GSO. It
// differs from gVisor's fdbased link in two points: fdbased supports host GSO on sockets only, and
// waits in a system call, but a vnetLink waits in Go's poller, which is faster.
type vnetLink struct {
	*channel.Endpoint // has the methods of a link, and delivers packets; its queue is not used
	file              *os.File
	fd                int
	reader            sync.WaitGroup
}

// openGvisorTUN makes a gVisor stack behind a device with host GSO and one queue. With two queues
// it is slower.
func openGvisorTUN(cc congestion) (*network, error) {
	fd, err := openTUN(unix.IFF_VNET_HDR)
	if err != nil {
		return nil, err
	}
	l := &vnetLink{Endpoint: channel.New(1, tunMTU, ""), fd: fd, file: os.NewFile(uintptr(fd), tunName)}
	l.SupportedGSOKind = stack.HostGSOSupported
	l.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4); err != nil {
		l.end()
		return nil, fmt.Errorf("gvisor: offload: %w", err)
	}
	if err := setLink(tunName, clientPrefix); err != nil {
		l.end()
		return nil, err
	}
	rc, err := l.file.SyscallConn()
	if err != nil {
		l.end()
		return nil, err
	}
	s, err := newGvisor(cc, l, serverPrefix)
	if err != nil {
		l.end()
		return nil, err
	}
	l.reader.Go(func() { l.read(rc) })
	return overDevice(cc, func() (net.Listener, error) { return gvisorListen(s, serverPrefix.Addr()) }, func() {
		gvisorEnd(s)
		l.end()
	}), nil
}

// openTUN opens the device.
func openTUN(flags uint16) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	ifr, err := unix.NewIfreq(tunName)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("gvisor: TUN: %w", err)
	}
	return fd, nil
}

func (l *vnetLink) end() {
	l.file.Close()
	l.reader.Wait()
}

// GSOMaxSize returns the largest size of a packet.
func (*vnetLink) GSOMaxSize() uint32 { return stack.GVisorGSOMaxSize }

// WritePackets implements stack.LinkEndpoint.
func (l *vnetLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if err := l.write(pkt); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

func (l *vnetLink) write(pkt *stack.PacketBuffer) tcpip.Error {
	var hdr [vnetHdrLen]byte
	if gso := &pkt.GSOOptions; gso.Type == stack.GSOTCPv4 {
		binary.LittleEndian.PutUint16(hdr[2:], uint16(pkt.HeaderSize()))
		if gso.NeedsCsum {
			hdr[0] = vnetNeedsCsum
			binary.LittleEndian.PutUint16(hdr[6:], gso.L3HdrLen)
			binary.LittleEndian.PutUint16(hdr[8:], gso.CsumOffset)
		}
		if pkt.Data().Size() > int(gso.MSS) {
			hdr[1] = vnetGSOTCPv4
			binary.LittleEndian.PutUint16(hdr[4:], gso.MSS)
		}
	}
	var few [8]unix.Iovec
	iov := rawfile.AppendIovecFromBytes(few[:0], hdr[:], rawfile.MaxIovs)
	for _, v := range pkt.AsSlices() {
		iov = rawfile.AppendIovecFromBytes(iov, v, rawfile.MaxIovs)
	}
	if errno := rawfile.NonBlockingWriteIovec(l.fd, iov); errno != 0 {
		return tcpip.TranslateErrno(errno)
	}
	return nil
}

// read delivers packets until the device is closed.
func (l *vnetLink) read(rc syscall.RawConn) {
	var hdr [vnetHdrLen]byte
	views := make([]*buffer.View, len(fdbased.BufConfig))
	iov := make([]unix.Iovec, len(views)+1)
	for {
		refill(views, iov, &hdr)
		var n int
		var errno unix.Errno
		err := rc.Read(func(fd uintptr) bool {
			r, _, e := unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
			n, errno = int(r), e
			return e != unix.EAGAIN
		})
		if err != nil || errno != 0 || n <= vnetHdrLen {
			for _, v := range views {
				v.Release()
			}
			return
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: take(views, n-vnetHdrLen)})
		l.InjectInbound(header.IPv4ProtocolNumber, pkt)
		pkt.DecRef()
	}
}

// refill replaces the views that take has used.
func refill(views []*buffer.View, iov []unix.Iovec, hdr *[vnetHdrLen]byte) {
	iov[0].Base = &hdr[0]
	iov[0].SetLen(vnetHdrLen)
	for i, size := range fdbased.BufConfig {
		if views[i] != nil {
			continue
		}
		v := buffer.NewViewSize(size)
		views[i], iov[i+1].Base = v, v.BasePtr()
		iov[i+1].SetLen(size)
	}
}

// take makes a packet of the first n bytes without a copy.
func take(views []*buffer.View, n int) (b buffer.Buffer) {
	for i, v := range views {
		if n <= 0 {
			break
		}
		v.CapLength(min(n, v.Size()))
		n -= v.Size()
		b.Append(v)
		views[i] = nil
	}
	return b
}
