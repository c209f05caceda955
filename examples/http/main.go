// Http shows net/http on bsdnet. It serves a page over its own stack, fetches the page through the
// same stack with an http.Client, prints the answer and a line about the connection, and goes on
// serving until it is interrupted. Curl and browsers, which cannot reach the stack, can use a relay
// on a port of the kernel:
//
//	browser --- kernel's TCP --- relay --- bsdnet --- http.Server
//
// The page lists the stack's connections. Reload it a few times and watch them.
//
//	go run ./examples/http
//	go run ./examples/http -once -pcap http.pcap && tcpdump -nr http.pcap
//	go run ./examples/http -once -trace http.qlog && go run ./cmd/tcpplot http.qlog >http.svg
//
// With -link, clients reach the stack over a link instead of its loopback: a TUN device, whose
// other end is the kernel, a UDP tunnel to another such program, or a WireGuard network.
//
//	unshare -Urn go run ./examples/http -link tun -once
//	go run ./examples/http -link udp -key secret -local 127.0.0.1:5180
//	go run ./examples/http -link udp -key secret -peer 127.0.0.1:5180 -get http://10.9.0.1/
//	go run ./examples/http -link udp -key secret -peer 127.0.0.1:5180 -get http://[fd00::1]/
//	go run ./examples/http -link wireguard -config wg0.conf
//
// With -get, names are looked up over the link too: by the name servers of -dns, or by those of
// WireGuard's configuration.
//
//	go run ./examples/http -link wireguard -config wg0.conf -get http://example.com/
//
// Http exits with status 1 if something fails, and with status 2 if the command line is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"bsdnet"
	"bsdnet/qlog"
)

// options are the command line.
type options struct {
	addr  string // where the server listens, inside the stack; "": port 80
	relay string // where the relay listens, on the kernel's network; "": no relay
	pcap  string // file for a capture of the link; "": none
	trace string // file for a trace of the stack's connections; "": none
	once  bool   // end after the fetch
	get   string // a page to fetch instead of serving one; "": serve
	dns   string // name servers, for -get; "": those of WireGuard's configuration, if any

	linkOptions

	serving   func(s *site, url string) // called when the server is up; may be nil
	dialLimit time.Duration             // how long -get waits for a connection; 0: as long as TCP tries

	// patience is how long shutdown waits for requests under way, and for connections that have
	// not sent a request yet.
	patience time.Duration
}

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

// command runs the command line args and returns the status to exit with: 1 if the command fails, 2
// if the command line is wrong.
func command(args []string, out, errs io.Writer) int {
	o := options{patience: 2 * time.Second, dialLimit: dialLimit}
	f := flag.NewFlagSet("http", flag.ContinueOnError)
	f.SetOutput(io.Discard) // thirty lines of usage would hide the error
	f.StringVar(&o.addr, "addr", ":80", "`address` inside the stack that the server listens on")
	f.StringVar(&o.relay, "relay", "127.0.0.1:8080", "`address` on the kernel's network to relay to the server; "+
		"\"\" for none (the default with -link)")
	f.StringVar(&o.pcap, "pcap", "", "write the packets on the link to `file`, for tcpdump or Wireshark")
	f.StringVar(&o.trace, "trace", "", "write the events on the connections to `file`, for cmd/tcpplot")
	f.BoolVar(&o.once, "once", false, "end after the page has been fetched once")
	f.StringVar(&o.get, "get", "", "fetch this `URL` over the link, print it and end, instead of serving")
	f.StringVar(&o.dns, "dns", "", "with -get: ask the name servers at these `addresses`, with commas between them; "+
		"the default is the DNS line of -config")
	o.linkOptions.flags(f)
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		f.SetOutput(errs)
		f.Usage()
		return 0
	} else if err != nil {
		return wrong(errs, err)
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["relay"] && o.link != "loopback" {
		o.relay = ""
	}
	if f.NArg() > 0 {
		return wrong(errs, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := o.check(given)
	if err == nil {
		err = run(ctx, o, out)
	}
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(usageError)):
		return wrong(errs, err)
	}
	fmt.Fprintln(errs, "http:", err)
	return 1
}

// wrong prints an error of the command line, and returns the status for it.
func wrong(errs io.Writer, err error) int {
	fmt.Fprintf(errs, "http: %v\nhttp -h lists the flags\n", err)
	return 2
}

// A usageError is an error of the command line.
type usageError struct{ error }

func badUsage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// check returns an error if flags do not go together. Nobody should wait for the effect of a flag
// that has none.
func (o *options) check(given map[string]bool) error {
	if err := o.linkOptions.check(given); err != nil {
		return err
	}
	if o.get == "" {
		if given["dns"] {
			return badUsage("-dns is for -get, which looks up the name in its URL")
		}
		return nil
	}
	for _, name := range []string{"addr", "relay"} {
		if given[name] {
			return badUsage("-%s is for serving, and -get fetches a page instead; leave one of them out", name)
		}
	}
	if o.link == "loopback" {
		return badUsage("-get: there is no server on the loopback of a new stack; give -link tun, udp or wireguard")
	}
	return nil
}

// run runs the command until ctx ends.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	var c bsdnet.Config
	if c.DNS.Servers, err = nameServers(o.dns); err != nil {
		return err
	}
	if o.trace != "" {
		f, err := os.Create(o.trace)
		if err != nil {
			return err
		}
		q := qlog.New(f)
		c.Trace = q.Trace
		defer func() { err = errors.Join(err, q.Close(), f.Close()) }() // after the stack has closed
	}
	stack, err := bsdnet.New(c)
	if err != nil {
		return err
	}
	defer stack.Close()
	way, err := o.attach(stack)
	if err != nil {
		return err
	}
	if o.pcap != "" {
		stop, err := capture(stack, way.link, o.pcap)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if o.get != "" {
		return fetch(ctx, overLink(stack, o.dialLimit), o.get, stack, out)
	}

	if o.once && way.client == nil {
		return badUsage("-once: only the other end of -link %s can fetch the page; use -get there", o.link)
	}
	return o.serve(ctx, stack, way, out)
}

// nameServers parses the list of -dns.
func nameServers(list string) (servers []netip.AddrPort, err error) {
	for s := range strings.SplitSeq(list, ",") {
		if list == "" {
			break
		}
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			ip, ipErr := netip.ParseAddr(s)
			if ipErr != nil {
				return nil, badUsage("-dns: %q is not an address such as 10.0.0.1, 10.0.0.1:53 or [fd00::1]:53", s)
			}
			a = netip.AddrPortFrom(ip, 53)
		}
		servers = append(servers, a)
	}
	return servers, nil
}

// serve serves the page on the stack, and fetches it too if the other end is this program's.
func (o *options) serve(ctx context.Context, stack *bsdnet.Stack, way *way, out io.Writer) (err error) {
	ln, err := stack.Listen("tcp", o.addr) // the one line that differs from a server on the kernel's TCP
	if err != nil {
		return err
	}
	site := newSite(stack)
	at := way.reachable(ln.Addr())
	for _, a := range at {
		site.urls = append(site.urls, "http://"+strings.TrimSuffix(a, ":80")+"/")
	}
	url := site.urls[0]
	if o.relay != "" && !o.once {
		if site.relay, err = listenRelay(o.relay, stack, at[0], out); err != nil {
			return err
		}
		defer site.relay.close()
	}
	srv := &http.Server{Handler: site.handler(), ConnState: site.connState, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() { err = errors.Join(err, shutdown(srv, served, o.patience)) }()

	if way.client != nil {
		if err := fetch(ctx, way.client(stack), url, stack, out); err != nil || o.once {
			return err
		}
		fmt.Fprintln(out)
	}
	if r := site.relay; r != nil {
		go r.serve()
		fmt.Fprintf(out, "serving on http://%v/ for curl and browsers; interrupt to end\n", r.addr())
	} else {
		fmt.Fprintf(out, "serving on %s %s; interrupt to end\n", strings.Join(site.urls, " and "), way.who)
	}
	if o.serving != nil {
		o.serving(site, url)
	}
	return wait(ctx, served)
}

// wait returns when ctx ends, or when the server fails.
func wait(ctx context.Context, served chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		served <- nil // for shutdown
		return err
	}
}

// shutdown ends the server: it answers requests under way and closes idle connections.
func shutdown(srv *http.Server, served <-chan error, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	if serr := <-served; serr != nil && !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// capture writes the packets on the link to a file until stop is called.
func capture(stack *bsdnet.Stack, link bsdnet.Link, name string) (stop func() error, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	end, err := stack.Capture(link, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() error { return errors.Join(end(), f.Close()) }, nil
}
