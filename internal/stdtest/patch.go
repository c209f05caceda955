package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// An edit inserts text after a place in a file of package net that occurs once. If another version
// of Go has moved the place, the program fails with an error that says so.
type edit struct{ file, after, text string }

var edits = []edit{
	{"tcpsock.go", "type TCPConn struct {\n\tconn\n", "\thook TCPHookConn\n"},
	{"tcpsock.go", "type TCPListener struct {\n", "\thook TCPHookListener\n"},
	{"tcpsock.go", "func DialTCP(network string, laddr, raddr *TCPAddr) (*TCPConn, error) {\n",
		"\tif TCPHooked != nil && testHookDialTCP == nil {\n" +
			"\t\treturn hookedConn(TCPHooked.DialTCP(context.Background(), nil, network, laddr, raddr))\n\t}\n"},
	{"tcpsock.go", "func ListenTCP(network string, laddr *TCPAddr) (*TCPListener, error) {\n",
		"\tif TCPHooked != nil {\n\t\treturn hookedListener(TCPHooked.ListenTCP(nil, network, laddr))\n\t}\n"},
	{"tcpsock_posix.go", "doDialTCPProto(ctx context.Context, laddr, raddr *TCPAddr, proto int) (*TCPConn, error) {\n",
		"\tif TCPHooked != nil {\n" +
			"\t\tc, err := hookedConn(TCPHooked.DialTCP(ctx, &sd.Dialer, sd.network, laddr, raddr))\n" +
			"\t\treturn c, inner(err)\n\t}\n"},
	{"tcpsock_posix.go", "listenTCPProto(ctx context.Context, laddr *TCPAddr, proto int) (*TCPListener, error) {\n",
		"\tif TCPHooked != nil {\n" +
			"\t\tl, err := hookedListener(TCPHooked.ListenTCP(&sl.ListenConfig, sl.network, laddr))\n" +
			"\t\treturn l, inner(err)\n\t}\n"},
	{"dial.go", "func (d *Dialer) DialContext(ctx context.Context, network, address string) (Conn, error) {\n",
		"\tif c, err, ok := hookDial(ctx, d, network, address); ok {\n\t\treturn c, err\n\t}\n"},
	{"dial.go", "func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (Listener, error) {\n",
		"\tif l, err, ok := hookListen(ctx, lc, network, address); ok {\n\t\treturn l, err\n\t}\n"},
	{"udpsock.go", "type UDPConn struct {\n\tconn\n", "\thook UDPHookConn\n"},
	{"udpsock.go", "func DialUDP(network string, laddr, raddr *UDPAddr) (*UDPConn, error) {\n",
		"\tif hookTakesUDP(laddr, raddr) {\n" +
			"\t\treturn hookedUDP(UDPHooked.DialUDP(context.Background(), nil, network, laddr, raddr))\n\t}\n"},
	{"udpsock.go", "func ListenUDP(network string, laddr *UDPAddr) (*UDPConn, error) {\n",
		"\tif hookTakesUDP(laddr) {\n\t\treturn hookedUDP(UDPHooked.ListenUDP(network, laddr))\n\t}\n"},
	{"udpsock_posix.go", "dialUDP(ctx context.Context, laddr, raddr *UDPAddr) (*UDPConn, error) {\n",
		"\tif hookTakesUDP(laddr, raddr) && sd.Control == nil && sd.ControlContext == nil {\n" +
			"\t\tc, err := hookedUDP(UDPHooked.DialUDP(ctx, &sd.Dialer, sd.network, laddr, raddr))\n" +
			"\t\treturn c, inner(err)\n\t}\n"},
	{"udpsock_posix.go", "listenUDP(ctx context.Context, laddr *UDPAddr) (*UDPConn, error) {\n",
		"\tif hookTakesUDP(laddr) && sl.Control == nil {\n" +
			"\t\tc, err := hookedUDP(UDPHooked.ListenUDP(sl.network, laddr))\n\t\treturn c, inner(err)\n\t}\n"},
}

// method matches the head of an exported method of TCPConn, TCPListener or UDPConn.
var method = regexp.MustCompile(`(?m)^func \((c|l) \*(?:TCPConn|TCPListener|UDPConn)\) ([A-Z]\w*)\(([^)]*)\)[^{\n]*\{`)

// patchNet changes the package net in dir so that it asks the hook first.
func patchNet(dir string) error {
	files := map[string][]byte{}
	for _, e := range append(edits, edit{file: "tcpsock_unix.go"}, edit{file: "tcpsock_windows.go"}) {
		if files[e.file] == nil {
			b, err := os.ReadFile(filepath.Join(dir, e.file))
			if err != nil {
				return err
			}
			files[e.file] = b
		}
		if e.after == "" {
			continue
		}
		if n := bytes.Count(files[e.file], []byte(e.after)); n != 1 {
			return fmt.Errorf("net/%s has %q %d times, want once: adapt the edits in patch.go to this version of Go",
				e.file, e.after, n)
		}
		files[e.file] = bytes.Replace(files[e.file], []byte(e.after), []byte(e.after+e.text), 1)
	}
	for name, b := range files {
		b = bytes.ReplaceAll(b, []byte("&TCPConn{conn{fd}}"), []byte("&TCPConn{conn: conn{fd}}"))
		b = bytes.ReplaceAll(b, []byte("&UDPConn{conn{fd}}"), []byte("&UDPConn{conn: conn{fd}}"))
		b = method.ReplaceAllFunc(b, divert)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// divert appends a call of the hook's method of the same name to the head of a method.
func divert(head []byte) []byte {
	m := method.FindSubmatch(head)
	var args []string
	for _, p := range strings.Split(string(m[3]), ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(p), " ")
		args = append(args, name)
	}
	return fmt.Appendf(nil, "%s\n\tif %[2]s != nil && %[2]s.hook != nil {\n\t\treturn %[2]s.hook.%s(%s)\n\t}\n",
		head, m[1], m[2], strings.Join(args, ", "))
}
