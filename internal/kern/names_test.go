package kern

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// fold makes names comparable: no underscores, one case.
func fold(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// A bsdName is a line of testdata/bsdnames.txt.
type bsdName struct {
	c    string // the C name
	pkg  string // where it lives: "" kern or tcp
	fn   string // the Go name, folded; "" where the function is gone
	gone string // why
}

// readNames reads testdata/bsdnames.txt.
func readNames(t *testing.T) []bsdName {
	t.Helper()
	b, err := os.ReadFile("testdata/bsdnames.txt")
	if err != nil {
		t.Fatal(err)
	}
	var names []bsdName
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		n := bsdName{c: strings.Fields(line)[0]}
		if _, why, ok := strings.Cut(line, " - "); ok {
			n.gone = why
		} else if _, is, ok := strings.Cut(line, " = "); ok {
			n.pkg, n.fn, _ = strings.Cut(fold(is), ".")
		} else {
			n.fn = fold(n.c)
		}
		names = append(names, n)
	}
	return names
}

// bsdFold is a function's name under the folding rule, as a C name's fold would have it: in package
// tcp the package says "tcp_".
func bsdFold(pkg, fn string) string {
	if pkg == "tcp" {
		return "tcp" + fold(fn)
	}
	return fold(fn)
}

// is reports whether a function bears the name.
func (n *bsdName) is(pkg, fn string) bool {
	if n.pkg != "" {
		return n.pkg == pkg && n.fn == fold(fn)
	}
	return (pkg == "kern" || pkg == "tcp") && n.fn != "" && n.fn == bsdFold(pkg, fn)
}

// goFuncs calls f for each function below internal/kern.
func goFuncs(t *testing.T, f func(pkg, fn, doc string)) {
	t.Helper()
	parse := func(file string, d fs.DirEntry, err error) error {
		if err != nil || path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, d := range tree.Decls {
			if fd, ok := d.(*ast.FuncDecl); ok {
				f(tree.Name.Name, fd.Name.Name, fd.Doc.Text())
			}
		}
		return nil
	}
	if err := fs.WalkDir(os.DirFS("."), ".", parse); err != nil {
		t.Fatal(err)
	}
}

// Every function that has one of BSD's as its model has kept the name, and its comment says so.
func TestBSDNames(t *testing.T) {
	names := readNames(t)
	found, documented := make([]bool, len(names)), make([]bool, len(names))
	goFuncs(t, func(pkg, fn, doc string) {
		for i := range names {
			n := &names[i]
			if n.gone != "" {
				if bsdFold(pkg, fn) == fold(n.c) {
					t.Errorf("%s is said to be gone (%s), but there is %s.%s", n.c, n.gone, pkg, fn)
				}
				continue
			}
			if n.is(pkg, fn) {
				found[i] = true
				documented[i] = documented[i] || regexp.MustCompile(`\b`+n.c+`\b`).MatchString(doc)
			}
		}
	})
	for i, n := range names {
		switch {
		case n.gone != "":
		case !found[i]:
			t.Errorf("%s: there is no function of that name in %s", n.c, cmp.Or(n.pkg, "kern or tcp"))
		case !documented[i]:
			t.Errorf("%s: the comment of %s does not name it", n.c, n.fn)
		}
	}
}
