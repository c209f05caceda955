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

// insideEnv is set to "1" in a test program that has been started in namespaces.
const insideEnv = "BSDNET_NSTEST_INSIDE"

// noSkipEnv is set to 1 on a machine that has all that the tests need. Tests then fail instead of
// being skipped.
const noSkipEnv = "BSDNET_NO_SKIP"

// outside is the reason why the tests do not run in namespaces, or "" if they do.
var outside = "TestMain does not call nstest.Main"

// A Runner is a *testing.M or a wrapper of one. Main calls its Run in the process that runs the
// tests.
type Runner interface{ Run() int }

// Main runs the tests, and returns the status to exit with. It starts the test program once more,
// in a network namespace and a mount namespace of its own. If the user is not root, it starts the
// program in a user namespace too, in which the user is root. In the namespaces the loopback is up,
// and /run is empty and private. If the system does not allow namespaces, the tests run without
// them, and [New] and [Need] skip the test.
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
		outside = "the tests cannot have namespaces of their own: " + err.Error()
		return m.Run()
	}
	return status
}

// again runs the program in namespaces. It returns an error if it cannot start it.
func again() (int, error) {
	runtime.LockOSThread() // Pdeathsig is sent when this thread ends
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

// enter sets up the namespaces.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount --make-rprivate /: %w", err)
	}
	if err := unix.Mount("nstest", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
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

// Skip skips a test that cannot run here, and logs the reason. With BSDNET_NO_SKIP=1 it fails the
// test instead.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(noSkipEnv) == "1" {
		t.Fatalf(noSkipEnv+"=1, and yet: "+format, args...)
	}
	t.Skipf(format, args...)
}

// Need skips a test, as Skip does, if it does not run in namespaces, or if one of these programs is
// missing. A name that is a path, such as /dev/net/tun, must be a file that can be read and
// written.
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

// lookPath looks for a program, also in the directories of programs for administrators.
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
