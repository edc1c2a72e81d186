package pvfs_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/pvfstest"
)

func TestConformance(t *testing.T) {
	for _, x := range []struct {
		name    string
		servers int
		gen     func(*fsconf.GenOptions)
	}{
		{"one server", 1, nil},
		{"four servers", 4, nil},
		{"three servers, no stuffing", 3, func(o *fsconf.GenOptions) { o.NoStuffing = true }},
		{"four servers, directories spread over them", 4, func(o *fsconf.GenOptions) {
			o.DistrDirServersInitial, o.DistrDirServersMax, o.DistrDirSplitSize = 2, 4, 8
		}},
		{"two servers, small flow buffers", 2, func(o *fsconf.GenOptions) { o.FlowBufferSize = 32768 }},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			pvfstest.Run(t, pvfsdtest.Start(t, x.servers, pvfsdtest.Options{Gen: x.gen}).URL())
		})
	}
}

// TestProtocol is about single requests, by any user.
func TestProtocol(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprint(servers, " servers"), func(t *testing.T) {
			t.Parallel()
			pvfstest.RunProtocol(t, pvfsdtest.Start(t, servers, pvfsdtest.Options{}).URL(), true)
		})
	}
	t.Run("no stuffing", func(t *testing.T) {
		t.Parallel()
		pvfstest.RunProtocol(t, pvfsdtest.Start(t, 2, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.NoStuffing = true }}).URL(), true)
	})
}

// TestExternal runs against the file system that PVFS2_TEST names.
func TestExternal(t *testing.T) {
	url := os.Getenv("PVFS2_TEST")
	if url == "" {
		t.Skip("PVFS2_TEST=tcp://HOST:PORT/FSNAME is not set")
	}
	c, err := pvfs.Dial(t.Context(), url, pvfs.Options{Timeout: 5 * time.Second})
	require.NoErrorf(t, err, "PVFS2_TEST=%s: no such file system is running", url)
	require.NoError(t, c.Close())
	t.Run("Client", func(t *testing.T) { pvfstest.Run(t, url) })
	pvfstest.RunProtocol(t, url, false)
}
