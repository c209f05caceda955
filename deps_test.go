package bsdnet_test

import (
	"bytes"
	"go/ast"
	"go/build/constraint"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"bsdnet"
	"bsdnet/internal/link"
)

// The tests in this file hold the house in order: who may import whom, what pure packages must not
// touch, and how files are named, formatted and documented.

// rules say what of ours the files of a folder may import, tests aside. Only what is named here may
// be imported by what is named here. The links know neither the stack nor each other, except
// netem, which wraps any bsdnet.Link, and WireGuard, which is attached with its routes, and reaches
// the stack by a pipe.
var rules = map[string][]string{
	".":               {"bsdnet/internal/kern", "bsdnet/internal/resolv"},
	"internal/resolv": {},
	"internal/kern": {
		"bsdnet/internal/kern/tcp", "bsdnet/internal/kern/wire", "bsdnet/internal/kern/mbuf", "bsdnet/internal/link",
	},
	"internal/kern/tcp":  {"bsdnet/internal/kern/wire", "bsdnet/internal/kern/mbuf"},
	"internal/kern/wire": {},
	// A notation for tests, which the stack itself does not import.
	"internal/kern/wire/trace": {"bsdnet/internal/kern/wire"},
	"internal/kern/mbuf":       {},
	"internal/link":            {"bsdnet/internal/kern/wire"},
	"internal/link/ends":       {"bsdnet/internal/kern/wire", "bsdnet/internal/link"},
	"netem":                    {"bsdnet", "bsdnet/internal/kern/wire", "bsdnet/internal/link"},
	"tun":                      {"bsdnet/internal/kern/wire", "bsdnet/internal/link"},
	"udptunnel":                {"bsdnet/internal/kern/wire", "bsdnet/internal/link"},
	"wireguard":                {"bsdnet", "bsdnet/internal/kern/wire", "bsdnet/internal/link", "bsdnet/netem"},
	"simnet":                   {"bsdnet", "bsdnet/internal/kern/wire", "bsdnet/netem"},
	"linktest":                 {"bsdnet", "bsdnet/internal/link", "bsdnet/internal/link/ends"},
	"examples/http":            {"bsdnet", "bsdnet/qlog", "bsdnet/tun", "bsdnet/udptunnel", "bsdnet/wireguard"},
	"piontransport":            {"bsdnet"},
	"qlog":                     {"bsdnet"},
	"cmd/tcpplot":              {"bsdnet", "bsdnet/qlog"},
	"internal/nstest":          {},
	"internal/interop":         {},
	// Packages for tests alone: TestImportsOfTestutil. Those that need no stack import none, so
	// that tests of any package can import them.
	"internal/contract":           {},
	"internal/testutil":           {},
	"internal/testutil/stacktest": {"bsdnet"},
	"internal/testutil/dnstest":   {},
}

// pure are the packages that must not know of the world; what they may not import, each with what
// lies below it.
var pure = map[string][]string{
	// Counters are atomic, so that they can be read without a lock: sync/atomic is no lock.
	"internal/kern/tcp":  {"net", "os", "sync", "context", "io", "runtime"},
	"internal/kern/wire": {"net", "os", "sync", "context", "io", "runtime", "time"},
	// A pool is the one thing that mbuf shares.
	"internal/kern/mbuf": {"net", "os", "context", "io", "runtime", "time"},
}

var pureExceptions = []string{"net/netip", "sync/atomic"}

// clockReaders are the functions of package time that read a clock or start a timer; to a pure
// package time is an argument.
var clockReaders = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}

// A source is a parsed file of the module.
type source struct {
	name, dir string // with slashes, from the module's root
	test      bool
	text      []byte
	fset      *token.FileSet
	*ast.File
}

// sources are all Go files of the module, without those of nested modules.
var sources = sync.OnceValues(func() (list []*source, err error) {
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == "." {
				return nil
			}
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		s := &source{name: filepath.ToSlash(name), test: strings.HasSuffix(name, "_test.go"), fset: token.NewFileSet()}
		s.dir = path.Dir(s.name)
		if s.text, err = os.ReadFile(name); err != nil {
			return err
		}
		s.File, err = parser.ParseFile(s.fset, name, s.text, parser.ParseComments|parser.SkipObjectResolution)
		list = append(list, s)
		return err
	})
	return list, err
})

func eachSource(t *testing.T, f func(s *source)) {
	t.Helper()
	list, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 50 {
		t.Fatalf("only %d Go files found", len(list))
	}
	for _, s := range list {
		f(s)
	}
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	eachSource(t, func(s *source) {
		allowed, ruled := rules[s.dir]
		if s.test || !ruled {
			return
		}
		seen[s.dir] = true
		for _, i := range s.Imports {
			p, _ := strconv.Unquote(i.Path.Value)
			if (p == "bsdnet" || strings.HasPrefix(p, "bsdnet/")) && !slices.Contains(allowed, p) {
				t.Errorf("%s imports %s", s.fset.Position(i.Pos()), p)
			}
			for _, bad := range pure[s.dir] {
				if (p == bad || strings.HasPrefix(p, bad+"/")) && !slices.Contains(pureExceptions, p) {
					t.Errorf("%s imports %s: the package is pure", s.fset.Position(i.Pos()), p)
				}
			}
		}
	})
	for dir := range rules {
		if !seen[dir] {
			t.Errorf("no files in %s", dir)
		}
	}
}

// TestImportsOfTestutil: only tests import what is made for tests: internal/testutil and what lies
// below it.
func TestImportsOfTestutil(t *testing.T) {
	const dir = "internal/testutil"
	within := func(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
	tests := 0
	eachSource(t, func(s *source) {
		for _, i := range s.Imports {
			switch p, _ := strconv.Unquote(i.Path.Value); {
			case !within(p, "bsdnet/"+dir):
			case s.test:
				tests++
			case !within(s.dir, dir):
				t.Errorf("%s imports %s, which is for tests", s.fset.Position(i.Pos()), p)
			}
		}
	})
	if tests == 0 {
		t.Errorf("no test imports a package in %s", dir)
	}
}

func TestPurePackagesReadNoClock(t *testing.T) {
	eachSource(t, func(s *source) {
		if _, ok := pure[s.dir]; !ok || s.test {
			return
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clockReaders, n.Sel.Name) {
					t.Errorf("%s: time.%s", s.fset.Position(n.Pos()), n.Sel.Name)
				}
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine", s.fset.Position(n.Pos()))
			}
			return true
		})
	})
}

// The words that the go command takes for a build constraint at the end of a file name.
var (
	knownOS = strings.Fields("aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd " +
		"plan9 solaris wasip1 windows zos")
	knownArch = strings.Fields("386 amd64 amd64p32 arm arm64 arm64be armbe loong64 mips mips64 mips64le " +
		"mips64p32 mips64p32le mipsle ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc " +
		"sparc64 wasm")
)

// TestFileNames: a file whose name makes it build on some systems only, by an end such as _windows,
// says so in a //go:build line too.
func TestFileNames(t *testing.T) {
	eachSource(t, func(s *source) {
		words := strings.Split(strings.TrimSuffix(strings.TrimSuffix(path.Base(s.name), ".go"), "_test"), "_")
		last := words[len(words)-1]
		if len(words) < 2 || !slices.Contains(knownOS, last) && !slices.Contains(knownArch, last) {
			return
		}
		for _, g := range s.Comments {
			for _, c := range g.List {
				if g.Pos() < s.Package && constraint.IsGoBuild(c.Text) && strings.Contains(c.Text, last) {
					return
				}
			}
		}
		t.Errorf("%s builds with %s only, and has no //go:build line that says so", s.name, last)
	})
}

func TestGofmt(t *testing.T) {
	eachSource(t, func(s *source) {
		want, err := format.Source(s.text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.text, want) {
			t.Errorf("%s is not as gofmt would have it", s.name)
		}
	})
}

// TestDocComments: every exported identifier has a doc comment: its own or its group's, or one at
// the end of its line.
func TestDocComments(t *testing.T) {
	packages := map[string]bool{}
	eachSource(t, func(s *source) {
		if s.test {
			return
		}
		packages[s.dir] = packages[s.dir] || s.Doc != nil
		for _, d := range s.Decls {
			for _, id := range undocumented(d) {
				t.Errorf("%s: %s has no doc comment", s.fset.Position(id.Pos()), id.Name)
			}
		}
	})
	for dir, ok := range packages {
		if !ok {
			t.Errorf("the package in %s has no doc comment", dir)
		}
	}
}

// undocumented returns the exported names that a declaration leaves without a word.
func undocumented(d ast.Decl) (ids []*ast.Ident) {
	if f, ok := d.(*ast.FuncDecl); ok {
		if f.Doc == nil && f.Name.IsExported() && (f.Recv == nil || exportedReceiver(f.Recv.List[0].Type)) {
			ids = append(ids, f.Name)
		}
		return ids
	}
	g := d.(*ast.GenDecl)
	for _, spec := range g.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && g.Doc == nil && spec.Doc == nil && spec.Comment == nil {
				ids = append(ids, spec.Name)
			}
		case *ast.ValueSpec:
			for _, n := range spec.Names {
				if n.IsExported() && g.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					ids = append(ids, n)
				}
			}
		}
	}
	return ids
}

func exportedReceiver(t ast.Expr) bool {
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// TestDependencies: a program with a loopback alone needs one package from outside the standard
// library, on any system: it asks what the processor can do.
func TestDependencies(t *testing.T) {
	const format = `{{if not .Standard}}{{.ImportPath}}{{end}}`
	for _, system := range []string{"linux/amd64", "windows/amd64", "darwin/arm64", "js/wasm"} {
		goos, goarch, _ := strings.Cut(system, "/")
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, ".")
		cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range strings.Fields(string(out)) {
			if p != "bsdnet" && !strings.HasPrefix(p, "bsdnet/") && p != "golang.org/x/sys/cpu" {
				t.Errorf("on %s package bsdnet needs %s", system, p)
			}
		}
	}
}

// TestProgramWithoutHTTP asserts that a program that does not use net/http does not contain it,
// although package bsdnet imports it: it is a third of the program.
func TestProgramWithoutHTTP(t *testing.T) {
	program := filepath.Join(t.TempDir(), "loopback")
	run := func(name string, args ...string) string {
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	run("go", "build", "-o", program, "./testdata/loopback")
	symbols := run("go", "tool", "nm", program)
	if !strings.Contains(symbols, "bsdnet.(*Stack).Close") {
		t.Error("the program has no Stack.Close")
	}
	for line := range strings.Lines(symbols) {
		if strings.Contains(line, "net/http.(*") {
			t.Fatalf("the program has a method of net/http: %s", line)
		}
	}
}

// The links are written against copies of the interfaces, which so are the same.
var (
	_ bsdnet.Link        = link.Link(nil)
	_ link.Link          = bsdnet.Link(nil)
	_ bsdnet.OffloadLink = link.OffloadLink(nil)
	_ link.OffloadLink   = bsdnet.OffloadLink(nil)

	_ bsdnet.UDPOffloadLink = link.UDPOffloadLink(nil)
	_ link.UDPOffloadLink   = bsdnet.UDPOffloadLink(nil)
	_ bsdnet.QueueLink      = link.QueueLink(nil)
	_ link.QueueLink        = bsdnet.QueueLink(nil)

	_ bsdnet.DiagnosingLink = link.DiagnosingLink(nil)
	_ link.DiagnosingLink   = bsdnet.DiagnosingLink(nil)
)

// Comments wrap at 100 columns and code, in comments too, at 120, with a tab for 4.
const (
	commentColumns = 100
	codeColumns    = 120
)

func TestLineLengths(t *testing.T) {
	eachSource(t, func(s *source) {
		for i, line := range strings.Split(string(s.text), "\n") {
			most := codeColumns
			text, comment := strings.CutPrefix(strings.TrimSpace(line), "//")
			if comment && !strings.HasPrefix(text, "\t") && !strings.Contains(text, "://") {
				most = commentColumns
			}
			if n := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")); n > most {
				t.Errorf("%s:%d has %d columns, more than %d", s.name, i+1, n, most)
			}
		}
	})
}

// TestCounters: what the stack's statistics show is counted somewhere, and not always 0.
func TestCounters(t *testing.T) {
	counters := map[string]token.Position{} // by name
	counted := map[string]bool{}
	eachSource(t, func(s *source) {
		if s.test {
			return
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				if typ, ok := n.Type.(*ast.Ident); ok && typ.Name == "Counter" {
					for _, id := range n.Names {
						counters[id.Name] = s.fset.Position(id.Pos())
					}
				}
			case *ast.SelectorExpr: // X.Counter.Inc
				if c, ok := n.X.(*ast.SelectorExpr); ok && (n.Sel.Name == "Inc" || n.Sel.Name == "Add") {
					counted[c.Sel.Name] = true
				}
			case *ast.UnaryExpr: // &X.Counter, for a function that counts
				if c, ok := n.X.(*ast.SelectorExpr); ok && n.Op == token.AND {
					counted[c.Sel.Name] = true
				}
			}
			return true
		})
	})
	if len(counters) < 50 {
		t.Fatalf("only %d counters found", len(counters))
	}
	for name, pos := range counters {
		if !counted[name] {
			t.Errorf("%s: nobody counts %s", pos, name)
		}
	}
}

// namedFile is the name of a file, perhaps with its folder, in a sentence.
var namedFile = regexp.MustCompile(`(?:^|[\s("'` + "`" + `])((?:[\w.-]+/)*[\w-]+\.(?:go|md|golden|svg))\b`)

// TestFilesNamed: a file that a comment or a document names is there.
func TestFilesNamed(t *testing.T) {
	var files []string
	docs := map[string]string{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == ".git" {
				return fs.SkipDir
			}
			return err
		}
		files = append(files, name)
		if strings.HasSuffix(name, ".md") {
			text, err := os.ReadFile(name)
			docs[name] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(pos, text string) {
		for _, m := range namedFile.FindAllStringSubmatch(text, -1) {
			name := strings.TrimLeft(m[1], "./") // ./ and ../
			if !slices.ContainsFunc(files, func(f string) bool { return f == name || strings.HasSuffix(f, "/"+name) }) {
				t.Errorf("%s names %s, which is not there", pos, name)
			}
		}
	}
	for name, text := range docs {
		check(name, text)
	}
	eachSource(t, func(s *source) {
		for _, g := range s.Comments {
			check(s.fset.Position(g.Pos()).String(), g.Text())
		}
	})
}

// public are the packages that a user of the module can import.
func public(dir string) bool {
	return !strings.Contains("/"+dir, "/internal") && !strings.HasPrefix(dir, "examples") &&
		!strings.HasPrefix(dir, "cmd")
}

// TestPublicTypes: go doc shows the methods of a public type with the type, which it does not do
// when they are promoted from a field, or when the type is another name of one elsewhere.
func TestPublicTypes(t *testing.T) {
	eachSource(t, func(s *source) {
		if s.test || !public(s.dir) {
			return
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() {
				return true
			}
			if spec.Assign != 0 {
				t.Errorf("%s: %s is an alias", s.fset.Position(spec.Pos()), spec.Name)
			}
			if st, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					if len(f.Names) == 0 {
						t.Errorf("%s: %s embeds a type", s.fset.Position(f.Pos()), spec.Name)
					}
				}
			}
			return true
		})
	})
}

// internalPrefix is that of an error which says the name of a package that its reader cannot know.
var internalPrefix = regexp.MustCompile("^[\"`](kern|link|mbuf|wire): ")

func TestErrorsNamePublicPackages(t *testing.T) {
	eachSource(t, func(s *source) {
		if s.test || s.dir == "internal/kern/wire" { // whose errors only count
			return
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || f.Sel.Name != "New" && f.Sel.Name != "Errorf" {
				return true
			}
			if l, ok := call.Args[0].(*ast.BasicLit); ok && internalPrefix.MatchString(l.Value) {
				t.Errorf("%s: %s", s.fset.Position(l.Pos()), l.Value)
			}
			return true
		})
	})
}
