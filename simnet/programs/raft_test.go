package programs

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"bsdnet/netem"
	"bsdnet/simnet"
)

// A layer is a host as raft's transport wants it: its StreamLayer.
type layer struct {
	net.Listener
	host *simnet.Host
}

// Dial implements raft.StreamLayer.
func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.host.DialTimeout("tcp", string(to), timeout)
}

// Addr returns the address that the other members dial, with the host's name.
func (l *layer) Addr() net.Addr { return named(l.host.Name() + raftPort) }

const raftPort = ":7000"

type named string

func (n named) Network() string { return "tcp" }
func (n named) String() string  { return string(n) }

// A journal is a state machine that keeps all that is applied to it.
type journal struct {
	mu      sync.Mutex
	entries []string
}

// Apply implements raft.FSM.
func (j *journal) Apply(l *raft.Log) any {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, string(l.Data))
	return nil
}

// Snapshot implements raft.FSM.
func (j *journal) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("there are no snapshots")
}

// Restore implements raft.FSM.
func (j *journal) Restore(io.ReadCloser) error { return nil }

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.entries, " ")
}

// A member is a server of a cluster, with the disk that outlives a crash.
type member struct {
	host    *simnet.Host
	disk    *raft.InmemStore
	raft    *raft.Raft
	trans   *raft.NetworkTransport
	journal *journal
}

// start starts the member's server.
func (m *member) start(t *testing.T) {
	t.Helper()
	ln, err := m.host.Listen("tcp", raftPort)
	if err != nil {
		t.Fatal(err)
	}
	m.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &layer{ln, m.host}, MaxPool: 3, Timeout: time.Second, Logger: hclog.NewNullLogger(),
	})
	m.journal = new(journal)
	m.raft, err = raft.NewRaft(m.config(), m.journal, m.disk, m.disk, raft.NewInmemSnapshotStore(), m.trans)
	if err != nil {
		t.Fatal(err)
	}
}

func (m *member) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(m.host.Name())
	c.Logger = hclog.NewNullLogger()
	return c
}

// stop stops the server.
func (m *member) stop() {
	m.raft.Shutdown().Error()
	m.trans.Close()
}

// cluster starts a cluster of five, on a switch with a round trip of 10 ms and some loss.
func cluster(t *testing.T, n *simnet.Net) (members []*member) {
	t.Helper()
	lan := n.Switch("lan")
	var servers raft.Configuration
	for i := range 5 {
		h := n.Host(fmt.Sprintf("node%d", i))
		n.Link(h, lan, simnet.Symmetric(netem.Impairment{Delay: 2500 * time.Microsecond, Loss: 0.01}))
		members = append(members, &member{host: h, disk: raft.NewInmemStore()})
		servers.Servers = append(servers.Servers, raft.Server{
			ID: raft.ServerID(h.Name()), Address: raft.ServerAddress(h.Name() + raftPort),
		})
	}
	for _, m := range members {
		snapshots := raft.NewInmemSnapshotStore()
		_, trans := raft.NewInmemTransport("")
		if err := raft.BootstrapCluster(m.config(), m.disk, m.disk, snapshots, trans, servers); err != nil {
			t.Fatal(err)
		}
		m.start(t)
		t.Cleanup(m.stop)
	}
	return members
}

// leader waits for a leader among some members.
func leader(t *testing.T, members []*member) *member {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, m := range members {
			if m.raft.State() == raft.Leader && m.raft.VerifyLeader().Error() == nil {
				return m
			}
		}
	}
	t.Fatal("no leader within a minute")
	return nil
}

// apply applies an entry by way of the leader among some members.
func apply(t *testing.T, members []*member, entry string) *member {
	t.Helper()
	l := leader(t, members)
	if err := l.raft.Apply([]byte(entry), 5*time.Second).Error(); err != nil {
		t.Errorf("%s: %v", entry, err)
	}
	return l
}

// A cluster of hashicorp/raft stays consistent through partitions, a leader that can be heard but
// does not hear, and a crash.
func TestRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(t, simnet.Config{Seed: 1})
		members := cluster(t, n)
		hosts := func(list []*member) (hosts []*simnet.Host) {
			for _, m := range list {
				hosts = append(hosts, m.host)
			}
			return hosts
		}
		first := apply(t, members, "one")

		// The leader is with the minority.
		others := slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m == first })
		minority, majority := []*member{first, others[0]}, others[1:]
		n.Partition(hosts(minority), hosts(majority))
		if err := first.raft.Apply([]byte("lost"), 2*time.Second).Error(); err == nil {
			t.Error("a leader without a majority has applied an entry")
		}
		second := apply(t, majority, "two")
		n.Heal()
		apply(t, members, "three")

		// The leader hears nothing, but is heard.
		third := leader(t, members)
		others = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m == third })
		n.Block(hosts(others), hosts([]*member{third}))
		apply(t, others, "four")
		n.Heal()

		// A member crashes, and comes back with what is on its disk.
		victim := leader(t, members)
		victim.host.Crash()
		victim.stop()
		others = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m == victim })
		apply(t, others, "five")
		victim.host.Restart()
		victim.start(t)
		apply(t, members, "six")

		time.Sleep(10 * time.Second)
		for _, m := range members {
			if got := m.journal.String(); got != "one two three four five six" {
				t.Errorf("%s has applied %q; %s, %s, %s and then others were leaders", m.host.Name(), got,
					first.host.Name(), second.host.Name(), third.host.Name())
			}
		}
	})
}
