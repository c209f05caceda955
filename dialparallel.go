package bsdnet

import (
	"context"
	"net"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"time"
)

// This file chooses among the addresses of a name: package net's DialContext, dialParallel and
// dialSerial.

// Dial connects to an address.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to an address, as [Stack.DialContext] does. If ctx has an
// httptrace.ClientTrace, DialContext calls its hooks ConnectStart and ConnectDone, as package net
// does.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := d.context(ctx)
	defer cancel()
	s, err := d.stack()
	if err != nil {
		return nil, err
	}
	if address == "" && isIP(network) && checkNetwork(network) == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errMissingAddress}
	}
	var few [1]netip.AddrPort // most addresses are literal, and take no slice of their own
	to, err := s.internetAddrList(ctx, d.Resolver, network, address, few[:0])
	if err == nil {
		to, err = d.matchLocal(to)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if len(to) == 1 {
		return d.dialSingle(ctx, network, to[0])
	}
	var primaries, fallbacks []netip.AddrPort
	if network == "tcp" && d.FallbackDelay >= 0 {
		primaries, fallbacks = partition(to)
	} else {
		primaries = slices.Clone(to)
	}
	return d.dialParallel(ctx, network, primaries, fallbacks)
}

// matchLocal returns those of the addresses that have the family of LocalAddr, as package net does.
// An unspecified local address, and an unspecified address to dial, match any.
func (d *Dialer) matchLocal(to []netip.AddrPort) ([]netip.AddrPort, error) {
	var from netip.Addr
	switch local := d.LocalAddr.(type) {
	case interface{ AddrPort() netip.AddrPort }:
		from = local.AddrPort().Addr().Unmap()
	case *net.IPAddr:
		from, _ = netip.AddrFromSlice(local.IP)
		from = from.Unmap()
	}
	if !from.IsValid() || from.IsUnspecified() {
		return to, nil
	}
	match := to[:0]
	for _, a := range to {
		if a.Addr().IsUnspecified() || a.Addr().Is4() == from.Is4() {
			match = append(match, a)
		}
	}
	if len(match) == 0 {
		return nil, &net.AddrError{Err: "no suitable address found", Addr: d.LocalAddr.String()}
	}
	return match, nil
}

// partition divides addresses into those of the first one's family and the others.
func partition(to []netip.AddrPort) (primaries, fallbacks []netip.AddrPort) {
	for _, a := range to {
		if a.Addr().Is4() == to[0].Addr().Is4() {
			primaries = append(primaries, a)
		} else {
			fallbacks = append(fallbacks, a)
		}
	}
	return primaries, fallbacks
}

// fallbackDelay returns how long the fallbacks wait for the primaries.
func (d *Dialer) fallbackDelay() time.Duration {
	delay := d.FallbackDelay
	if delay == 0 {
		// RFC 8305, 5: "Connection Attempt Delay". Its own recommendation is 250 ms; this is
		// package net's.
		delay = 300 * time.Millisecond
	}
	// Packets arrive at odd nanoseconds (see package kern's clock). So in a testing/synctest bubble
	// the delay never ends at the same instant as an attempt, and a run repeats.
	return delay + time.Duration(time.Now().Add(delay).UnixNano()&1)
}

// dialParallel tries the primaries, and from fallbackDelay on, or from their failure on if that is
// earlier, the fallbacks as well. It returns the connection that is established first, and ends the
// other attempts. If all fail, it returns the first primary's error. It is package net's.
func (d *Dialer) dialParallel(
	ctx context.Context, network string, primaries, fallbacks []netip.AddrPort,
) (net.Conn, error) {
	if len(fallbacks) == 0 {
		return d.dialSerial(ctx, network, primaries)
	}
	ctx, cancel := context.WithCancel(ctx) // ends the loser's attempt
	defer cancel()
	type result struct {
		net.Conn
		error
	}
	// The racers have a copy, so that the Dialer of other dials stays on the stack.
	racer := *d
	// A racer that comes second finds no receiver, and closes its connection.
	returned := make(chan struct{})
	defer close(returned)
	race := func(to []netip.AddrPort) <-chan result {
		results := make(chan result)
		go func() {
			c, err := racer.dialSerial(ctx, network, to)
			select {
			case results <- result{c, err}:
			case <-returned:
				if c != nil {
					c.Close()
				}
			}
		}()
		return results
	}
	var (
		primary  = race(primaries)
		fallback <-chan result
		failed   int
		first    error // of the primaries
	)
	delay := time.NewTimer(d.fallbackDelay())
	defer delay.Stop()
	for {
		var r result
		select {
		case <-delay.C:
			fallback = race(fallbacks)
			continue
		case r = <-primary:
			first = r.error
			if r.error != nil && delay.Stop() {
				delay.Reset(0) // nothing is left to wait for
			}
		case r = <-fallback:
		}
		if r.error == nil {
			return r.Conn, nil
		}
		if failed++; failed == 2 {
			return nil, first
		}
	}
}

// dialSerial tries the addresses one after the other, and returns the first connection or, if none
// is established, the first error: the order is one of preference. It is package net's.
func (d *Dialer) dialSerial(ctx context.Context, network string, to []netip.AddrPort) (net.Conn, error) {
	var first error
	for i, a := range to {
		one, cancel := share(ctx, len(to)-i)
		c, err := d.dialSingle(one, network, a)
		cancel()
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// share gives the first of n addresses its share of the time that ctx has left, but at least
// saneShare, so that an address that does not answer leaves time for the others. It is package
// net's partialDeadline.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	const saneShare = 2 * time.Second
	deadline, ok := ctx.Deadline()
	if !ok || n < 2 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, max(time.Until(deadline)/time.Duration(n), saneShare))
}

// dialSingle connects to one address, and calls the httptrace hooks of ctx before and after it.
func (d *Dialer) dialSingle(ctx context.Context, network string, to netip.AddrPort) (c net.Conn, err error) {
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && ctx.Err() == nil {
		if trace.ConnectStart != nil {
			trace.ConnectStart(network, to.String())
		}
		if trace.ConnectDone != nil {
			defer func() { trace.ConnectDone(network, to.String(), err) }()
		}
	}
	switch {
	case isUDP(network):
		return d.dialUDPTo(ctx, network, to)
	case isIP(network):
		return d.dialIPTo(ctx, network, to.Addr())
	}
	tc, err := d.dial(ctx, network, to)
	if err != nil {
		return nil, err // not a nil *TCPConn in an interface
	}
	return tc, nil
}
