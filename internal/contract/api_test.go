package contract

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"net"

	"bsdnet"
)

// These are the reasons why names of package net are missing here. Every other exported name of
// package net must be here.
const (
	netsOwn   = "programs use package net's own"
	noNames   = "names are a Resolver's, and package net's"
	noUnix    = "Unix sockets are the system's"
	noFD      = "there are no file descriptors"
	noIface   = "a stack's links are not the system's interfaces"
	noMPTCP   = "there is no multipath TCP to choose"
	obsolete  = "it is deprecated"
	isATypeOf = "a type of package net's, which is used here"
)

// notHere are the exported functions, variables and types of package net that are not here.
var notHere = map[string]string{
	"DialUnix": noUnix, "ListenUnix": noUnix, "ListenUnixgram": noUnix, "UnixConn": noUnix, "UnixListener": noUnix,
	"PacketConn": isATypeOf, "ErrWriteToConnected": netsOwn,
	"FileConn": noFD, "FileListener": noFD, "FilePacketConn": noFD,
	"InterfaceAddrs": noIface, "InterfaceByIndex": noIface, "InterfaceByName": noIface,
	"Interfaces": noIface, "Interface": noIface, "Flags": noIface,
	"LookupAddr": noNames, "LookupCNAME": noNames, "LookupHost": noNames, "LookupIP": noNames,
	"LookupMX": noNames, "LookupNS": noNames, "LookupPort": noNames, "LookupSRV": noNames,
	"LookupTXT": noNames, "ResolveIPAddr": noNames, "ResolveTCPAddr": noNames,
	"ResolveUDPAddr": noNames, "ResolveUnixAddr": noNames, "MX": noNames, "NS": noNames,
	"SRV": noNames, "DefaultResolver": noNames, "Resolver": isATypeOf,
	"Pipe": netsOwn, "JoinHostPort": netsOwn, "SplitHostPort": netsOwn, "ParseCIDR": netsOwn,
	"ParseIP": netsOwn, "ParseMAC": netsOwn, "CIDRMask": netsOwn, "IPv4": netsOwn,
	"IPv4Mask": netsOwn, "TCPAddrFromAddrPort": netsOwn, "UDPAddrFromAddrPort": netsOwn,
	"ErrClosed": netsOwn, "IPv4allrouter": netsOwn, "IPv4allsys": netsOwn, "IPv4bcast": netsOwn,
	"IPv4zero": netsOwn, "IPv6interfacelocalallnodes": netsOwn, "IPv6linklocalallnodes": netsOwn,
	"IPv6linklocalallrouters": netsOwn, "IPv6loopback": netsOwn, "IPv6unspecified": netsOwn, "IPv6zero": netsOwn,
	"Addr": isATypeOf, "AddrError": isATypeOf, "Buffers": isATypeOf, "Conn": isATypeOf,
	"DNSConfigError": isATypeOf, "DNSError": isATypeOf, "Error": isATypeOf,
	"HardwareAddr": isATypeOf, "IP": isATypeOf, "IPAddr": isATypeOf, "IPMask": isATypeOf,
	"IPNet": isATypeOf, "InvalidAddrError": isATypeOf, "KeepAliveConfig": isATypeOf,
	"Listener": isATypeOf, "OpError": isATypeOf, "ParseError": isATypeOf, "TCPAddr": isATypeOf,
	"UDPAddr": isATypeOf, "UnixAddr": isATypeOf, "UnknownNetworkError": isATypeOf,
}

// membersNotHere are the methods and fields that are not here, of the types that are.
var membersNotHere = map[string]string{
	"Dialer.Cancel": obsolete, "Dialer.DualStack": obsolete,
	"Dialer.Control": noFD, "Dialer.ControlContext": noFD, "ListenConfig.Control": noFD,
	"Dialer.DialUnix":     noUnix,
	"Dialer.MultipathTCP": noMPTCP, "Dialer.SetMultipathTCP": noMPTCP,
	"ListenConfig.MultipathTCP": noMPTCP, "ListenConfig.SetMultipathTCP": noMPTCP,
	"IPConn.SyscallConn":  noFD,
	"TCPConn.SyscallConn": noFD, "TCPListener.SyscallConn": noFD, "UDPConn.SyscallConn": noFD,
}

// TestAPIWhole tests that every exported name of this Go's package net is here, or listed as
// missing, and that the lists have no other names.
func TestAPIWhole(t *testing.T) {
	nets, ours := exported(t, "net"), exported(t, "bsdnet")
	for _, name := range slices.Sorted(maps.Keys(nets)) {
		why, out := notHere[name]
		switch {
		case !ours[name] && !out:
			t.Errorf("net.%s is not here, and nothing says why", name)
		case ours[name] && out:
			t.Errorf("net.%s is here, though %q", name, why)
		}
	}
	for name := range notHere {
		if !nets[name] {
			t.Errorf("net.%s is said to be left out, and package net has none", name)
		}
	}
	members := map[string]bool{}
	for _, p := range []struct{ nets, ours reflect.Type }{
		{reflect.TypeFor[net.Dialer](), reflect.TypeFor[bsdnet.Dialer]()},
		{reflect.TypeFor[net.ListenConfig](), reflect.TypeFor[bsdnet.ListenConfig]()},
		{reflect.TypeFor[net.TCPConn](), reflect.TypeFor[bsdnet.TCPConn]()},
		{reflect.TypeFor[net.TCPListener](), reflect.TypeFor[bsdnet.TCPListener]()},
		{reflect.TypeFor[net.UDPConn](), reflect.TypeFor[bsdnet.UDPConn]()},
		{reflect.TypeFor[net.IPConn](), reflect.TypeFor[bsdnet.IPConn]()},
	} {
		have := membersOf(p.ours)
		for name, typ := range membersOf(p.nets) {
			full := p.nets.Name() + "." + name
			members[full] = true
			got, here := have[name]
			why, out := membersNotHere[full]
			switch {
			case !here && !out:
				t.Errorf("net.%s is not here, and nothing says why", full)
			case here && out:
				t.Errorf("net.%s is here, though %q", full, why)
			case here && got != typ:
				t.Errorf("%s is %s, and net's is %s", full, got, typ)
			}
		}
	}
	for name := range membersNotHere {
		if !members[name] {
			t.Errorf("net.%s is said to be left out, and package net has none", name)
		}
	}
	// The functions have the types of those of package net.
	for name, p := range map[string][2]any{
		"Dial":         {net.Dial, bsdnet.Dial},
		"DialTimeout":  {net.DialTimeout, bsdnet.DialTimeout},
		"DialIP":       {net.DialIP, bsdnet.DialIP},
		"DialTCP":      {net.DialTCP, bsdnet.DialTCP},
		"DialUDP":      {net.DialUDP, bsdnet.DialUDP},
		"Listen":       {net.Listen, bsdnet.Listen},
		"ListenIP":     {net.ListenIP, bsdnet.ListenIP},
		"ListenPacket": {net.ListenPacket, bsdnet.ListenPacket},
		"ListenTCP":    {net.ListenTCP, bsdnet.ListenTCP},
		"ListenUDP":    {net.ListenUDP, bsdnet.ListenUDP},

		"ListenMulticastUDP": {net.ListenMulticastUDP, bsdnet.ListenMulticastUDP},
	} {
		nt, ot := ourType(reflect.TypeOf(p[0])), ourType(reflect.TypeOf(p[1]))
		if nt != ot {
			t.Errorf("%s is a %s, and net's is a %s", name, ot, nt)
		}
	}
	for name := range ours {
		if nets[name] && notHere[name] == "" && !slices.Contains([]string{
			"Dial", "DialTimeout", "DialTCP", "DialUDP", "Listen", "ListenPacket", "ListenTCP", "ListenUDP",
			"ListenMulticastUDP", "DialIP", "ListenIP", "IPConn",
			"Dialer", "ListenConfig", "TCPConn", "TCPListener", "UDPConn",
		}, name) {
			t.Errorf("%s has a name of package net's, and no test says that it is the same", name)
		}
	}
}

// ourType formats a type, with the names of package net in place of ours.
func ourType(t reflect.Type) string { return strings.ReplaceAll(t.String(), "bsdnet.", "net.") }

// membersOf returns the exported fields and the methods of a type and its pointer, each with its
// type.
func membersOf(t reflect.Type) map[string]string {
	m := map[string]string{}
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			m[f.Name] = ourType(f.Type)
		}
	}
	for i := range reflect.PointerTo(t).NumMethod() {
		f := reflect.PointerTo(t).Method(i)
		m[f.Name] = ourType(f.Type)
	}
	return m
}

// exported returns the names of a package's exported functions, types and variables, as this system
// builds it. Constants are left out.
func exported(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.Dir}}{{range .GoFiles}}
{{.}}{{end}}{{range .CgoFiles}}
{{.}}{{end}}`, pkg).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	names := map[string]bool{}
	for _, name := range lines[1:] {
		text, err := os.ReadFile(filepath.Join(lines[0], name))
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names[d.Name.Name] = names[d.Name.Name] || d.Recv == nil && d.Name.IsExported()
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						names[s.Name.Name] = s.Name.IsExported()
					case *ast.ValueSpec:
						for _, n := range s.Names {
							names[n.Name] = d.Tok == token.VAR && n.IsExported()
						}
					}
				}
			}
		}
	}
	maps.DeleteFunc(names, func(_ string, is bool) bool { return !is })
	return names
}
