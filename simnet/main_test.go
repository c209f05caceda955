package simnet_test

import (
	"os"
	"testing"

	"bsdnet/internal/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Run(m)) }
