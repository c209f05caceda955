package bsdnet

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"

	"bsdnet/internal/kern"
)

// Attach connects the stack to link, and starts it. Each prefix is one of the stack's addresses on
// the link, with the length of its network, to which Attach adds a route. From then on the stack
// owns the link, and closes it. The link must be comparable, for example a pointer, as the other
// methods find it by its value.
//
// If Attach fails, the link stays open, unless the error is net.ErrClosed: then the stack has been
// closed, and the link with it. If the stack already has the address, the error wraps
// syscall.EADDRINUSE, except that each link may have the same IPv6 link-local address; if no host
// can have it, such as the network's own address in 10.0.0.0/24, syscall.EADDRNOTAVAIL; if it is
// IPv6 and the link's MTU is less than 1280 bytes (RFC 8200, 5), syscall.EINVAL.
//
// Several links may be in one network. Dials use the first link that works, and a connection stays
// with the link that has its local address.
func (s *Stack) Attach(link Link, prefixes ...netip.Prefix) error {
	if link == nil {
		return errors.New("bsdnet: attach: the link is nil")
	}
	if v := reflect.ValueOf(link); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Errorf("bsdnet: attach: the link is a nil %T", link)
	}
	if errno := s.k.Here(); errno != 0 {
		return sysError("attach", errno)
	}
	if !reflect.ValueOf(link).Comparable() { // Detach could not find it
		return fmt.Errorf("bsdnet: attach: the link is a %T, which cannot be compared; pass a pointer to one", link)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[link] != nil {
		return errors.New("bsdnet: attach: the link is attached already")
	}
	ifp, err := s.k.Attach(fmt.Sprintf("if%d", s.n), link, prefixes)
	if err != nil {
		return err
	}
	s.n++
	s.links[link] = ifp
	return nil
}

// LinkErr returns the error that has ended a link: the error of its Read, or one that says how it
// has broken the contract of [Link]. It returns nil while the link works. After such an error,
// dials over the link fail with syscall.ENETDOWN. Connections over it wait until they time out;
// they continue if the link is detached, and another is attached that has their address.
func (s *Stack) LinkErr(link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return ifp.Err()
}

// ifnet returns the interface of a link, or nil if it is not attached.
func (s *Stack) ifnet(link Link) *kern.Ifnet {
	if !reflect.ValueOf(link).Comparable() {
		return nil // Attach has refused it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[link]
}

// Detach removes a link from the stack and closes it. Connections over it wait until they time out,
// and continue if another link is attached that has their address.
func (s *Stack) Detach(link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	if errno := s.k.Here(); errno != 0 {
		return sysError("detach", errno)
	}
	s.mu.Lock()
	mine := s.links[link] == ifp
	if mine {
		delete(s.links, link)
	}
	s.mu.Unlock()
	if !mine { // another goroutine has detached it
		return errNotAttached
	}
	return s.k.Detach(ifp)
}

var errNotAttached = errors.New("bsdnet: the link is not attached to this stack")

// AddRoute adds a route to dst over link, in addition to the routes to the link's own networks. Of
// the routes to an address the one with the longest prefix is used; 0.0.0.0/0 and ::/0 are the
// default routes of IPv4 and IPv6. If there already is a route to dst, the error wraps
// syscall.EEXIST. An IPv6 link-local address is reached over the link that its zone names, never
// over a route.
func (s *Stack) AddRoute(dst netip.Prefix, link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return s.k.AddRoute(dst, ifp)
}

// DelRoute removes a route over link: one that [Stack.AddRoute] has added, or one to a network of
// the link's own. Connections that use the route go on to use it. If there is no such route, the
// error wraps syscall.ESRCH.
func (s *Stack) DelRoute(dst netip.Prefix, link Link) error {
	ifp := s.ifnet(link)
	if ifp == nil {
		return errNotAttached
	}
	return s.k.DelRoute(dst, ifp)
}

// A Route names the link for packets to the addresses of a prefix, except those of a longer prefix
// to which there is a route as well.
type Route struct {
	Dst  netip.Prefix
	Link Link // nil for the loopback

	// Src is the local address of connections that are dialed over the route. If it is not valid,
	// the link has no address, and the route is not used.
	Src netip.Addr
}

// Routes returns all routes, including those to the links' own networks and those of the loopback,
// sorted by family, by address and then by length. Of several routes to one prefix the stack uses
// the first over a link that works.
func (s *Stack) Routes() []Route {
	list := s.k.Routes()
	routes := make([]Route, len(list))
	for i, r := range list {
		l, _ := r.Ifp.Link().(Link)
		routes[i] = Route{Dst: r.Dst, Link: l, Src: r.Src}
	}
	return routes
}

// Links returns the attached links, in the order of their attachment. [Stack.Stats] has the
// counters of each.
func (s *Stack) Links() []Link {
	var links []Link
	for _, ifp := range s.k.Ifs() {
		if l, ok := ifp.Link().(Link); ok {
			links = append(links, l)
		}
	}
	return links
}

// A CaptureFilter chooses packets for a capture; the *bpf.VM of golang.org/x/net/bpf implements it.
// Run gets a packet that begins with its IP header, and must not keep it. It returns how many bytes
// the capture takes; the capture skips the packet if that is 0 or if there is an error. Calls come
// from several goroutines, one after the other. Run must not call the stack.
type CaptureFilter interface {
	Run(packet []byte) (int, error)
}

// Capture writes to w the packets on a link, or on the loopback if link is nil, as a pcap file with
// nanosecond times, which tcpdump and Wireshark read. If there are filters, it writes the packets
// that all of them accept. A link has one capture at a time; another call replaces it.
//
// A goroutine writes to w, one packet with each call. If w is slower than the link, up to 4 MiB
// wait, and further packets are left out and counted in InterfaceStats.CaptureDrops; the link is
// not slowed down. stop ends the capture, waits until w has taken all that waits, and returns the
// first error of w. If w takes nothing for two seconds, stop returns an error.
func (s *Stack) Capture(link Link, w io.Writer, filters ...CaptureFilter) (stop func() error, err error) {
	ifp := s.ifnet(link)
	if link == nil {
		ifp = s.k.Lo0()
	}
	if ifp == nil {
		return nil, errNotAttached
	}
	if errno := s.k.Here(); errno != 0 {
		return nil, sysError("capture", errno)
	}
	var list []kern.Filter
	for _, f := range filters {
		list = append(list, f)
	}
	return ifp.Capture(w, list...)
}
