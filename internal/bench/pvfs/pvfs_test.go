package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The proxy counts what the client says that it sends.
func TestCountOurs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := pvfs.Dial(ctx, pvfsdtest.Start(t, 4, pvfsdtest.Options{}).URL(), pvfs.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	p, err := newProxy(client)
	require.NoError(t, err)
	defer func() { require.NoError(t, p.stop()) }()
	c, err := parse([]string{"-rounds", "1"})
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, c.countOurs(ctx, &site{client: client, dir: client.Root()}, p, &out))
	require.Equal(t, "create\tours\t2\t1 crdirent, 1 create\n"+
		"open and stat\tours\t2\t1 getattr, 1 lookup_path\n"+
		"write 4 KiB, new file\tours\t1\t1 small_io\n"+
		"write 1 MiB, new file\tours\t5\t1 unstuff, 4 io\n"+
		"write 1 MiB again\tours\t4\t4 io\n"+
		"read 4 KiB\tours\t1\t1 small_io\n"+
		"write strided\tours\t4\t4 io\n"+
		"remove\tours\t3\t1 getattr, 1 rmdirent, 1 tree_remove\n", out.String())
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-size", "0"}, {"-only", "("}, {"extra"}, {"-files", "-1"}, {"-ops", "x"}} {
		_, err := parse(args)
		require.Error(t, err, args)
	}
}
