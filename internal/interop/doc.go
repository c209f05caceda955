// Package interop holds the tests of the stack against Linux's own TCP, and against the programs
// that people use over it, in network namespaces that the tests make: see the test files. Where the
// system does not allow namespaces they are skipped.
//
// BSDNET_LONG=1 makes transfers longer, BSDNET_NO_SKIP=1 a failure of a skip.
package interop
