package fsck_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

// clientEnv is the URL of the file system that a process of the test binary is
// to work on.
const clientEnv = "FSCK_TEST_CLIENT"

func TestMain(m *testing.M) {
	pvfsdtest.RunAsServer()
	if url := os.Getenv(clientEnv); url != "" {
		fmt.Fprintln(os.Stderr, work(url))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// work is a client until it is killed. It says when it has begun.
func work(url string) error {
	ctx := context.Background()
	c, err := pvfs.Dial(ctx, url, pvfs.Options{})
	if err != nil {
		return err
	}
	var g errgroup.Group
	for id := range 3 {
		w, err := newWorker(ctx, c, os.Getpid()*10+id, rand.Uint64())
		if err != nil {
			return err
		}
		g.Go(func() error {
			for {
				if err := w.step(); err != nil {
					return err
				}
			}
		})
	}
	fmt.Println("working")
	return g.Wait()
}
