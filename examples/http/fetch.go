package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"

	"bsdnet"
)

// dialLimit is how long a dial may take. It is less than the time for the whole page, because a
// dial that times out returns the reason that the link knows, and an http.Client does not.
const dialLimit = 10 * time.Second

// overLink returns a client whose dials are on the stack and end after limit.
func overLink(stack *bsdnet.Stack, limit time.Duration) *http.Client {
	t := stack.HTTPTransport()
	t.DialContext = (&bsdnet.Dialer{Stack: stack, Timeout: limit}).DialContext
	return &http.Client{Transport: t}
}

// fetch gets a page, and prints it with a line about the connection, as the stack sees it.
func fetch(ctx context.Context, client *http.Client, url string, stack *bsdnet.Stack, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 3*dialLimit)
	defer cancel()
	var conn net.Conn
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { conn = i.Conn },
	})
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	typ := resp.Header.Get("Content-Type")
	fmt.Fprintf(out, "GET %v\n%s %s\n%s\n\n%s\n", req.URL, resp.Proto, resp.Status, typ, body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %v: %s", req.URL, resp.Status)
	}
	fmt.Fprintln(out, about(stack, conn.LocalAddr(), conn.RemoteAddr()))
	return nil
}

// about describes a connection in one line, as the stack sees it from the given end, or from the
// other end if the given one is not the stack's.
func about(stack *bsdnet.Stack, local, remote net.Addr) string {
	for range 2 {
		for _, c := range stack.Conns() {
			if c.Local.String() == local.String() && c.Remote.String() == remote.String() {
				return fmt.Sprintf("%s %v -> %v, RTT %v, cwnd %s, "+
					"sent %d and received %d bytes, %d retransmissions",
					c.State, c.Local, c.Remote, rtt(c.RTT), window(c.Cwnd, c.SendBuffer), c.Sent, c.Recv, c.Retransmits)
			}
		}
		local, remote = remote, local
	}
	return fmt.Sprintf("CLOSED %v -> %v", local, remote)
}

// rtt rounds a round-trip time, so that it is easy to read.
func rtt(d time.Duration) time.Duration {
	switch {
	case d < time.Microsecond:
		return d
	case d < time.Millisecond:
		return d.Round(100 * time.Nanosecond)
	}
	return d.Round(10 * time.Microsecond)
}
