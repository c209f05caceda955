package tcp

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestEveryCounterIsCounted: a counter that nothing counts says 0, whatever happens.
func TestEveryCounterIsCounted(t *testing.T) {
	var source strings.Builder
	for _, dir := range []string{".", ".."} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(names) < 10 {
			t.Fatalf("%d files in %s, %v", len(names), dir, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(b)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Stats]()) {
		if !regexp.MustCompile(`\.` + f.Name + `\.(Inc|Add)\(`).MatchString(source.String()) {
			t.Errorf("nothing counts %s", f.Name)
		}
	}
}

// A reset counts with SYN and FIN, and not as an acknowledgment.
func TestResetIsCounted(t *testing.T) {
	each(t, func(t *T) {
		k := established(t)
		acks, ctrl := k.stats.Sndacks.Load(), k.stats.Sndctrl.Load()
		k.tp.Reset(k.now)
		k.line("> R. 1:1(0) ack 1 win 0")
		if a, c := k.stats.Sndacks.Load()-acks, k.stats.Sndctrl.Load()-ctrl; a != 0 || c != 1 {
			t.Errorf("a reset counts as %d acknowledgments and %d control segments; want 0 and 1", a, c)
		}
	})
}
