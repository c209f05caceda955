// Package contract has only tests. They hold package bsdnet to what package net promises, in what a
// call returns, when it returns, and what its errors are: each runs over the kernel by package net
// itself first, if the system is Linux, so that what it demands is what programs are used to; then
// over a stack's loopback, and over a cable between two stacks, in and out of a bubble of
// testing/synctest (see each, in harness_test.go). The tests of net/http, and nettest.TestConn of
// golang.org/x/net, run over the same networks.
//
// Beside them are the tests of what bsdnet has and package net has not, also through the exported
// names alone: links, good and bad, routes, captures, counters, tcp_info and traces.
package contract
