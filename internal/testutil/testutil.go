// Package testutil has functions for the tests of several packages that do not need a stack. Only
// tests import it, which a test asserts.
package testutil

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// SeededRand returns a source of secrets for a stack's Config.Rand. The same seed gives the same
// secrets, so that a test can be repeated.
func SeededRand(seed uint64) io.Reader {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	return rand.NewChaCha8(s)
}

// Pair returns the two ends of a connection over 127.0.0.1, which are closed at the end of the
// test. The functions listen and dial are package net's or a stack's.
func Pair(t testing.TB, listen func(string, string) (net.Listener, error),
	dial func(string, string) (net.Conn, error)) (c, s net.Conn) {
	t.Helper()
	ln, err := listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if c, err = dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if s, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return c, s
}

// Run runs the tests of a package, and fails if a test has left a goroutine behind: a closed stack
// has none. It returns the status with which TestMain exits.
func Run(m *testing.M) int {
	code := m.Run()
	if left := leaked(10 * time.Second); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n\n%s\n", left)
		code = 1
	}
	return code
}

// leaked returns the goroutines of the stack, of net/http and of tests that have not ended before
// limit.
func leaked(limit time.Duration) string {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		var left []string
		for g := range strings.SplitSeq(string(buf), "\n\n") {
			ours := strings.Contains(g, "bsdnet") || strings.Contains(g, "net/http.")
			if ours && !strings.Contains(g, "testutil.leaked") {
				left = append(left, g)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
	}
}
