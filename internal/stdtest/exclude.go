package main

import (
	"regexp"
	"strings"
)

// These are the reasons why tests are excluded.
const (
	needsFile    = "File of a connection or a listener: a file descriptor"
	needsRawConn = "SyscallConn or Control: a file descriptor"
	needsSyscall = "counts or replaces system calls on the connection's file descriptor"
	needsNetFD   = "looks at package net's netFD, which a connection over bsdnet does not have"
	needsMPTCP   = "Multipath TCP: a socket of the kernel"
	noRace       = "counts allocations; under -race a sync.Pool drops objects at random"
)

// excluded has the reason, by package and test, why a test need not pass over bsdnet.
var excluded = map[string]map[string]string{
	"net": {
		"TestBuffers_WriteTo":                 needsSyscall, // writev
		"TestDialContext/StreamDial":          needsRawConn,
		"TestDialContextCancelRace":           needsSyscall, // connect, getsockopt
		"TestDialTCPDefaultKeepAlive":         needsNetFD,   // a hook in its constructor
		"TestDialerControlContext/StreamDial": needsRawConn,
		"TestDialerKeepAlive":                 needsNetFD, // the same hook
		"TestDualStackTCPListener":            needsNetFD, // its address family
		"TestDualStackUDPListener":            needsNetFD, // its address family
		"TestEndlessWrite":                    needsNetFD,
		"TestFileConn/tcp":                    needsFile,
		"TestFileConn/udp":                    needsFile,
		"TestFileError":                       needsFile,
		"TestFileListener/tcp":                needsFile,
		"TestFilePacketConn/udp":              needsFile,
		"TestMultiPathTCP":                    needsMPTCP,
		"TestRawConnControl/TCP":              needsRawConn,
		"TestRawConnReadWrite":                needsRawConn,
		"TestSendfile":                        needsSyscall, // sendfile
		"TestSendfileParts":                   needsSyscall,
		"TestSendfileSeeked":                  needsSyscall,
		"TestSendfileWithExactLimit":          needsSyscall,
		"TestSendfileWithLargeFile":           needsSyscall,
		"TestSendfileWithLimitLargerThanFile": needsSyscall,
		"TestSplice/tcp-to-file":              needsSyscall, // splice
		"TestSplice/tcp-to-tcp":               needsSyscall,
		"TestSplice/tcp-to-unix":              needsSyscall,
		"TestSplice/unix-to-tcp":              needsSyscall,
		"TestTCPConnKeepAliveConfig":          needsRawConn, // getsockopt
		"TestTCPConnKeepAliveConfigDialer":    needsRawConn,
		"TestTCPConnKeepAliveConfigListener":  needsRawConn,
		"TestTCPListener":                     needsNetFD, // its address family
		"TestTCPListenerSpecificMethods":      needsFile,
		"TestUDPConnSpecificMethods":          needsFile,
		"TestUDPListener":                     needsNetFD, // its address family
	},
	"net/http": {
		"TestLinuxSendfile": needsSyscall, // sendfile, under strace
	},
}

// excludedFor returns the reason why a test of pkg, or the test that it is part of, is excluded. It
// returns "" if the test is not excluded.
func excludedFor(pkg, test string) string {
	for name, reason := range excluded[pkg] {
		if test == name || strings.HasPrefix(test, name+"/") {
			return reason
		}
	}
	return ""
}

// skipPattern returns the -skip flag for the excluded tests of pkg.
func skipPattern(pkg string) string {
	var alts []string
	for name := range excluded[pkg] {
		var elems []string
		for elem := range strings.SplitSeq(name, "/") {
			elems = append(elems, "^"+regexp.QuoteMeta(elem)+"$")
		}
		alts = append(alts, strings.Join(elems, "/"))
	}
	return strings.Join(alts, "|")
}
