// Program webrtc sends data from one stack to another over a WebRTC data channel: ICE, DTLS and
// SCTP of github.com/pion, over UDP of bsdnet. Each peer has a cable to a third host and no other
// way; there a TURN server relays between them. One of the cables delays, loses and reorders.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"github.com/pion/webrtc/v4"

	"bsdnet"
	"bsdnet/piontransport"
)

var size = flag.Int64("bytes", 100<<20, "how much to send")

func main() {
	flag.Parse()
	if err := run(os.Stdout, *size); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer, size int64) error {
	hosts, stop, err := network()
	if err != nil {
		return err
	}
	defer stop()
	relay, err := turnServer(hosts.relay)
	if err != nil {
		return err
	}
	defer relay.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	from, err := newPeer(hosts.a)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := newPeer(hosts.b)
	if err != nil {
		return err
	}
	defer to.Close()

	got := make(chan received, 1)
	to.OnDataChannel(func(c *webrtc.DataChannel) { receive(c, size, got) })
	sent := make(chan received, 1)
	c, err := from.CreateDataChannel("bytes", nil)
	if err != nil {
		return err
	}
	send(c, size, sent)
	if err := connect(ctx, from, to); err != nil {
		return err
	}
	return compare(ctx, out, sent, got)
}

// received is what one end knows of the data.
type received struct {
	n   int64
	sum [sha256.Size]byte
}

// compare waits for both ends, and prints what they have sent and received.
func compare(ctx context.Context, out io.Writer, sent, got <-chan received) error {
	var s, g received
	for i := range 2 {
		select {
		case s = <-sent:
		case g = <-got:
		case <-ctx.Done():
			return fmt.Errorf("only %d of 2 ends have finished: %w", i, ctx.Err())
		}
	}
	fmt.Fprintf(out, "sent     %d bytes, SHA-256 %x\nreceived %d bytes, SHA-256 %x\n", s.n, s.sum, g.n, g.sum)
	if s != g {
		return errors.New("what was received is not what was sent")
	}
	return nil
}

// newPeer returns a peer that uses the stack, and the relay only.
func newPeer(stack *bsdnet.Stack) (*webrtc.PeerConnection, error) {
	settings := webrtc.SettingEngine{}
	settings.SetNet(piontransport.New(stack))
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings))
	return api.NewPeerConnection(webrtc.Configuration{
		ICEServers: []webrtc.ICEServer{{
			URLs: []string{"turn:" + relayAddress + ":3478?transport=udp"}, Username: user, Credential: password,
		}},
		ICETransportPolicy: webrtc.ICETransportPolicyRelay,
	})
}

// connect exchanges the descriptions of the peers, each with all of its candidates. A program whose
// peers are apart would do so over a connection that they have already.
func connect(ctx context.Context, from, to *webrtc.PeerConnection) error {
	offer, err := from.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err := describe(ctx, from, offer); err != nil {
		return err
	}
	if err := to.SetRemoteDescription(*from.LocalDescription()); err != nil {
		return err
	}
	answer, err := to.CreateAnswer(nil)
	if err != nil {
		return err
	}
	if err := describe(ctx, to, answer); err != nil {
		return err
	}
	return from.SetRemoteDescription(*to.LocalDescription())
}

// describe sets a peer's own description, and waits for its candidates.
func describe(ctx context.Context, p *webrtc.PeerConnection, d webrtc.SessionDescription) error {
	gathered := webrtc.GatheringCompletePromise(p)
	if err := p.SetLocalDescription(d); err != nil {
		return err
	}
	select {
	case <-gathered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	message = 16 << 10 // bytes of a message
	most    = 1 << 20  // bytes that may wait in the channel
)

// send sends size bytes once the channel is open, and tells their sum.
func send(c *webrtc.DataChannel, size int64, sent chan<- received) {
	room := make(chan struct{}, 1)
	c.SetBufferedAmountLowThreshold(most / 2)
	c.OnBufferedAmountLow(func() {
		select {
		case room <- struct{}{}:
		default:
		}
	})
	c.OnOpen(func() {
		source := rand.NewChaCha8([32]byte{1})
		hash, buf := sha256.New(), make([]byte, message)
		r := received{}
		for r.n < size {
			b := buf[:min(size-r.n, message)]
			source.Read(b)
			hash.Write(b)
			for c.BufferedAmount() > most {
				<-room
			}
			if c.Send(b) != nil {
				break
			}
			r.n += int64(len(b))
		}
		hash.Sum(r.sum[:0])
		sent <- r
	})
}

// receive takes size bytes, and tells their sum.
func receive(c *webrtc.DataChannel, size int64, got chan<- received) {
	hash := sha256.New()
	r := received{}
	c.OnMessage(func(m webrtc.DataChannelMessage) {
		hash.Write(m.Data)
		if r.n += int64(len(m.Data)); r.n >= size {
			hash.Sum(r.sum[:0])
			got <- r
		}
	})
}
