// Package contract has only tests. They check that package bsdnet behaves as package net does: the
// results of a call, when it returns, and its errors. On Linux, each test first runs with package
// net over the kernel, which shows that it asks for what programs are used to. Then it runs over a
// stack's loopback, and over a cable between two stacks, inside and outside of a bubble of
// testing/synctest (see the function each in harness_test.go). The tests of net/http, and
// nettest.TestConn of golang.org/x/net, run over the same networks.
//
// Other tests check what bsdnet has in addition to package net, also through exported names alone:
// links, good and bad, routes, captures, counters, tcp_info and traces.
package contract
