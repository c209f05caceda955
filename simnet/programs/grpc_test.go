package programs

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bsdnet/netem"
	"bsdnet/simnet"
)

// countStream is a method that answers each number with its double: a stream in both directions.
var countStream = grpc.StreamDesc{StreamName: "Double", ServerStreams: true, ClientStreams: true,
	Handler: func(_ any, s grpc.ServerStream) error {
		for {
			var x wrapperspb.Int64Value
			if err := s.RecvMsg(&x); err != nil {
				if err == io.EOF {
					return nil
				}
				return err
			}
			if err := s.SendMsg(wrapperspb.Int64(2 * x.Value)); err != nil {
				return err
			}
		}
	},
}

// double starts a gRPC server on a host.
func double(t *testing.T, h *simnet.Host) *grpc.Server {
	t.Helper()
	ln, err := h.Listen("tcp", ":50051")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Numbers", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{countStream}}, struct{}{})
	go s.Serve(ln)
	t.Cleanup(s.Stop)
	return s
}

// connect returns a client's connection from a host.
func connect(t *testing.T, h *simnet.Host) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///server:50051",
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return h.DialContext(ctx, "tcp", address)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// stream opens a stream, sends numbers, and returns how many answers are right, and the error that
// has ended the stream.
func stream(c *grpc.ClientConn, numbers int, pause time.Duration) (right int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s, err := c.NewStream(ctx, &countStream, "/test.Numbers/Double", grpc.WaitForReady(true))
	if err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() {
		for i := range numbers {
			if err := s.SendMsg(wrapperspb.Int64(int64(i))); err != nil {
				sent <- err
				return
			}
			time.Sleep(pause)
		}
		sent <- s.CloseSend()
	}()
	for {
		var x wrapperspb.Int64Value
		if err := s.RecvMsg(&x); err != nil {
			cancel()
			<-sent
			if err == io.EOF {
				err = nil
			}
			return right, err
		}
		if x.Value == int64(2*right) {
			right++
		}
	}
}

// Ten streams of gRPC over a round trip of 300 ms and a loss of 2 % in each direction bring all
// answers, in order.
func TestGRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		client, server := n.Host("client"), n.Host("server")
		link := n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 150 * time.Millisecond, Loss: 0.02}))
		double(t, server)
		c := connect(t, client)
		const streams, numbers = 10, 500
		results := make(chan error, streams)
		for range streams {
			go func() {
				right, err := stream(c, numbers, 10*time.Millisecond)
				if err == nil && right != numbers {
					err = fmt.Errorf("%d of %d answers are right", right, numbers)
				}
				results <- err
			}()
		}
		for range streams {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if s := link.Stats(); s.Write.Lost == 0 || s.Read.Lost == 0 {
			t.Errorf("nothing is lost: %+v", s)
		}
		if took := n.Elapsed(); took < 5*time.Second || took > time.Minute {
			t.Errorf("it takes %v", took)
		}
	})
}

// A blackout that is longer than keep-alive allows ends a stream with Unavailable; the next stream
// waits until the network is back.
func TestGRPCBlackout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		client, server := n.Host("client"), n.Host("server")
		link := n.Link(client, server, simnet.Symmetric(netem.Impairment{Delay: 150 * time.Millisecond}))
		double(t, server)
		c := connect(t, client)
		n.At(10*time.Second, link.Cut)
		n.At(70*time.Second, link.Heal)
		if _, err := stream(c, 100, time.Second); status.Code(err) != codes.Unavailable {
			t.Errorf("the stream that is cut ends with %v", err)
		}
		if d := n.Elapsed(); d < 15*time.Second || d > 30*time.Second {
			t.Errorf("it ends after %v", d)
		}
		if right, err := stream(c, 3, time.Second); err != nil || right != 3 {
			t.Errorf("after the blackout: %d, %v", right, err)
		}
		if d := n.Elapsed(); d < 70*time.Second || d > 150*time.Second {
			t.Errorf("the next stream ends after %v", d)
		}
	})
}
