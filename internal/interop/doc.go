// Package interop tests the stack against Linux's own TCP, and against programs that people use
// over it, in network namespaces that the tests make. If the system does not allow namespaces, the
// tests are skipped.
//
// BSDNET_LONG=1 makes transfers longer. BSDNET_NO_SKIP=1 makes tests fail instead of skip.
package interop
