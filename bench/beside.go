package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// A build is a binary of this program, of this commit or of another.
type build struct {
	name string // what follows the @ in the names of its peers
	path string
	own  string // the path of the binary that runs
}

// openBuild returns the build of an argument of the form NAME=PATH.
func openBuild(s string) (*build, error) {
	name, path, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return nil, fmt.Errorf("%q is not of the form NAME=PATH; an example is 9ef5e57=/tmp/bench", s)
	}
	if _, err := exec.LookPath(path); err != nil {
		return nil, err
	}
	own, err := os.Executable()
	return &build{name: name, path: path, own: own}, err
}

// self returns the build that is running.
func (b *build) self() *build {
	return &build{name: b.name, path: b.own, own: b.own}
}

// errNoSuchRow is the error of a build that does not have a row, or a peer in it.
var errNoSuchRow = errors.New("that build has no such row or peer")

// measure runs the build, which measures a row by a peer once.
func (b *build) measure(p *plan, row, peer string) (sample, error) {
	exactly := func(s string) string { return "^" + regexp.QuoteMeta(s) + "$" }
	args := []string{"-json", "-rounds", "1", "-time", p.time.String(), "-warm", p.warm.String(),
		"-row", exactly(row), "-peer", exactly(peer)}
	if _, err := findCongestion(p.cc.kernel); err == nil {
		args = append(args, "-cc", p.cc.kernel)
	}
	cmd := exec.Command(b.path, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var rep report
	if json.Unmarshal(out, &rep) != nil || len(rep.Results) == 0 || len(rep.Results[0].Peers) == 0 {
		if strings.Contains(stderr.String(), noRow) {
			return sample{}, errNoSuchRow
		}
		return sample{}, fmt.Errorf("%s: %v: %s", b.path, err, strings.TrimSpace(stderr.String()))
	}
	switch q := rep.Results[0].Peers[0]; {
	case q.Error != "" || q.Skipped != "":
		return sample{}, errors.New(q.Skipped + q.Error)
	case len(q.Samples) != 1:
		return sample{}, fmt.Errorf("%s: got %d samples of one round; want 1", b.path, len(q.Samples))
	default:
		return q.Samples[0], nil
	}
}
