// Program websocket runs a websocket server and a client over bsdnet, with github.com/coder/websocket
// on net/http: the server sends each message back.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"

	"bsdnet/examples/programs/cable"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer) error {
	server, client, stop, err := cable.Pair(2)
	if err != nil {
		return err
	}
	defer stop()

	ln, err := server.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(echo)}
	go srv.Serve(ln)
	defer srv.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// The client of the stack dials on the stack. That is all the difference.
	c, _, err := websocket.Dial(ctx, "ws://"+cable.Server+"/", &websocket.DialOptions{HTTPClient: client.HTTPClient()})
	if err != nil {
		return err
	}
	c.SetReadLimit(1 << 20)
	for _, text := range []string{"hello", strings.Repeat("a long message ", 10_000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			return err
		}
		_, answer, err := c.Read(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "sent %d bytes, which came back: %v\n", len(text), string(answer) == text)
	}
	return c.Close(websocket.StatusNormalClosure, "")
}

// echo sends each message back.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered the request
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for {
		typ, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), typ, message); err != nil {
			return
		}
	}
}
