package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// isolated is the environment variable that is set if the program runs in a network namespace of
// its own. If it does not, the value says why.
const isolated = "BSDNET_BENCH_NETNS"

// isolate runs the program again in a fresh network namespace, and exits with its status. It
// returns if the program is in one already, whose loopback it brings up, or if there can be none.
func isolate() error {
	switch os.Getenv(isolated) {
	case "":
	case "yes":
		return setLink("lo", netip.Prefix{})
	default:
		return nil
	}
	err := again(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET})
	if errors.Is(err, syscall.EPERM) {
		err = again(&syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		})
	}
	return os.Setenv(isolated, fmt.Sprintf("cannot make a network namespace: %v", err))
}

// again starts the program once more, waits for it, and exits with its status. It returns only if
// it cannot start it.
func again(attr *syscall.SysProcAttr) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the signal below is sent when the thread ends
	attr.Pdeathsig = syscall.SIGKILL
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env, cmd.SysProcAttr = append(os.Environ(), isolated+"=yes"), attr
	if err := cmd.Start(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	signal.Ignore(os.Interrupt) // the new process gets it too
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		os.Exit(exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
	return nil
}

// namespace returns the reason why there is no network namespace.
func namespace() error {
	if s := os.Getenv(isolated); s != "yes" {
		return errors.New(s)
	}
	return nil
}

// setLink brings up an interface of the thread's namespace, and sets its address if p is valid.
func setLink(name string, p netip.Prefix) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if p.IsValid() {
		ifr.SetInet4Addr(p.Addr().AsSlice())
		if err := unix.IoctlIfreq(s, unix.SIOCSIFADDR, ifr); err != nil {
			return fmt.Errorf("%s: address: %w", name, err)
		}
		ifr.SetInet4Addr(net.CIDRMask(p.Bits(), 32))
		if err := unix.IoctlIfreq(s, unix.SIOCSIFNETMASK, ifr); err != nil {
			return fmt.Errorf("%s: mask: %w", name, err)
		}
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("%s: flags: %w", name, err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("%s: up: %w", name, err)
	}
	return nil
}

// inNamespace runs f on a thread in the namespace of fd, and ends the thread. The sockets that f
// makes stay in the namespace.
func inNamespace(fd int, f func() error) error {
	errs := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(fd, unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		errs <- err
	}()
	return <-errs
}

// newNamespace makes a network namespace that lasts as long as the descriptor, and as the sockets
// and devices in it.
func newNamespace() (fd int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
	}()
	<-done
	return fd, err
}

// newVeth makes a pair of devices, one here and the other, by name, in a namespace (rtnetlink(7),
// RTM_NEWLINK).
func newVeth(here, there string, namespace int) error {
	peer := attribute(unix.IFLA_IFNAME, append([]byte(there), 0))
	peer = append(peer, attribute(unix.IFLA_NET_NS_FD, binary32(namespace))...)
	info := append(make([]byte, unix.SizeofIfInfomsg), peer...)
	data := attribute(unix.IFLA_INFO_DATA, attribute(vethInfoPeer, info))
	body := make([]byte, unix.SizeofIfInfomsg)
	body = append(body, attribute(unix.IFLA_IFNAME, append([]byte(here), 0))...)
	kind := attribute(unix.IFLA_INFO_KIND, []byte("veth"))
	body = append(body, attribute(unix.IFLA_LINKINFO, append(kind, data...))...)
	return rtnetlink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body)
}

// delLink removes a device.
func delLink(name string) error {
	body := append(make([]byte, unix.SizeofIfInfomsg), attribute(unix.IFLA_IFNAME, append([]byte(name), 0))...)
	return rtnetlink(unix.RTM_DELLINK, 0, body)
}

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

// attribute returns a netlink attribute with padding.
func attribute(kind int, value []byte) []byte {
	b := make([]byte, unix.SizeofRtAttr, unix.SizeofRtAttr+len(value)+3)
	*(*unix.RtAttr)(unsafe.Pointer(&b[0])) = unix.RtAttr{
		Len: uint16(unix.SizeofRtAttr + len(value)), Type: uint16(kind),
	}
	b = append(b, value...)
	for len(b)%unix.RTA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

func binary32(v int) []byte {
	b := make([]byte, 4)
	*(*uint32)(unsafe.Pointer(&b[0])) = uint32(v)
	return b
}

// rtnetlink sends a request and waits for the acknowledgment.
func rtnetlink(kind, flags int, body []byte) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	msg := append(make([]byte, unix.SizeofNlMsghdr), body...)
	*(*unix.NlMsghdr)(unsafe.Pointer(&msg[0])) = unix.NlMsghdr{
		Len: uint32(len(msg)), Type: uint16(kind), Flags: uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags), Seq: 1,
	}
	if err := unix.Sendto(s, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	switch {
	case err != nil:
		return err
	case n < unix.SizeofNlMsghdr+4:
		return errors.New("netlink: the kernel's answer is too short")
	}
	if code := *(*int32)(unsafe.Pointer(&answer[unix.SizeofNlMsghdr])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
