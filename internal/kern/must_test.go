package kern

import (
	"bufio"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bsdnet/internal/kern/tcp"
	"bsdnet/internal/kern/wire"
)

// RFC 9293, appendix B, numbers its requirements. A test that holds one says so in its comment,
// "RFC 9293 MUST-n"; docs/rfc9293.md says which the stack does not follow, and why, and which test
// holds each of the others.

const (
	musts = 69
	shlds = 31
)

var writeDoc = flag.Bool("rfc9293", false, "write the table of tests in docs/rfc9293.md anew")

var (
	tagRE  = regexp.MustCompile(`\bRFC 9293 (MUST|SHLD)-(\d+)\b`)
	funcRE = regexp.MustCompile(`^func (Test\w+)\(`)
	reqRE  = regexp.MustCompile(`\b(MUST|SHLD)-(\d+)\b`)
)

// repoRoot is the directory of go.mod.
func repoRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, serr := os.Stat(filepath.Join(dir, "go.mod")); serr == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	t.Fatalf("no go.mod above the test: %v", err)
	return ""
}

// taggedTests returns the tests of each requirement, in all of the repository.
func taggedTests(t *testing.T, root string) map[string][]string {
	t.Helper()
	tests := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		var pending []string
		for sc := bufio.NewScanner(f); sc.Scan(); {
			line := sc.Text()
			if m := funcRE.FindStringSubmatch(line); m != nil {
				for _, req := range pending {
					tests[req] = append(tests[req], m[1])
				}
			}
			if !strings.HasPrefix(line, "//") {
				pending = nil
				continue
			}
			for _, m := range tagRE.FindAllStringSubmatch(line, -1) {
				pending = append(pending, m[1]+"-"+m[2])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range tests {
		slices.Sort(l)
	}
	return tests
}

// Every MUST of RFC 9293 has a test that names it, or a reason in docs/rfc9293.md. The tests that
// the document names exist, and name the MUST.
func TestEveryMustIsTested(t *testing.T) {
	root := repoRoot(t)
	tests := taggedTests(t, root)
	path := filepath.Join(root, "docs", "rfc9293.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, table, ok := strings.Cut(string(doc), testedHeading)
	if !ok {
		t.Fatalf("%s has no part %q", path, strings.TrimSpace(testedHeading))
	}
	if *writeDoc {
		if err := os.WriteFile(path, []byte(head+testedHeading+testedTable(tests, table)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	reasoned := map[string]bool{}
	for line := range strings.Lines(head) {
		if cells := strings.Split(line, "|"); strings.HasPrefix(line, "| ") && len(cells) >= 5 &&
			len(strings.TrimSpace(cells[3])) > 40 {
			for _, m := range reqRE.FindAllString(cells[1], -1) {
				reasoned[m] = true
			}
		}
	}
	var missing []string
	for i := 1; i <= musts; i++ {
		if req := "MUST-" + strconv.Itoa(i); len(tests[req]) == 0 && !reasoned[req] {
			missing = append(missing, req)
		}
	}
	if missing != nil {
		t.Errorf("without a test or a reason: %s", strings.Join(missing, ", "))
	}
	missing = nil
	for i := 1; i <= shlds; i++ {
		if req := "SHLD-" + strconv.Itoa(i); len(tests[req]) == 0 && !reasoned[req] {
			missing = append(missing, req)
		}
	}
	if missing != nil {
		t.Logf("SHLDs without a test or a reason: %s", strings.Join(missing, ", "))
	}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 2 || !reqRE.MatchString(cells[1]) {
			continue
		}
		req := strings.TrimSpace(cells[1])
		if len(cells) != 5 || strings.TrimSpace(cells[2]) == "" {
			t.Errorf("docs/rfc9293.md does not say in short what %s requires", req)
			continue
		}
		for _, name := range strings.Split(cells[3], ",") {
			if name = strings.Trim(name, " `"); name != "" && !slices.Contains(tests[req], name) {
				t.Errorf("docs/rfc9293.md says that %s tests %s; it is not tagged so "+
					"(go test -run TestEveryMust -rfc9293 writes the table anew)", name, req)
			}
		}
	}
}

const testedHeading = "## Where each is tested\n"

// testedTable returns the table of tests. What each requirement says in short is taken from old,
// the table so far.
func testedTable(tests map[string][]string, old string) string {
	short := map[string]string{}
	for line := range strings.Lines(old) {
		if cells := strings.Split(line, "|"); len(cells) == 5 {
			short[strings.TrimSpace(cells[1])] = strings.TrimSpace(cells[2])
		}
	}
	var b strings.Builder
	b.WriteString("\nThe tests are in `internal/kern` and `internal/kern/tcp`.\n\n")
	b.WriteString("| Requirement | In short | Tests |\n|---|---|---|\n")
	row := func(req string) {
		if l := slices.Compact(slices.Clone(tests[req])); len(l) > 0 {
			fmt.Fprintf(&b, "| %s | %s | `%s` |\n", req, short[req], strings.Join(l, "`, `"))
		}
	}
	for i := 1; i <= musts; i++ {
		row("MUST-" + strconv.Itoa(i))
	}
	for i := 1; i <= shlds; i++ {
		row("SHLD-" + strconv.Itoa(i))
	}
	return b.String()
}

// RFC 9293, 3.2: options of any kind, at any place, of any length, are parsed or passed over; of
// those that are known, these count.
//
// RFC 9293 MUST-4
// RFC 9293 MUST-6
// RFC 9293 MUST-7
// RFC 9293 MUST-64
// RFC 9293 MUST-68
func TestOptionsOfAnyKind(t *testing.T) { attackedBoth(t, optionsOfAnyKind) }

func optionsOfAnyKind(t *testing.T, v *victim) {
	v.listen(80, 1000)
	port := uint16(5000)
	// try sends a SYN with these option bytes; what counts of them is what the answer agrees to.
	try := func(what string, opt []byte, wantSack bool) {
		t.Helper()
		port++
		for len(opt)%4 != 0 {
			opt = append(opt, 0)
		}
		s := v.peer(port, 80).seg(wire.SYN, nil)
		b := s.bytes()[v.fam.hdr:]
		b = append(b, opt...)
		b[12] = byte(len(b)/4) << 4
		src, dst := s.from.Addr(), s.to.Addr()
		v.inject(ipPacket(wire.IPv4{}, src, dst, wire.ProtoTCP, tcpSummed(src, dst, b)))
		g := v.one()
		if g.th.Flags != wire.SYN|wire.ACK || g.th.Opt.Has&wire.TofSackperm != 0 != wantSack {
			t.Errorf("%s: answer %+v", what, g.th)
		}
	}
	sack := []byte{4, 2}
	with := func(front ...byte) []byte { return append(front, sack...) }
	try("no options", nil, false)
	try("EOL", []byte{0, 4, 2, 0}, false)
	try("NOPs, so at any alignment", with(1), true)
	try("two", with(1, 1), true)
	try("three", with(1, 1, 1), true)
	try("MSS, then it", with(2, 4, 5, 180), true)
	for kind := 9; kind < 256; kind++ {
		try(fmt.Sprintf("unknown kind %d", kind), with(byte(kind), 5, 1, 2, 3), true)
		try(fmt.Sprintf("unknown kind %d, empty", kind), with(byte(kind), 2), true)
	}
	try("as long as can be", with(append([]byte{77, 38}, make([]byte, 36)...)...), true)
	for _, n := range []byte{0, 1, 39, 41, 255} {
		try(fmt.Sprintf("length %d", n), with(77, n), false)
		try(fmt.Sprintf("MSS of length %d", n), with(2, n), false)
	}
	try("no length at the end", []byte{1, 1, 1, 77}, false)
	try("MSS of another length", with(2, 3, 5), true)
}

// RFC 9293, 3.7.1: MSS is offered on every SYN, and only there, of what the interface takes; header
// padding is zero.
//
// RFC 9293 MUST-14
// RFC 9293 MUST-65
// RFC 9293 MUST-67
// RFC 9293 MUST-69
// RFC 9293 SHLD-5
func TestMSSOffered(t *testing.T) { attackedBoth(t, mssOffered) }

func mssOffered(t *testing.T, v *victim) {
	lfd := v.listen(80, 5)
	padding := func(p []byte) {
		t.Helper()
		h := p[v.fam.hdr:]
		opt := h[wire.TCPMinLen : int(h[12]>>4)*4]
		for len(opt) > 0 && opt[0] != 0 {
			n := 1
			if opt[0] != 1 {
				n = int(opt[1])
			}
			opt = opt[n:]
		}
		for _, b := range opt {
			if b != 0 {
				t.Errorf("padding %x", opt)
			}
		}
	}
	mss := uint16(1500 - v.fam.hdr - wire.TCPMinLen)
	for i, o := range []wire.Options{{}, fullOptions(), {Has: wire.TofMSS | wire.TofSackperm, MSS: 1000}} {
		p := v.peer(uint16(5000+i), 80)
		v.inject(p.syn(o).bytes())
		raw := v.link.fetch()
		padding(raw[0])
		g := v.parse(raw[0])
		if g.th.Opt.Has&wire.TofMSS == 0 || g.th.Opt.MSS != mss {
			t.Errorf("SYN,ACK offers %+v", g.th.Opt)
		}
		p.seq, p.ack, p.tsecr = p.seq+1, g.th.Seq+1, g.th.Opt.TSVal
		v.inject(p.seg(wire.ACK, nil).bytes())
		fd, _, errno := v.p.Accept(lfd)
		v.no(errno)
		v.p.Send(fd, []byte("x"), 0)
		raw = v.link.fetch()
		padding(raw[0])
		if g := v.parse(raw[0]); g.th.Opt.Has&wire.TofMSS != 0 || wireHasMSS(raw[0][v.fam.hdr:]) {
			t.Errorf("data with an MSS option")
		}
	}
	so, errno := v.connectNB(v.at(9))
	v.no(errno)
	if g := v.one(); g.th.Opt.MSS != mss {
		t.Errorf("SYN offers %+v", g.th.Opt)
	}
	so.Soabort()
}

// wireHasMSS looks for the option itself, as ParseTCP counts it on a SYN only.
func wireHasMSS(h []byte) bool {
	for opt := h[wire.TCPMinLen : int(h[12]>>4)*4]; len(opt) > 1; {
		switch opt[0] {
		case 0:
			return false
		case 1:
			opt = opt[1:]
		case 2:
			return true
		default:
			opt = opt[opt[1]:]
		}
	}
	return false
}

// RFC 9293, 3.9.1.1: passive opens stand beside each other and beside the connections of their
// port.
//
// RFC 9293 MUST-41
// RFC 9293 MUST-42
func TestPassiveOpensAreIndependent(t *testing.T) { attackedBoth(t, passiveOpensAreIndependent) }

func passiveOpensAreIndependent(t *testing.T, v *victim) {
	a, b := v.listen(80, 5), v.listen(81, 5)
	_, fd := v.established(a, 5000, 80)
	_, fd2 := v.established(a, 5001, 80)
	v.established(b, 5000, 81)
	v.no(v.p.Close(fd))
	if _, _, errno := v.p.Accept(a); errno != syscall.EAGAIN {
		t.Errorf("accept: %v", errno)
	}
	v.established(a, 5002, 80)
	v.no(v.p.Close(a))
	if i, _ := v.p.TCPInfo(fd2); i.State != tcp.Established {
		t.Errorf("a connection went with its listener: %v", i.State)
	}
	v.established(b, 5003, 81)
}

// RFC 9293, 3.9.1.1: an open may name its local address; else the route chooses it; and it stays.
//
// RFC 9293 MUST-43
// RFC 9293 MUST-44
// RFC 9293 MUST-45
func TestLocalAddress(t *testing.T) { attackedBoth(t, localAddress) }

func localAddress(t *testing.T, v *victim) {
	prefix, foreign := netip.MustParsePrefix("10.7.0.1/24"), netip.MustParseAddrPort("10.99.0.1:0")
	if v.fam == &attInet6 {
		prefix, foreign = netip.MustParsePrefix("fd07::1/64"), netip.MustParseAddrPort("[fd99::1]:0")
	}
	second, prefixes := prefix.Addr(), []netip.Prefix{prefix}
	if _, err := v.k.Attach("wire1", newWireLink(1500), prefixes); err != nil {
		t.Fatal(err)
	}
	for _, want := range []netip.Addr{v.fam.host(), second} {
		so, errno := v.k.Socreate(v.fam.domain, SOCK_STREAM, 0)
		v.no(errno)
		so.Setnbio(true)
		if want == second {
			v.no(so.Sobind(netip.AddrPortFrom(second, 0)))
		}
		v.no(so.Soconnect(v.at(9)))
		start := time.Now()
		for range 3 {
			if g := v.one(); g.ip.Src != want || so.Laddr().Addr() != want {
				t.Errorf("from %v, %v, want %v", g.ip.Src, so.Laddr(), want)
			}
			pass(time.Since(start) + time.Second)
		}
		so.Soabort()
		v.link.fetch()
	}
	so, _ := v.k.Socreate(v.fam.domain, SOCK_STREAM, 0)
	if errno := so.Sobind(foreign); errno != syscall.EADDRNOTAVAIL {
		t.Errorf("somebody else's address: %v", errno)
	}
	// The answer to a SYN comes from the address that the SYN was sent to.
	v.listen(80, 5)
	p := v.peer(5000, 80)
	p.to = netip.AddrPortFrom(second, 80)
	v.inject(p.syn(wire.Options{}).bytes())
	if g := v.one(); g.ip.Src != second {
		t.Errorf("answer from %v", g.ip.Src)
	}
}

// RFC 9293, 3.9.2.3: no call and no segment opens a connection to more than one host.
//
// RFC 9293 MUST-46
func TestConnectToMany(t *testing.T) {
	v := attacked(t, nil)
	defer v.done()
	for _, to := range []string{"255.255.255.255:9", "10.0.0.255:9", "224.0.0.1:9", "239.1.2.3:9"} {
		if _, errno := v.connectNB(netip.MustParseAddrPort(to)); errno != syscall.EACCES {
			t.Errorf("connect to %s: %v", to, errno)
		}
	}
	v.none()
}

// RFC 9293, 3.9.2 and 3.9.1.7: the user chooses type of service and time to live; segments bear
// them as they are, and accepted connections have their listener's.
//
// RFC 9293 MUST-48
// RFC 9293 MUST-49
// RFC 9293 SHLD-22
func TestTOSAndTTL(t *testing.T) { attackedBoth(t, tosAndTTL) }

func tosAndTTL(t *testing.T, v *victim) {
	lfd := v.listen(80, 5)
	v.no(v.p.Setsockopt(lfd, v.fam.level, v.fam.class, 0xb8))
	v.no(v.p.Setsockopt(lfd, v.fam.level, v.fam.hop, 33))
	p := v.peer(5000, 80)
	v.inject(p.syn(wire.Options{}).bytes())
	g := v.one()
	check := func(what string, g got, tos, ttl uint8) {
		t.Helper()
		if g.ip.TOS != tos || g.ip.TTL != ttl {
			t.Errorf("%s: TOS %#x, TTL %d, want %#x, %d", what, g.ip.TOS, g.ip.TTL, tos, ttl)
		}
	}
	check("SYN,ACK", g, 0xb8, 33)
	p.seq, p.ack = p.seq+1, g.th.Seq+1
	v.inject(p.seg(wire.ACK, nil).bytes())
	fd, _, errno := v.p.Accept(lfd)
	v.no(errno)
	v.p.Send(fd, []byte("x"), 0)
	check("data", v.one(), 0xb8, 33)
	v.no(v.p.Setsockopt(fd, v.fam.level, v.fam.class, 0x20))
	v.no(v.p.Setsockopt(fd, v.fam.level, v.fam.hop, 5))
	v.p.Send(fd, []byte("y"), 0)
	check("data after a change", v.one(), 0x20, 5)
	so, errno := v.connectNB(v.at(9))
	v.no(errno)
	check("SYN", v.one(), 0, 64)
	so.Soabort()
}
