package systest

import (
	"fmt"
	"os"
	"testing"

	"github.com/zoidfs/zoidfs/internal/litmus"
)

// workerEnv is set in worker processes to the directory they work on.
const workerEnv = "ZOIDFS_SYSTEST_WORKER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerEnv); dir != "" {
		if err := serveWorker(dir, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(litmusEnv); dir != "" {
		if err := litmus.Serve(dir, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	if job := os.Getenv(shareEnv); job != "" {
		if err := runShare(job); err != nil {
			fmt.Fprintln(os.Stderr, "rank:", err)
			os.Exit(1)
		}
		return
	}
	// Built with the race detector, workers would stay for a second when they end.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	code := m.Run()
	if err := os.RemoveAll(binDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}
