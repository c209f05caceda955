package main

import (
	"strings"
	"testing"
)

const want = "Served by quic-go over bsdnet, with HTTP/3.0\na file of 1048576 bytes, whose hash is the server's: true\n"

func TestRun(t *testing.T) {
	var out strings.Builder
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
	}
}
