package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	var out strings.Builder
	if err := run(&out, 100<<20); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || strings.Count(out.String(), " 104857600 bytes, SHA-256 ") != 2 {
		t.Errorf("printed:\n%s", &out)
	}
}
