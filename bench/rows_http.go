package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
)

// httpConns is the number of connections, which are kept alive.
const httpConns = 64

func httpRow(scene string, size int) row {
	r := row{
		name:  named(scene, "http1"+sizeName(size)),
		title: fmt.Sprintf("net/http, GET of %s, %d connections", sizeTitle(size), httpConns),
		kind:  kindHTTP, scene: scene, unit: "requests/s",
		run: func(m *meter) error { return gets(m, size) },
	}
	if size >= 1<<20 {
		r.unit, r.perGB = "Gbit/s", true
	}
	return r
}

// gets times requests.
func gets(m *meter, size int) error {
	ln, err := m.listen()
	if err != nil {
		return err
	}
	body := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(body)
	length := []string{strconv.Itoa(size)}
	srv := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Length"] = length
			w.Write(body)
		}),
	}
	m.keep(srv)
	m.spawn(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	tr := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return m.net.dial(ln.Addr().String())
		},
		MaxIdleConnsPerHost: httpConns, MaxConnsPerHost: httpConns, DisableCompression: true,
	}
	m.keep(transportCloser{tr})
	ctx, cancel := context.WithCancel(context.Background())
	m.keep(cancelCloser(cancel))
	got := make([]counter, httpConns)
	for i := range got {
		m.spawn(func() error { return getAll(ctx, m, tr, "http://"+ln.Addr().String()+"/", body, &got[i]) })
	}
	w, err := m.window(got)
	if err != nil {
		return err
	}
	if size >= 1<<20 {
		m.sample.Value = w.count * float64(size) * 8 / 1e9 / w.seconds
		m.perGB(w, w.count*float64(size), w.count)
	} else {
		m.sample.Value = w.count / w.seconds
		m.perOp(w, w.count)
	}
	return nil
}

// getAll sends requests until the measurement is over. It compares the whole first answer, and the
// lengths of the others.
func getAll(ctx context.Context, m *meter, tr *http.Transport, url string, body []byte, got *counter) error {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	buf := make([]byte, min(len(body), chunk)+1)
	for first := true; m.phase.Load() != over; first = false {
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return fmt.Errorf("get: %w", err)
		}
		n := 0
		for {
			k, err := resp.Body.Read(buf)
			if first && (n+k > len(body) || !bytes.Equal(buf[:k], body[n:n+k])) {
				return errEcho
			}
			n += k
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("body: %w", err)
			}
		}
		resp.Body.Close()
		if n != len(body) {
			return fmt.Errorf("body: %d bytes instead of %d", n, len(body))
		}
		got.n.Add(1)
	}
	return nil
}

type transportCloser struct{ *http.Transport }

func (t transportCloser) Close() error {
	t.CloseIdleConnections()
	return nil
}

type cancelCloser context.CancelFunc

func (c cancelCloser) Close() error {
	c()
	return nil
}
