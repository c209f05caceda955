//go:build linux

package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const cloneDevice = "/dev/net/tun"

// open makes or opens a device by name, with so many queues.
func (t *TUN) open(name string, queues int) error {
	if name == "" {
		name = "tun%d"
	}
	t.name, t.isTUN = name, true
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	for len(t.queues) < queues {
		fd, err := unix.Open(cloneDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return t.openError(err)
		}
		if len(t.queues) == 0 && t.hasVnet(fd) {
			flags |= unix.IFF_VNET_HDR
			t.vnet = true
		}
		got, err := t.attach(fd, flags)
		if err == unix.EINVAL && queues == 1 { // a device that was made for several queues
			got, err = t.attach(fd, flags|unix.IFF_MULTI_QUEUE)
		}
		if err != nil {
			unix.Close(fd)
			return t.attachError(err, queues)
		}
		t.name = got
		if err := t.addQueue(fd); err != nil {
			return err
		}
	}
	return t.vnetSize()
}

// hasVnet reports whether the driver knows virtio-net headers, and little-endian ones.
func (t *TUN) hasVnet(fd int) bool {
	features, err := unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
	return err == nil && features&unix.IFF_VNET_HDR != 0
}

// attach connects a descriptor to the device (TUNSETIFF) and returns the device's name.
func (t *TUN) attach(fd int, flags uint16) (string, error) {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return "", err
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return "", err
	}
	return ifr.Name(), nil
}

// vnetSize fixes the headers' length and byte order, whatever the descriptor had before.
func (t *TUN) vnetSize() error {
	if !t.vnet {
		return nil
	}
	return t.queues[0].control(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, VnetHdrLen); err != nil {
			return fmt.Errorf("link: tun %s: the length of virtio-net headers: %w", t.name, err)
		}
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
			return fmt.Errorf("link: tun %s: the byte order of virtio-net headers: %w", t.name, err)
		}
		return nil
	})
}

// adopt takes a descriptor that somebody else has opened.
func (t *TUN) adopt(f *os.File) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("link: tun: File: %w", err)
	}
	var fd int
	cerr := rc.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("link: tun: File: %w", err)
	}
	ifr, _ := unix.NewIfreq("")
	if unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) == nil {
		t.isTUN, t.name = true, ifr.Name()
		flags := ifr.Uint16()
		t.vnet = flags&unix.IFF_VNET_HDR != 0
		t.unsure = !t.vnet // the bit of IFF_NO_PI says something else here: IFF_NOFILTER
		if flags&unix.IFF_TAP != 0 {
			err = fmt.Errorf("link: tun: File is the TAP device %s, which carries Ethernet frames; open a TUN device (IFF_TUN)", t.name)
		}
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	if err := t.addQueue(fd); err != nil {
		return err
	}
	return t.vnetSize()
}

// configure gives the device its MTU and the kernel its address.
func (t *TUN) configure(c *TUNConfig) error {
	t.mtu = c.MTU
	if !t.isTUN {
		t.mtu = or(t.mtu, defaultMTU)
		if c.Host.IsValid() {
			return errors.New("link: tun: Host is for a TUN device, and File is none")
		}
		return nil
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("link: tun %s: %w", t.name, err)
	}
	defer unix.Close(s)
	if err := t.setMTU(s, c.MTU); err != nil {
		return err
	}
	if t.mtu > maxPacket-VnetHdrLen {
		t.allowed = false
	}
	if c.Host.IsValid() {
		return t.setHost(s, c.Host)
	}
	return nil
}

func or(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

func (t *TUN) setMTU(s, mtu int) error {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return fmt.Errorf("link: tun %s: %w", t.name, err)
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFMTU, ifr); err != nil {
		t.mtu = or(mtu, defaultMTU) // the device of a descriptor may be in another network namespace
		return nil
	}
	t.mtu = int(ifr.Uint32())
	if mtu == 0 || mtu == t.mtu {
		return nil
	}
	ifr.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, ifr); err != nil {
		return t.rights("setting the MTU", err)
	}
	t.mtu = mtu
	return nil
}

// setHost gives the kernel an address on the device, and brings it up.
func (t *TUN) setHost(s int, p netip.Prefix) error {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return fmt.Errorf("link: tun %s: %w", t.name, err)
	}
	set := func(what string, req uint, v []byte) error {
		if err := ifr.SetInet4Addr(v); err != nil {
			return fmt.Errorf("link: tun %s: %s: %w", t.name, what, err)
		}
		if err := unix.IoctlIfreq(s, req, ifr); err != nil {
			return t.rights(what, err)
		}
		return nil
	}
	if err := set("setting the address", unix.SIOCSIFADDR, p.Addr().AsSlice()); err != nil {
		return err
	}
	if err := set("setting the network mask", unix.SIOCSIFNETMASK, net.CIDRMask(p.Bits(), 32)); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
		return t.rights("reading the flags", err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return t.rights("bringing it up", err)
	}
	return nil
}

// wayOut says how to get the right to make devices.
const wayOut = "that takes CAP_NET_ADMIN in the network namespace: run it in a namespace of your own (unshare -Urn), " +
	"or give the program the capability (setcap cap_net_admin+ep), or open a device that was made for your user (ip tuntap add mode tun user …)"

// rights explains an error for want of rights.
func (t *TUN) rights(what string, err error) error {
	if err == unix.EPERM || err == unix.EACCES {
		return fmt.Errorf("link: tun %s: %s: %w; %s", t.name, what, err, wayOut)
	}
	return fmt.Errorf("link: tun %s: %s: %w", t.name, what, err)
}

func (t *TUN) openError(err error) error {
	switch err {
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return fmt.Errorf("link: tun: %s: %w; the kernel's tun module is not there (modprobe tun), or the container has not been given the device "+
			"(mknod %[1]s c 10 200, docker run --device %[1]s)", cloneDevice, err)
	}
	return t.rights("opening "+cloneDevice, err)
}

func (t *TUN) attachError(err error, queues int) error {
	switch {
	case err == unix.EBUSY:
		return fmt.Errorf("link: tun %s: %w: somebody has the device open; choose another name", t.name, err)
	case err == unix.EINVAL && strings.ContainsRune(t.name, '/'):
		return fmt.Errorf("link: tun: Name %q is not a device's name: %w", t.name, err)
	case err == unix.EINVAL && queues > 1:
		return fmt.Errorf("link: tun %s: %w: the device was not made for several queues (ip tuntap add mode tun multi_queue), or it is not a TUN device; "+
			"with Queues: 1 it may do", t.name, err)
	case err == unix.EINVAL:
		return fmt.Errorf("link: tun %s: %w: a device of that name is there, and is not a TUN device; choose another name", t.name, err)
	case err == unix.E2BIG:
		return fmt.Errorf("link: tun %s: %w: more queues than the kernel allows", t.name, err)
	}
	return t.rights("attaching", err)
}
