// Stdtest runs Go's own tests of package net, net/http and others over bsdnet instead of the
// kernel, and compares:
//
//	go run ./internal/stdtest [-run regexp] [-short=false] [package ...]
//
// It copies GOROOT into a temporary directory. There, package net gets a hook, which makes every
// TCP socket if it is set, and every UDP socket of the loopback (testdata/net), bsdnet's packages
// become part of the standard library, and each test binary gets a file that sets the hook
// (testdata/bsdnethook). Tests and the code that they test do not change otherwise: a *net.TCPConn
// is still one, and a bsdnet.TCPConn does its work. Unix sockets and the resolver stay with the
// kernel.
//
// Each test binary runs twice, over the kernel and over bsdnet. The program fails if a test or a
// subtest passes over the kernel and not over bsdnet, unless the list in exclude.go has it with a
// reason. A test that does not pass over the kernel does not count.
package main

import (
	"bytes"
	"embed"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

//go:embed testdata
var testdata embed.FS

var (
	runFlag      = flag.String("run", "", "run only the tests that match this `regexp`")
	shortFlag    = flag.Bool("short", true, "run the tests with -short")
	raceFlag     = flag.Bool("race", false, "build the tests with -race")
	kernelFlag   = flag.Bool("kernel", true, "run over the kernel first; if not, every test that does not skip counts")
	excludedFlag = flag.Bool("excluded", false, "run the excluded tests over bsdnet too")
	countFlag    = flag.Int("count", 1, "run over bsdnet this many times")
	timeoutFlag  = flag.Duration("timeout", 5*time.Minute, "the longest that a test binary may run")
	keepFlag     = flag.Bool("keep", false, "keep the temporary directory, with the output of the tests")
)

// defaultPackages are the packages whose tests use TCP.
var defaultPackages = []string{"net", "net/http", "net/http/httptest", "net/http/httputil",
	"net/rpc", "net/rpc/jsonrpc", "net/smtp", "net/textproto",
	"crypto/tls"}

func main() {
	flag.Parse()
	pkgs := flag.Args()
	if len(pkgs) == 0 {
		pkgs = defaultPackages
	}
	if *raceFlag {
		excluded["net"]["TestTCPReadWriteAllocs"] = noRace
	}
	ok, err := compareAll(pkgs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "stdtest:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func compareAll(pkgs []string) (ok bool, err error) {
	tmp, err := os.MkdirTemp("", "stdtest")
	if err != nil {
		return false, err
	}
	if *keepFlag {
		fmt.Println("output in", tmp)
	} else {
		defer os.RemoveAll(tmp)
	}
	root := filepath.Join(tmp, "go")
	if err := makeRoot(root); err != nil {
		return false, err
	}
	ok = true
	for _, pkg := range pkgs {
		good, err := compare(tmp, root, pkg)
		if err != nil {
			return false, fmt.Errorf("%s: %w", pkg, err)
		}
		ok = ok && good
	}
	return ok, nil
}

// makeRoot makes a GOROOT with bsdnet in it.
func makeRoot(root string) error {
	module, err := output("go", "list", "-m", "-f", "{{.Dir}}", "bsdnet")
	if err != nil {
		return err
	}
	goroot, err := output("go", "env", "GOROOT")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(goroot)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "src" {
			continue
		}
		if err := os.Symlink(filepath.Join(goroot, e.Name()), filepath.Join(root, e.Name())); err != nil {
			return err
		}
	}
	src := filepath.Join(root, "src")
	notCmd := func(name string) bool { return name != "cmd" }
	if err := copyTree(src, os.DirFS(filepath.Join(goroot, "src")), notCmd); err != nil {
		return err
	}
	if err := copyTree(filepath.Join(src, "bsdnet"), os.DirFS(module), ofStack); err != nil {
		return err
	}
	own, err := fs.Sub(testdata, "testdata")
	if err != nil {
		return err
	}
	if err := copyTree(src, own, func(string) bool { return true }); err != nil {
		return err
	}
	return patchNet(filepath.Join(src, "net"))
}

// notOfStack are the directories of the module that are not part of the stack, or that the tests do
// not need.
var notOfStack = []string{"testdata", "stdtest", "examples", "bench", "docs", "cmd", "qlog",
	"badlinks", "interop", "nstest",
	"netem", "tun", "udptunnel", "wireguard", "linktest", "ends"}

// ofStack reports whether a file or directory of the module is a part of the stack that the
// loopback needs.
func ofStack(name string) bool {
	switch base, ext := filepath.Base(name), filepath.Ext(name); {
	case name == ".":
		return true
	case strings.HasPrefix(base, "."), slices.Contains(notOfStack, base):
		return false
	case ext != "":
		return ext == ".s" || ext == ".go" && !strings.HasSuffix(base, "_test.go")
	}
	return true
}

// copyTree copies the files and directories for which keep returns true.
func copyTree(to string, from fs.FS, keep func(name string) bool) error {
	return fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !keep(name) && d.IsDir():
			return fs.SkipDir
		case !keep(name):
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), b, 0o644)
	})
}

// build builds pkg's test binary, with the hook in it, and returns its path.
func build(tmp, root, pkg string) (string, error) {
	dir := filepath.Join(root, "src", filepath.FromSlash(pkg))
	hook := fmt.Appendf(nil, "package %s_test\n\nimport _ \"bsdnethook\"\n", path.Base(pkg))
	if err := os.WriteFile(filepath.Join(dir, "bsdnethook_test.go"), hook, 0o644); err != nil {
		return "", err
	}
	bin := filepath.Join(tmp, strings.ReplaceAll(pkg, "/", "_")+".test.exe")
	args := []string{"test", "-c", "-vet=off", "-o", bin}
	if *raceFlag {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOROOT="+root, "GOTOOLCHAIN=local", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return bin, nil
}

func output(name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func env(root, over string) []string {
	return append(os.Environ(), "GOROOT="+root, "STDTEST_NET="+over, "GOTRACEBACK=all",
		fmt.Sprintf("GOMAXPROCS=%d", max(2, runtime.NumCPU())))
}
