package simnet_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/netem"
	"bsdnet/simnet"
)

// A voter is a member of a group that elects a leader: the first half of Raft.
type voter struct {
	host  *simnet.Host
	peers []*peer

	mu       sync.Mutex
	term     int
	vote     string // whom the voter has voted for in term
	leads    bool
	heard    time.Time // from a leader, or a candidate that got the vote
	patience time.Duration
	dice     *rand.Rand
	done     bool
}

// A peer is another voter, as one sees it: one request at a time, over a connection that is kept.
type peer struct {
	host string
	mu   sync.Mutex
	conn net.Conn
	r    *bufio.Reader
}

const (
	ballotPort = ":4000"
	rpcTimeout = 300 * time.Millisecond
	heartbeat  = 250 * time.Millisecond
)

// startVoters starts a voter on each host, whose goroutines end when the host's stack is closed and
// the returned function has been called.
func startVoters(t *testing.T, hosts []*simnet.Host) (voters []*voter, stop func()) {
	t.Helper()
	var all sync.WaitGroup
	for i, h := range hosts {
		v := &voter{host: h, heard: time.Now(), dice: rand.New(rand.NewPCG(1, uint64(i)))}
		v.patience = v.wait()
		for _, o := range hosts {
			if o != h {
				v.peers = append(v.peers, &peer{host: o.Name()})
			}
		}
		ln, err := h.Listen("tcp", ballotPort)
		if err != nil {
			t.Fatal(err)
		}
		voters = append(voters, v)
		all.Go(func() { v.serve(&all, ln) })
	}
	for _, v := range voters {
		all.Go(func() { v.run(&all) })
	}
	return voters, func() {
		for _, v := range voters {
			v.mu.Lock()
			v.done = true
			v.mu.Unlock()
		}
	}
}

func (v *voter) wait() time.Duration {
	return time.Second + time.Duration(v.dice.Int64N(int64(2*time.Second)))
}

func (v *voter) serve(all *sync.WaitGroup, ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer c.Close()
			for r := bufio.NewReader(c); ; {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				var kind, name string
				var term int
				fmt.Sscan(line, &kind, &term, &name)
				yes, now := v.answer(kind, term, name)
				if _, err := fmt.Fprintln(c, yes, now); err != nil {
					return
				}
			}
		})
	}
}

// answer answers a request for a vote, or a heartbeat.
func (v *voter) answer(kind string, term int, name string) (yes bool, now int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if term > v.term {
		v.term, v.vote, v.leads = term, "", false
	}
	switch {
	case term < v.term:
	case kind == "lead" || v.vote == "" || v.vote == name:
		v.vote, v.heard, yes = name, time.Now(), true
	}
	return yes, v.term
}

// run campaigns when no leader is heard, and sends heartbeats as a leader.
func (v *voter) run(all *sync.WaitGroup) {
	for {
		time.Sleep(heartbeat)
		v.mu.Lock()
		if v.done {
			v.mu.Unlock()
			return
		}
		kind := "lead"
		if !v.leads {
			if time.Since(v.heard) < v.patience {
				v.mu.Unlock()
				continue
			}
			kind = "vote"
			v.term++
			v.vote, v.heard, v.patience = v.host.Name(), time.Now(), v.wait()
		}
		term, votes := v.term, 1
		v.mu.Unlock()
		for _, p := range v.peers {
			all.Go(func() {
				yes, now, err := p.ask(v.host, kind, term)
				v.mu.Lock()
				defer v.mu.Unlock()
				if now > v.term {
					v.term, v.vote, v.leads = now, "", false
				}
				if err != nil || !yes || v.term != term {
					return
				}
				if votes++; kind == "vote" && votes > (len(v.peers)+1)/2 {
					v.leads = true
				}
			})
		}
	}
}

// ask sends a request and waits for the answer, unless the one before is still under way.
func (p *peer) ask(from *simnet.Host, kind string, term int) (yes bool, now int, err error) {
	if !p.mu.TryLock() {
		return false, 0, os.ErrDeadlineExceeded
	}
	defer p.mu.Unlock()
	if p.conn == nil {
		if p.conn, err = from.DialTimeout("tcp", p.host+ballotPort, rpcTimeout); err != nil {
			p.conn = nil
			return false, 0, err
		}
		p.r = bufio.NewReader(p.conn)
	}
	p.conn.SetDeadline(time.Now().Add(rpcTimeout))
	if _, err = fmt.Fprintln(p.conn, kind, term, from.Name()); err == nil {
		_, err = fmt.Fscanln(p.r, &yes, &now)
	}
	if err != nil {
		p.conn.Close()
		p.conn = nil
	}
	return yes, now, err
}

// leaders returns the names of those that lead.
func leaders(voters []*voter) (names []string) {
	for _, v := range voters {
		v.mu.Lock()
		if v.leads {
			names = append(names, v.host.Name())
		}
		v.mu.Unlock()
	}
	return names
}

// election lets 50 hosts elect a leader, and separates it and 19 others from the rest. It returns a
// capture of the whole network.
func election(t *testing.T, seed uint64) []byte {
	t.Helper()
	var file bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: seed})
		stop := n.Capture(&file)
		sw := n.Switch("lan")
		var hosts []*simnet.Host
		for i := range 50 {
			h := n.Host(fmt.Sprintf("node%02d", i))
			n.Link(h, sw, simnet.Symmetric(netem.Impairment{
				Delay: 2 * time.Millisecond, Jitter: 3 * time.Millisecond, Loss: 0.01,
			}))
			hosts = append(hosts, h)
		}
		voters, end := startVoters(t, hosts)
		time.Sleep(6*time.Second + heartbeat/3) // not in an instant in which voters act
		first := leaders(voters)
		if len(first) != 1 {
			t.Fatalf("leaders %v", first)
		}
		var minority, majority []*simnet.Host
		var rest []*voter
		for i, h := range hosts {
			if h.Name() == first[0] || len(minority) < 19 {
				minority = append(minority, h)
			} else {
				majority = append(majority, h)
				rest = append(rest, voters[i])
			}
		}
		n.Partition(minority, majority)
		time.Sleep(6*time.Second + heartbeat/3) // not in an instant in which voters act
		if l := leaders(rest); len(l) != 1 {
			t.Errorf("leaders of the majority: %v", l)
		}
		n.Heal()
		time.Sleep(6*time.Second + heartbeat/3) // not in an instant in which voters act
		if l := leaders(voters); len(l) != 1 {
			t.Errorf("leaders when all is healed: %v", l)
		}
		end()
		time.Sleep(time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return file.Bytes()
}

// The partition of 50 hosts is the same in each run, byte for byte.
func TestElectionRepeats(t *testing.T) {
	runs := 3
	if os.Getenv("BSDNET_LONG") != "" {
		runs = 100
	}
	first := election(t, 1)
	if len(first) < 1<<20 {
		t.Errorf("a capture of only %d bytes", len(first))
	}
	for i := range runs - 1 {
		if again := election(t, 1); !bytes.Equal(first, again) {
			t.Fatalf("run %d differs from the first:\n%s", i+2, firstDifference(first, again))
		}
	}
	if bytes.Equal(first, election(t, 2)) {
		t.Error("seeds 1 and 2 give the same capture")
	}
}
