package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// results are the results of tests and subtests: PASS, FAIL, SKIP, or RUN for a test that the end
// of its binary has interrupted.
type results map[string]string

// compare runs the tests of one package over the kernel and over bsdnet, and reports whether bsdnet
// is as good as the kernel.
func compare(tmp, root, pkg string) (ok bool, err error) {
	bin, err := build(tmp, root, pkg)
	if err != nil {
		return false, err
	}
	var kernel results
	if *kernelFlag {
		if kernel, err = runAll(tmp, root, pkg, bin, "kernel", ""); err != nil {
			return false, err
		}
	}
	skip := ""
	if !*excludedFlag {
		skip = skipPattern(pkg)
	}
	ok = true
	for range *countFlag {
		got, err := runAll(tmp, root, pkg, bin, "bsdnet", skip)
		if err != nil {
			return false, err
		}
		ok = report(pkg, kernel, got) && ok
	}
	return ok, nil
}

// report prints the differences and a line of counts.
func report(pkg string, kernel, got results) (ok bool) {
	if kernel == nil {
		kernel = results{}
		for name, r := range got {
			if r != "SKIP" {
				kernel[name] = "PASS"
			}
		}
	}
	names := make([]string, 0, len(kernel))
	for name := range kernel {
		names = append(names, name)
	}
	slices.Sort(names)
	var passed, same, excluded, failed int
	for _, name := range names {
		if kernel[name] != "PASS" {
			continue
		}
		passed++
		reason := excludedFor(pkg, name)
		switch {
		case got[name] == "PASS":
			same++
			if reason != "" {
				fmt.Printf("%s %s: passes although it is excluded: %s\n", pkg, name, reason)
			}
		case reason != "":
			excluded++
		default:
			failed++
			fmt.Printf("%s %s: PASS over the kernel, %s over bsdnet\n", pkg, name, orNone(got[name]))
		}
	}
	fmt.Printf("%-20s %5d pass over the kernel: %5d over bsdnet too, %d excluded, %d not\n",
		pkg, passed, same, excluded, failed)
	return failed == 0
}

func orNone(r string) string {
	if r == "" {
		return "no result"
	}
	return r
}

// runAll runs the test binary until each test has a result. A test that ends the binary, by a panic
// or the timeout, has failed, and is left out the next time. The tests that it has interrupted run
// again.
func runAll(tmp, root, pkg, bin, over, skip string) (results, error) {
	all := results{}
	for try := range 40 {
		r, ended, err := runOnce(tmp, root, pkg, bin, over, skip, try)
		if err != nil {
			return nil, err
		}
		done := 0
		for name, res := range r {
			if all[name] == "" || all[name] == "RUN" {
				all[name] = res
			}
			if res != "RUN" {
				done++
			}
		}
		if ended {
			return all, nil
		}
		skip = skipDone(skip, all, done == 0)
	}
	return all, nil
}

// skipDone adds the tests that have a result to a -skip pattern, and if interrupted is true, also
// those that have begun.
func skipDone(skip string, all results, interrupted bool) string {
	var done []string
	if skip != "" {
		done = append(done, skip)
	}
	for name, res := range all {
		if !strings.Contains(name, "/") && (interrupted || res != "RUN") {
			done = append(done, "^"+regexp.QuoteMeta(name)+"$")
		}
	}
	return strings.Join(done, "|")
}

// mark is the beginning of each line that package testing prints with -test.v=test2json.
const mark = "\x16"

var line = regexp.MustCompile(`^(?:=== (RUN) +|--- (PASS|FAIL|SKIP): )(\S+)`)

// runOnce runs the test binary once. It reports whether the binary came to its end.
func runOnce(tmp, root, pkg, bin, over, skip string, try int) (r results, ended bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), *timeoutFlag+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-test.v=test2json", "-test.timeout="+timeoutFlag.String(),
		fmt.Sprintf("-test.short=%v", *shortFlag),
		"-test.run="+*runFlag, "-test.skip="+skip)
	cmd.Dir = filepath.Join(root, "src", filepath.FromSlash(pkg))
	cmd.Env = env(root, over)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	runErr := cmd.Run()
	name := fmt.Sprintf("%s.%s.%d.out", strings.ReplaceAll(pkg, "/", "_"), over, try)
	if err := os.WriteFile(filepath.Join(tmp, name), out.Bytes(), 0o644); err != nil {
		return nil, false, err
	}
	if _, exit := runErr.(*exec.ExitError); runErr != nil && !exit {
		return nil, false, runErr
	}
	return parse(out.String())
}

var (
	timedOut = regexp.MustCompile(`(?m)^panic: test timed out.*\n\trunning tests:\n((?:\t\t\S+ .*\n)+)`)
	running  = regexp.MustCompile(`(?m)^\t\t([^\s/]+)`)
	culprit  = regexp.MustCompile(`(?m)^net[\w./]*\.(Test\w+)[.(]`)
)

// parse reads results from the output. If tests were running when the binary ended, those that the
// stack of the panic or the message of the timeout names have failed.
func parse(out string) (r results, ended bool, err error) {
	r = results{}
	for s := range strings.SplitSeq(out, mark) {
		s = strings.TrimLeft(s, " ")
		ended = ended || strings.HasPrefix(s, "PASS\n") || strings.HasPrefix(s, "FAIL\n")
		m := line.FindStringSubmatch(s)
		switch {
		case m == nil:
		case m[2] != "":
			r[m[3]] = m[2]
		default:
			r[m[3]] = "RUN"
		}
	}
	if m := timedOut.FindStringSubmatch(out); m != nil {
		for _, t := range running.FindAllStringSubmatch(m[1], -1) {
			r[t[1]] = "FAIL"
		}
	} else if _, stack, ok := strings.Cut(out, "\npanic: "); ok {
		if m := culprit.FindStringSubmatch(stack); m != nil {
			r[m[1]] = "FAIL"
		}
	}
	return r, ended, nil
}
