package kern

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
	"bsdnet/internal/kern/wire/trace"
)

// The grid: every state meets every kind of segment; the reply and the next state are golden files,
// reviewed against RFC 9293, 3.10.7, and the rules of the profile. testdata/grid_default.txt holds
// only the lines in which the Default profile differs.
//
// A line is a segment; its columns are where its sequence number lies: left of the window
// (RCV.NXT-1), at RCV.NXT, inside, and to the right of it. A cell is "reply => next state errno": a
// reply without time is immediate, "+40ms" is the delayed acknowledgment, "-" is none; "=" is the
// same state, "none" that no connection is left. Numbers are relative: 1 is the first byte of
// either side.

var update = flag.Bool("update", false, "rewrite the golden files")

// A gridState is a state with its numbers.
type gridState struct {
	name     string
	script   string
	fd       int // whose SO_ERROR; 0: the user is gone
	rcv      int // RCV.NXT; -1: not known yet
	una, nxt int // SND.UNA and SND.NXT; -1: there is no connection
}

const (
	scrShut = scrConnected + "shutdown(3, SHUT_WR) = 0\n> F. 1:1(0) ack 1 win 65535\n"
	scrOpen = scrConnected // without data in flight
)

var gridStates = []gridState{
	{"CLOSED, nobody", "\n", 0, -1, -1, -1},
	{"CLOSED, bound", scrBound, 3, -1, -1, -1},
	{"LISTEN", scrListen, 3, -1, -1, -1},
	{"SYN_SENT", scrSynSent, 3, -1, 0, 1},
	{"SYN_RECEIVED, passive", scrSynRcvd, 3, 1, 0, 1},
	{"SYN_RECEIVED, active", scrSynSent + "< S 0:0(0) win 65535 <mss 1460,sackOK,eol,eol>\n" +
		"> S. 0:0(0) ack 1 win 65535\n", 3, 1, 0, 1},
	{"ESTABLISHED", scrOpen, 3, 1, 1, 1},
	{"ESTABLISHED, data in flight", scrOpen + "send(3, ..., 10, 0) = 10\n> P. 1:11(10) ack 1 win 65535\n", 3, 1, 1, 11},
	{"CLOSE_WAIT", scrOpen + "< F. 1:1(0) ack 1 win 65535\n> . 1:1(0) ack 2 win 65535\n", 3, 2, 1, 1},
	{"FIN_WAIT_1", scrShut, 3, 1, 1, 2},
	{"FIN_WAIT_1, closed", scrOpen + "close(3) = 0\n> F. 1:1(0) ack 1 win 65535\n", 0, 1, 1, 2},
	{"FIN_WAIT_2", scrShut + "< . 1:1(0) ack 2 win 65535\n", 3, 1, 2, 2},
	{"FIN_WAIT_2, closed", scrOpen + "close(3) = 0\n> F. 1:1(0) ack 1 win 65535\n< . 1:1(0) ack 2 win 65535\n", 0, 1,
		2, 2},
	{"CLOSING", scrShut + "< F. 1:1(0) ack 1 win 65535\n> . 2:2(0) ack 2 win 65535\n", 3, 2, 1, 2},
	{"LAST_ACK", scrOpen + "< F. 1:1(0) ack 1 win 65535\n> . 1:1(0) ack 2 win 65535\nshutdown(3, SHUT_WR) = 0\n" +
		"> F. 1:1(0) ack 2 win 65535\n", 3, 2, 1, 2},
	{"TIME_WAIT", scrShut + "< F. 1:1(0) ack 2 win 65535\n> . 2:2(0) ack 2 win 65535\n", 3, 2, 2, 2},
	{"TIME_WAIT, with a listener", scrTimeWait, 3, 2, 2, 2},
}

// A gridSeg is a kind of segment.
type gridSeg struct {
	flags string // without the dot
	ack   string // "", or one of the names below
	len   int
}

// gridSegs are the segments for a state.
func (st *gridState) segs() (l []gridSeg) {
	acks := []string{"", "old", "una", "good", "beyond"}
	switch {
	case st.una < 0:
		acks = []string{"", "any"}
	case st.una == st.nxt:
		acks = []string{"", "old", "good", "beyond"}
	}
	for _, flags := range []string{"", "F", "S", "R"} {
		for _, ack := range acks {
			for _, n := range []int{0, 10} {
				if n > 0 && flags == "R" {
					continue
				}
				l = append(l, gridSeg{flags, ack, n})
			}
		}
	}
	for _, flags := range []string{"SF", "SR", "FR"} {
		for _, ack := range []string{"", acks[len(acks)/2]} {
			l = append(l, gridSeg{flags, ack, 0})
		}
	}
	return l
}

func (g gridSeg) String() string {
	f := g.flags
	if g.ack != "" {
		f += ". ack " + g.ack
	} else if f == "" {
		f = "-"
	}
	if g.len > 0 {
		f += " data"
	}
	return f
}

var gridPlaces = []string{"left", "at", "in", "right"}

// trace makes the segment at a place.
func (st *gridState) trace(g gridSeg, place string) *trace.Line {
	var tr trace.Line
	for i, c := range "FSRP" {
		if strings.ContainsRune(g.flags, c) {
			tr.TCP.Flags |= 1 << i
		}
	}
	ack := map[string]int{"old": st.una - 1, "una": st.una, "good": st.nxt, "beyond": st.nxt + 1, "any": 1000}[g.ack]
	if g.ack != "" {
		tr.TCP.Flags |= wire.ACK
		tr.TCP.Ack = wire.Seq(uint32(int32(ack)))
	}
	seq := st.rcv + map[string]int{"left": -1, "at": 0, "in": 5, "right": 1000000}[place]
	if st.rcv < 0 {
		seq = 1
		if tr.TCP.Flags&wire.SYN != 0 {
			seq = 0
		}
	}
	tr.TCP.Seq, tr.Len, tr.TCP.Win = wire.Seq(uint32(int32(seq))), g.len, 65535
	return &tr
}

// cell tries one segment on a new connection.
func (st *gridState) cell(
	t *testing.T, fam *family, prof *tcp.Profile, steps []step, g gridSeg, place string,
) (out string) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, fam, prof, 1000, steps)
		s.lax = true
		for i := range steps {
			if d, ok := steps[i].ev.(directive); ok && d.word == "states" {
				continue
			}
			s.run(&steps[i])
		}
		before := s.gridState()
		s.inject(st.trace(g, place))
		synctest.Wait()
		start := time.Now()
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		var replies []string
		for p, ok := s.sent(); ok; p, ok = s.sent() {
			replies = append(replies, s.gridReply(p, p.at.Sub(start)))
			s.claim()
		}
		if replies == nil {
			replies = []string{"-"}
		}
		after := s.gridState()
		if after == before {
			after = "="
		}
		out = strings.Join(replies, "; ") + " => " + after
		if st.fd != 0 {
			if e, _ := s.p.Getsockopt(st.fd, SOL_SOCKET, SO_ERROR); e != 0 {
				out += " " + errnoName(syscall.Errno(e))
			}
		}
		s.finish()
	})
	return out
}

// gridState returns the states of all sockets except listeners.
func (s *script) gridState() string {
	var l []string
	for _, c := range s.k.Pcblist() {
		if c.State != tcp.Listen {
			l = append(l, c.State.String())
		}
	}
	slices.Sort(l)
	if l == nil {
		return "none"
	}
	return strings.Join(l, " ")
}

// gridReply prints a reply: flags and numbers, and length and SACK blocks if there are any.
func (s *script) gridReply(p sentPkt, after time.Duration) string {
	_, tr, err := s.trace(p.pkt)
	if err != nil {
		return err.Error()
	}
	seq := int(int32(tr.TCP.Seq))
	if tr.TCP.Flags&wire.SYN != 0 || tr.TCP.Flags&wire.RST != 0 && tr.TCP.Seq+s.cur.iss == 0 {
		seq = 0 // the number that has just been drawn, or a reset's, which is absolute
	}
	out := fmt.Sprint(tr.TCP.Flags, " ", seq)
	if tr.Given&trace.GivenAck != 0 {
		out += fmt.Sprint(" ack ", tr.TCP.Ack)
	}
	if o := trace.FormatOptions(tr.Raw, 0); strings.Contains(o, "sack ") {
		out += " <" + o[strings.Index(o, "sack "):] + ">"
	}
	if after > 0 {
		out = "+" + after.String() + " " + out
	}
	return out
}

// grid returns the lines of a profile.
func grid(t *testing.T, fam *family, prof func() *tcp.Profile) (lines []string) {
	for i := range gridStates {
		st := &gridStates[i]
		steps, err := parseScript(st.script)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range st.segs() {
			line := fmt.Sprintf("%s | %s", st.name, g)
			places := gridPlaces
			if st.rcv < 0 {
				places = []string{"at"}
			}
			for _, p := range places {
				line += fmt.Sprintf(" | %s: %s", p, st.cell(t, fam, prof(), steps, g, p))
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// TestGrid holds both golden files, which are the same for both families.
func TestGrid(t *testing.T) {
	bothFamilies(t, func(t *testing.T, fam *family) {
		freebsd := grid(t, fam, tcp.FreeBSD)
		golden(t, "testdata/grid_freebsd.txt", freebsd)
		var differ []string
		for i, l := range grid(t, fam, tcp.Default) {
			if l != freebsd[i] {
				differ = append(differ, l)
			}
		}
		golden(t, "testdata/grid_default.txt", differ)
	})
}

// golden compares lines with a file.
func golden(t *testing.T, file string, lines []string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n"), "\n")
	for i := range max(len(want), len(lines)) {
		var w, g string
		if i < len(want) {
			w = want[i]
		}
		if i < len(lines) {
			g = lines[i]
		}
		if w != g {
			t.Errorf("%s:%d:\nis   %s\nwant %s", file, i+1, g, w)
		}
	}
}
