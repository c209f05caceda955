package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"bsdnet"
)

//go:embed page.html style.css
var files embed.FS

var page = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"rtt": func(ns int64) string {
		if ns == 0 {
			return ""
		}
		return rtt(time.Duration(ns)).String()
	},
	"bytes": bytes, "cwnd": cwnd,
	"idle": func(s string) bool { return s != "ESTABLISHED" },
}).ParseFS(files, "page.html"))

// A site serves a page about the stack that the server runs on.
type site struct {
	stack    *bsdnet.Stack
	relay    *relay   // nil: none
	urls     []string // where the page is, over IPv4 and over IPv6
	start    time.Time
	requests atomic.Int64
	accepted atomic.Int64
}

func newSite(stack *bsdnet.Stack) *site { return &site{stack: stack, start: time.Now()} }

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /conns.json", s.json)
	mux.Handle("GET /style.css", http.FileServerFS(files))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		mux.ServeHTTP(w, r)
	})
}

// connState counts the server's connections.
func (s *site) connState(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.accepted.Add(1)
	}
}

// A status is the answer to /conns.json. The page shows the same.
type status struct {
	URLs          []string `json:"urls"` // where the page is
	UptimeSeconds int64    `json:"uptime_seconds"`
	Accepted      int64    `json:"accepted"`      // connections that the server has accepted
	Requests      int64    `json:"requests"`      // requests that it has received
	Relayed       int64    `json:"relayed"`       // connections that came through the relay
	RelayedBytes  int64    `json:"relayed_bytes"` // bytes on those of them that have ended
	Goroutines    int      `json:"goroutines"`
	Conns         []conn   `json:"conns"`
}

// A conn is a line of the list: one end of a connection, or a listener.
type conn struct {
	State       string `json:"state"`
	Local       string `json:"local"`
	Remote      string `json:"remote"`
	RTT         int64  `json:"rtt_ns"`
	Cwnd        int    `json:"cwnd"`
	Sent        uint64 `json:"sent"` // bytes, including those that the peer has not acknowledged yet
	Received    uint64 `json:"received"`
	SendQueue   int    `json:"send_queue"`
	RecvQueue   int    `json:"recv_queue"`
	Retransmits int    `json:"retransmits"`

	ID           uint32 `json:"id"` // as in a trace
	MinRTT       int64  `json:"min_rtt_ns"`
	RTO          int64  `json:"rto_ns"`
	Congestion   string `json:"congestion_control"`
	Recovery     string `json:"recovery"`
	Ssthresh     int    `json:"ssthresh"`
	InFlight     int    `json:"in_flight"`
	DeliveryRate int64  `json:"delivery_rate"` // bytes a second
	SendWindow   int    `json:"send_window"`
	RecvWindow   int    `json:"recv_window"`
	SendBuffer   int    `json:"send_buffer"`
	RecvBuffer   int    `json:"recv_buffer"`
}

func (s *site) status() status {
	st := status{
		URLs:          s.urls,
		UptimeSeconds: int64(time.Since(s.start) / time.Second),
		Accepted:      s.accepted.Load(), Requests: s.requests.Load(), Goroutines: runtime.NumGoroutine(),
		Conns: []conn{},
	}
	if s.relay != nil {
		st.Relayed, st.RelayedBytes = s.relay.count.Load(), s.relay.bytes.Load()
	}
	for _, c := range s.stack.Conns() {
		st.Conns = append(st.Conns, conn{
			State: c.State, Local: addr(c.Local), Remote: addr(c.Remote), RTT: int64(c.RTT), Cwnd: c.Cwnd,
			Sent: c.Sent + uint64(c.InFlight), Received: c.Recv, SendQueue: c.SendQueue, RecvQueue: c.RecvQueue,
			Retransmits: c.Retransmits, ID: c.ID, MinRTT: int64(c.MinRTT), RTO: int64(c.RTO),
			Congestion: c.CongestionControl, Recovery: c.Recovery, Ssthresh: c.Ssthresh,
			InFlight: c.InFlight, DeliveryRate: c.DeliveryRate, SendWindow: c.SendWindow, RecvWindow: c.RecvWindow,
			SendBuffer: c.SendBuffer, RecvBuffer: c.RecvBuffer,
		})
	}
	return st
}

// addr formats an address as netstat does: a star stands for any address.
func addr(a netip.AddrPort) string {
	host, port := "*", "*"
	if ip := a.Addr(); ip.IsValid() && !ip.IsUnspecified() {
		host = ip.String()
	}
	if a.Port() != 0 {
		port = fmt.Sprint(a.Port())
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}

// bytes formats a number of bytes for people.
func bytes(n any) string {
	f, unit := 0.0, ""
	switch n := n.(type) {
	case int:
		f = float64(n)
	case int64:
		f = float64(n)
	case uint64:
		f = float64(n)
	}
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f /= 1024
		unit = u
	}
	if unit == "" {
		return fmt.Sprintf("%.0f B", f)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// cwnd formats a connection's congestion window.
func cwnd(c conn) string { return window(c.Cwnd, c.SendBuffer) }

// window formats a congestion window. A window that is larger than the send buffer, as over the
// loopback, limits nothing.
func window(cwnd, sendBuffer int) string {
	if cwnd >= sendBuffer {
		return "no limit"
	}
	return bytes(cwnd)
}

func (s *site) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	page.Execute(w, s.status()) // an error is the client's: it has gone
}

func (s *site) json(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.Encode(s.status())
}
