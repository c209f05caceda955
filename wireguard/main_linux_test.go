//go:build linux

package wireguard

import (
	"os"
	"testing"

	"bsdnet/internal/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }
