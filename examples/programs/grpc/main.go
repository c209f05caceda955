// Program grpc runs a gRPC server and a client over bsdnet: the health service of grpc-go, asked
// once, and watched as a stream while the server's state changes.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"bsdnet"
	"bsdnet/examples/programs/cable"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer) error {
	server, client, stop, err := cable.Pair(1)
	if err != nil {
		return err
	}
	defer stop()

	ln, err := server.Listen("tcp", ":50051")
	if err != nil {
		return err
	}
	state := health.NewServer()
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, state)
	go srv.Serve(ln)
	defer srv.Stop()

	conn, err := dial(client)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return watch(ctx, out, grpc_health_v1.NewHealthClient(conn), state)
}

// dial makes a client that connects over the stack. "passthrough" leaves the address to the dialer.
func dial(stack *bsdnet.Stack) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+cable.Server+":50051",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return stack.DialContext(ctx, "tcp", address)
		}))
}

// watch asks for the server's state, and follows three changes of it.
func watch(ctx context.Context, out io.Writer, c grpc_health_v1.HealthClient, state *health.Server) error {
	answer, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "asked:", answer.Status)
	stream, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	for _, next := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_NOT_SERVING, grpc_health_v1.HealthCheckResponse_SERVING, 0,
	} {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "watched:", answer.Status)
		if next != 0 {
			state.SetServingStatus("", next)
		}
	}
	return nil
}
