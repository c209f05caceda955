// Http shows net/http on bsdnet. It serves a page over a stack of its own, fetches it through the same stack with an http.Client, prints the
// answer and a line about the connection that brought it, and goes on serving until it is interrupted. A relay on a port of the kernel lets curl
// and browsers in, which know nothing of the stack:
//
//	browser --- kernel's TCP --- relay --- bsdnet --- http.Server
//
// The page is the stack's own list of connections: reload it a few times and watch.
//
//	go run ./examples/http
//	go run ./examples/http -once -pcap http.pcap && tcpdump -nr http.pcap
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"bsdnet"
)

// options are the command line.
type options struct {
	addr  string // where the server listens, inside the stack
	relay string // where the relay listens, on the kernel's network; "": no relay
	pcap  string // file for a capture of the loopback; "": none
	once  bool   // end after the fetch

	relaying func(net.Addr) // told where the relay listens; may be nil
	patience time.Duration  // how long shutdown waits for requests under way, and for connections that have not asked for anything yet
}

func main() {
	o := options{patience: 2 * time.Second}
	flag.StringVar(&o.addr, "addr", "127.0.0.1:80", "`address` inside the stack that the server listens on")
	flag.StringVar(&o.relay, "relay", "127.0.0.1:8080", "`address` on the kernel's network that is relayed to the server; \"\" for none")
	flag.StringVar(&o.pcap, "pcap", "", "write what passes the stack's loopback to `file`, for tcpdump or Wireshark")
	flag.BoolVar(&o.once, "once", false, "end after the page has been fetched once")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "http: unexpected argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "http:", err)
		os.Exit(1)
	}
}

// run does what the command does, until ctx ends.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	stack, err := bsdnet.New(bsdnet.Config{})
	if err != nil {
		return err
	}
	defer stack.Close()
	if o.pcap != "" {
		stop, err := capture(stack, o.pcap)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}

	ln, err := stack.Listen("tcp", o.addr) // the one line that differs from a server on the kernel's TCP
	if err != nil {
		return err
	}
	site := newSite(stack)
	to := reachable(ln.Addr())
	if o.relay != "" && !o.once {
		if site.relay, err = listenRelay(o.relay, stack, to, out); err != nil {
			return err
		}
		defer site.relay.close()
	}
	srv := &http.Server{Handler: site.handler(), ConnState: site.connState, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() { err = errors.Join(err, shutdown(srv, served, o.patience)) }()

	if err := fetch(ctx, stack, to, out); err != nil || o.once {
		return err
	}
	if r := site.relay; r != nil {
		go r.serve()
		fmt.Fprintf(out, "\nserving on http://%v/ for curl and browsers; interrupt to end\n", r.addr())
		if o.relaying != nil {
			o.relaying(r.addr())
		}
	} else {
		fmt.Fprintf(out, "\nserving on %v inside the stack, without a relay; interrupt to end\n", ln.Addr())
	}
	return wait(ctx, served)
}

// wait returns when the user, or the server, has had enough.
func wait(ctx context.Context, served chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		served <- nil // for shutdown
		return err
	}
}

// shutdown ends the server: requests under way are answered, idle connections closed.
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

// capture writes what passes the loopback to a file, until stop is called.
func capture(stack *bsdnet.Stack, name string) (stop func() error, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	end, err := stack.Capture(nil, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() error { return errors.Join(end(), f.Close()) }, nil
}

// reachable returns an address to dial for one to listen on: 0.0.0.0 is everywhere, and so also here.
func reachable(a net.Addr) string {
	t := a.(*net.TCPAddr)
	if t.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", t.Port)
	}
	return t.String()
}
