// Package nstest runs the tests of a package in network namespaces. A test is root in a network of
// its own, whose interfaces, routes, ports and settings no other process sees, and which goes away
// with the test. The package is for Linux.
//
//	func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }
//
//	func TestX(t *testing.T) {
//		ns := nstest.New(t) // skips the test if there can be no namespace
//		ns.Run(t, "ip", "addr", "add", "10.0.0.1/24", "dev", "lo")
//		ln, err := ns.Listen("tcp", "10.0.0.1:80")
//	}
package nstest
