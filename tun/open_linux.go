//go:build linux

package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bsdnet/internal/kern/wire"
	"bsdnet/internal/link"
)

const cloneDevice = "/dev/net/tun"

// open makes or opens the device of a name, with a number of queues.
func (t *Link) open(name string, queues int) error {
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
		if err == unix.EINVAL && queues == 1 { // the device was made for several queues
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

// hasVnet reports whether the driver supports virtio-net headers. A driver that does also supports
// little-endian ones.
func (t *Link) hasVnet(fd int) bool {
	features, err := unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
	return err == nil && features&unix.IFF_VNET_HDR != 0
}

// attach connects a descriptor to the device (TUNSETIFF) and returns the device's name.
func (t *Link) attach(fd int, flags uint16) (string, error) {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return "", err
	}
	if flags&unix.IFF_MULTI_QUEUE != 0 && len(t.queues) == 0 && inUse(t.name) {
		return "", unix.EBUSY // the kernel would divide the flows between two unrelated programs
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return "", err
	}
	return ifr.Name(), nil
}

// inUse reports whether there is a device that has several queues, and a program has one of them
// open, as far as the kernel tells (rtnetlink(7)).
func inUse(name string) bool {
	rib, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return false
	}
	msgs, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return false
	}
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		b := m.Data[unix.SizeofIfInfomsg:]
		if string(netlinkAttr(b, unix.IFLA_IFNAME)) != name+"\x00" {
			continue
		}
		n := netlinkAttr(netlinkAttr(netlinkAttr(b, unix.IFLA_LINKINFO), unix.IFLA_INFO_DATA), unix.IFLA_TUN_NUM_QUEUES)
		return len(n) == 4 && binary.NativeEndian.Uint32(n) > 0
	}
	return false
}

// netlinkAttr returns the value of the first attribute of a type, or nil.
func netlinkAttr(b []byte, attr uint16) []byte {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:])&0x3fff == attr { // NLA_TYPE_MASK
			return b[unix.SizeofNlAttr:n]
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// vnetSize sets the length and byte order of the headers, whatever they were on the descriptor.
func (t *Link) vnetSize() error {
	if !t.vnet {
		return nil
	}
	return t.queues[0].control(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHdrLen); err != nil {
			return fmt.Errorf("tun: %s: setting the length of virtio-net headers: %w", t.name, err)
		}
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
			return fmt.Errorf("tun: %s: setting the byte order of virtio-net headers: %w", t.name, err)
		}
		return nil
	})
}

// adopt duplicates a descriptor that the program has opened.
func (t *Link) adopt(f *os.File) error {
	if _, err := f.Stat(); err != nil { // if f is closed, this error wraps os.ErrClosed; the next ones would not
		return fmt.Errorf("tun: File: %w", err)
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("tun: File: %w", err)
	}
	var fd int
	cerr := rc.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("tun: File: %w", err)
	}
	ifr, _ := unix.NewIfreq("")
	if errno := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); errno != nil {
		err = carriesPackets(fd, errno)
	} else {
		t.isTUN, t.name = true, ifr.Name()
		flags := ifr.Uint16()
		t.vnet = flags&unix.IFF_VNET_HDR != 0
		t.unsure = true // TUNGETIFF reports another flag, IFF_NOFILTER, in the bit of IFF_NO_PI
		if flags&unix.IFF_TAP != 0 {
			err = fmt.Errorf("tun: File is the TAP device %s, which carries Ethernet frames; "+
				"open a TUN device (IFF_TUN)", t.name)
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

// carriesPackets returns nil if a descriptor keeps packets apart. errno is its answer to TUNGETIFF.
func carriesPackets(fd int, errno error) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("tun: File: %w", err)
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFSOCK:
		if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && typ != unix.SOCK_STREAM {
			return nil
		}
	case kind == unix.S_IFCHR && errno == unix.EBADFD:
		return fmt.Errorf("tun: File is %s, but not attached to a device; attach it with TUNSETIFF: %w",
			cloneDevice, errno)
	case kind == unix.S_IFCHR && (errno == unix.EACCES || errno == unix.EPERM): // a sandbox forbids TUNGETIFF
		return nil
	}
	return fmt.Errorf("tun: File is neither a TUN device nor a socket that keeps packets apart "+
		"(SOCK_DGRAM or SOCK_SEQPACKET): %w", unix.EINVAL)
}

// configure sets the device's MTU and the kernel's address.
func (t *Link) configure(c *Config) error {
	t.mtu = c.MTU
	if !t.isTUN {
		t.mtu = or(t.mtu, link.DefaultMTU)
		if c.Host.IsValid() || c.Host6.IsValid() {
			return errors.New("tun: Host and Host6 need a TUN device, and File is none; leave them out")
		}
		return nil
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("tun: %s: %w", t.name, err)
	}
	defer unix.Close(s)
	if err := t.setMTU(s, c.MTU); err != nil {
		return err
	}
	if t.mtu > link.MaxPacket-vnetHdrLen {
		t.allowed = false
	}
	if c.File == nil && t.ours() {
		t.setQueueLen(s)
	}
	if c.Host.IsValid() {
		if err := t.setHost(s, c.Host); err != nil {
			return err
		}
	}
	if c.Host.IsValid() || c.Host6.IsValid() {
		if err := t.bringUp(s); err != nil {
			return err
		}
	}
	if c.Host6.IsValid() {
		return t.setHost6(s, c.Host6)
	}
	return nil
}

// or returns n or, if n is 0, def.
func or(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

func (t *Link) setMTU(s, mtu int) error {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return fmt.Errorf("tun: %s: %w", t.name, err)
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFMTU, ifr); err != nil {
		t.mtu = or(mtu, link.DefaultMTU) // the device of a File may be in another network namespace
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

// queueLen is the txqueuelen of a device that Open makes: how many packets wait in the kernel for
// each queue. The kernel's default, 500, is less than a thousand clients send at once. The packets
// that the kernel then drops, such as SYNs, are sent again only after a second.
const queueLen = 5000

// ours reports whether Open has made the device. Otherwise the device is persistent, or another
// program has it open.
func (t *Link) ours() bool {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return false
	}
	err = t.queues[0].control(func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) })
	return err == nil && ifr.Uint16()&unix.IFF_PERSIST == 0
}

// setQueueLen sets the device's txqueuelen. It ignores errors, because the device works without it.
func (t *Link) setQueueLen(s int) {
	if ifr, err := unix.NewIfreq(t.name); err == nil {
		ifr.SetUint32(queueLen)
		unix.IoctlIfreq(s, unix.SIOCSIFTXQLEN, ifr)
	}
}

// setHost gives the kernel an IPv4 address on the device.
func (t *Link) setHost(s int, p netip.Prefix) error {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return fmt.Errorf("tun: %s: %w", t.name, err)
	}
	set := func(what string, req uint, v []byte) error {
		if err := ifr.SetInet4Addr(v); err != nil {
			return fmt.Errorf("tun: %s: %s: %w", t.name, what, err)
		}
		if err := unix.IoctlIfreq(s, req, ifr); err != nil {
			return t.rights(what, err)
		}
		return nil
	}
	if err := set("setting the address", unix.SIOCSIFADDR, p.Addr().AsSlice()); err != nil {
		return err
	}
	return set("setting the network mask", unix.SIOCSIFNETMASK, net.CIDRMask(p.Bits(), 32))
}

// setHost6 gives the kernel an IPv6 address on the device, which is up, and waits until it takes
// packets to that address.
func (t *Link) setHost6(s int, p netip.Prefix) error {
	const what = "setting the IPv6 address"
	if t.mtu < wire.IPv6MinMTU {
		return fmt.Errorf("tun: %s: %s: IPv6 needs an MTU of at least %d (RFC 8200, 5), and the device's is %d; "+
			"give an MTU", t.name, what, wire.IPv6MinMTU, t.mtu)
	}
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return fmt.Errorf("tun: %s: %w", t.name, err)
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr); err != nil {
		return fmt.Errorf("tun: %s: reading the index: %w", t.name, err)
	}
	switch err := addAddr(ifr.Uint32(), p); err {
	case nil:
		awaitLocal(p.Addr())
		return nil
	case unix.EACCES, unix.EAFNOSUPPORT, unix.EOPNOTSUPP:
		// The kernel's answer if disable_ipv6 is set is EACCES, and that to a program without
		// rights is EPERM.
		return fmt.Errorf("tun: %s: %s: %w: the kernel has IPv6 switched off; "+
			"see the variables net.ipv6.conf.*.disable_ipv6", t.name, what, err)
	default:
		return t.rights(what, err)
	}
}

// bringUp brings the device up.
func (t *Link) bringUp(s int) error {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return fmt.Errorf("tun: %s: %w", t.name, err)
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
		return t.rights("reading the flags", err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return t.rights("bringing the device up", err)
	}
	return nil
}

// wayOut says how to get the right to make devices.
const wayOut = "this needs CAP_NET_ADMIN in the network namespace: run the program in its own namespace " +
	"(unshare -Urn), or give it the capability (setcap cap_net_admin+ep), or open a device that was made " +
	"for your user (ip tuntap add mode tun user …)"

// rights adds wayOut to an error if it says that the program lacks a right.
func (t *Link) rights(what string, err error) error {
	if err == unix.EPERM || err == unix.EACCES {
		return fmt.Errorf("tun: %s: %s: %w; %s", t.name, what, err, wayOut)
	}
	return fmt.Errorf("tun: %s: %s: %w", t.name, what, err)
}

func (t *Link) openError(err error) error {
	switch err {
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return fmt.Errorf("tun: %s: %w; load the kernel's tun module (modprobe tun), or give the container the device "+
			"(mknod %[1]s c 10 200, docker run --device %[1]s)", cloneDevice, err)
	}
	return t.rights("opening "+cloneDevice, err)
}

// deviceName reports whether a device may have this name, by the rules of dev_valid_name and
// dev_alloc_name in Linux.
func deviceName(name string) bool {
	_, number, pattern := strings.Cut(name, "%")
	return name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r") &&
		(!pattern || strings.HasPrefix(number, "d") && !strings.Contains(number, "%"))
}

func (t *Link) attachError(err error, queues int) error {
	switch {
	case err == unix.EBUSY:
		return fmt.Errorf("tun: %s: %w: another program has the device open; choose another Name", t.name, err)
	case err == unix.EINVAL && !deviceName(t.name):
		return fmt.Errorf("tun: Name %q is not a device's name: %w; a name has no slash, colon or space, "+
			"and no %% except one %%d", t.name, err)
	case err == unix.EINVAL && queues > 1:
		return fmt.Errorf("tun: %s: %w: the device was not made for several queues, or is not a TUN device; "+
			"make it with ip tuntap add mode tun multi_queue, or set Queues to 1", t.name, err)
	case err == unix.EINVAL:
		return fmt.Errorf("tun: %s: %w: there is a device of that name that is not a TUN device; choose another Name",
			t.name, err)
	case err == unix.E2BIG:
		return fmt.Errorf("tun: %s: %w: this is more queues than the kernel allows; set Queues lower", t.name, err)
	}
	return t.rights("attaching", err)
}
