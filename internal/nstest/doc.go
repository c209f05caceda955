// Package nstest runs the tests of a package in network namespaces, where a test is root of a network of its own: interfaces, routes, ports and
// settings that nobody else sees and that go away with it. It is for Linux.
//
//	func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }
//
//	func TestX(t *testing.T) {
//		ns := nstest.New(t) // skips where that cannot be
//		ns.Run(t, "ip", "addr", "add", "10.0.0.1/24", "dev", "lo")
//		ln, err := ns.Listen("tcp", "10.0.0.1:80")
//	}
package nstest
