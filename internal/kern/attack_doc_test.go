package kern

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// attacks is how many attacks docs/attacks.md has.
const attacks = 51

var (
	attackRE = regexp.MustCompile(`^A\d\d$`)
	codeRE   = regexp.MustCompile("`([^`]+)`")
)

// testsOf returns the names of the tests and fuzz targets of a package's directory.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	re := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range re.FindAllStringSubmatch(string(b), -1) {
			tests[m[1]] = true
		}
	}
	return tests
}

// checkAttack returns what is wrong with the row of an attack: a missing answer, a file or a test
// that the repository does not have.
func checkAttack(t *testing.T, root string, cells []string) (wrong []string) {
	t.Helper()
	if len(cells) != 5 {
		return []string{fmt.Sprintf("%d columns, want 5", len(cells))}
	}
	for i, c := range cells {
		if cells[i] = strings.TrimSpace(c); cells[i] == "" {
			wrong = append(wrong, fmt.Sprintf("column %d is empty", i+1))
		}
	}
	file := strings.Trim(cells[3], "`")
	if _, err := os.Stat(filepath.Join(root, file)); err != nil || !strings.HasSuffix(file, ".go") {
		wrong = append(wrong, "there is no file "+file)
	}
	for part := range strings.SplitSeq(cells[4], ";") {
		names := codeRE.FindAllStringSubmatch(part, -1)
		if len(names) < 2 {
			wrong = append(wrong, "no package and test in "+part)
			continue
		}
		tests := testsOf(t, filepath.Join(root, names[0][1]))
		for _, n := range names[1:] {
			if !tests[n[1]] {
				wrong = append(wrong, fmt.Sprintf("%s has no %s", names[0][1], n[1]))
			}
		}
	}
	return wrong
}

// docs/attacks.md lists each attack once, in order. The file of its answer and its tests exist.
func TestEveryAttackIsTested(t *testing.T) {
	root := repoRoot(t)
	doc, err := os.ReadFile(filepath.Join(root, "docs", "attacks.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		number := strings.TrimSpace(cells[0])
		if !attackRE.MatchString(number) {
			continue
		}
		n++
		if want := fmt.Sprintf("A%02d", n); number != want {
			t.Fatalf("%s stands where %s should", number, want)
		}
		for _, w := range checkAttack(t, root, cells) {
			t.Errorf("%s: %s", number, w)
		}
	}
	if n != attacks {
		t.Errorf("%d attacks, want %d", n, attacks)
	}
}

// checkAttack finds each kind of mistake in a row.
func TestAttackRowsAreChecked(t *testing.T) {
	root := repoRoot(t)
	good := []string{"A01", "attack", "answer", "`internal/kern/kern.go`",
		"`internal/kern`: `TestGarbage`; `internal/contract`: `TestHTTP`"}
	if w := checkAttack(t, root, append([]string(nil), good...)); w != nil {
		t.Errorf("a good row: %q", w)
	}
	for i, bad := range []string{"", "", "", "`internal/kern/none.go`", "`internal/kern`: `TestNone`"} {
		row := append([]string(nil), good...)
		row[i] = bad
		if w := checkAttack(t, root, row); len(w) != 1 {
			t.Errorf("column %d is %q: %q", i+1, bad, w)
		}
	}
	for _, tests := range []string{
		"`TestGarbage`", "`internal/kern`: `TestGarbage`; `internal/kern/tcp`: `TestGarbage`",
		"`internal/none`: `TestGarbage`",
	} {
		row := []string{"A01", "attack", "answer", "`internal/kern/kern.go`", tests}
		if w := checkAttack(t, root, row); len(w) != 1 {
			t.Errorf("tests %s: %q", tests, w)
		}
	}
	if w := checkAttack(t, root, good[:4]); len(w) != 1 {
		t.Errorf("a row too short: %q", w)
	}
}
