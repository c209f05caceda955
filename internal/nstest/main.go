//go:build linux

package nstest

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv tells the test program that it has been started in namespaces: its value is "1".
const insideEnv = "BSDNET_NSTEST_INSIDE"

// noSkipEnv, set to 1, makes a failure of what would otherwise be skipped: for the gate, where everything needed is there.
const noSkipEnv = "BSDNET_NO_SKIP"

// outside says why the tests do not run in namespaces; "" where they do.
var outside = "TestMain does not call nstest.Main"

// A Runner is a *testing.M, or what wraps one: its Run is called where the tests run.
type Runner interface{ Run() int }

// Main runs the tests, and returns the status to exit with. It starts the test program once more, in a network namespace and a mount namespace of
// its own, and for a user other than root in a user namespace too, where that user is root. There the loopback is up, and /run is empty and private.
// Where the system does not allow that, the tests run as they are, and [New] and [Need] skip them.
func Main(m Runner) int {
	if os.Getenv(insideEnv) == "1" {
		if err := enter(); err != nil {
			outside = err.Error()
		} else {
			outside = ""
		}
		return m.Run()
	}
	status, err := again()
	if err != nil {
		outside = "no namespaces of its own: " + err.Error()
		return m.Run()
	}
	return status
}

// again runs the program in namespaces. The error is of starting it.
func again() (int, error) {
	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				cmd.Process.Signal(s)
			case <-ended:
				return
			}
		}
	}()
	if err := cmd.Wait(); err != nil {
		return max(cmd.ProcessState.ExitCode(), 1), nil
	}
	return 0, nil
}

// enter furnishes the namespaces.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount --make-rprivate /: %w", err)
	}
	if err := unix.Mount("nstest", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("a tmpfs on /run: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil { // for ip-netns(8)
		return err
	}
	return loopbackUp()
}

// loopbackUp brings lo up in the thread's namespace.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return nil
}

// Skip skips a test that cannot run here, saying why. With BSDNET_NO_SKIP=1 the test fails instead.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(noSkipEnv) == "1" {
		t.Fatalf(noSkipEnv+"=1, and yet: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Need skips a test, as Skip does, where it does not run in namespaces, or where one of these programs is missing. A file, such as /dev/net/tun, must
// be there to be read and written.
func Need(t testing.TB, what ...string) {
	t.Helper()
	if outside != "" {
		Skip(t, "%s", outside)
	}
	for _, w := range what {
		if strings.HasPrefix(w, "/") {
			f, err := os.OpenFile(w, os.O_RDWR, 0)
			if err != nil {
				Skip(t, "%v", err)
			}
			f.Close()
		} else if _, err := lookPath(w); err != nil {
			Skip(t, "%v", err)
		}
	}
}

// lookPath looks for a program where administrators have theirs too.
func lookPath(name string) (string, error) {
	p, err := exec.LookPath(name)
	if err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/local/sbin/", "/usr/sbin/", "/sbin/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p, nil
		}
	}
	return "", err
}
