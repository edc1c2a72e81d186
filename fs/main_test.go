package fs

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs as a worker or as a mount when a test started it as one.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		os.Exit(workerMain(os.Stdin, os.Stdout))
	}
	if args := os.Getenv(mountEnv); args != "" {
		if err := mountMain(args, os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString("mount process: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// needFUSE skips the test where nothing can be mounted, except in CI.
func needFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("mount tests need /dev/fuse: %v", err)
	}
	t.Skipf("mount tests need /dev/fuse: %v", err)
}
