package pvfs_test

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// cpuTime is what this process has used, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkExtents shows where one way of moving extents becomes dearer than
// another: one request for all, whatever ReadExtents makes of it; requests of
// as many as fit into SMALL_IO, at once; and one request for each, at once. The
// CPU time is that of client and embedded server together, and does not depend
// on what else the machine does. With PVFS2_TEST it asks real servers.
func BenchmarkExtents(b *testing.B) {
	url := os.Getenv("PVFS2_TEST")
	if url == "" {
		url = pvfsdtest.Start(b, 1, pvfsdtest.Options{}).URL()
	}
	c := dial(b, url, pvfs.Options{})
	name := fmt.Sprintf("bench-extents-%d", os.Getpid())
	a, err := c.Create(b.Context(), c.Root(), name, pvfs.CreateOptions{NumDFiles: 1, Dist: &wire.Dist{Name: wire.BasicDist}})
	require.NoError(b, err)
	defer func() { require.NoError(b, c.Remove(context.Background(), c.Root(), name)) }()
	f := c.File(a)
	_, err = f.WriteAt(b.Context(), [][]byte{make([]byte, 4<<20)}, 0)
	require.NoError(b, err)
	for _, x := range []struct {
		count     int
		len, dist int64
	}{
		{2, 100, 1000}, {8, 100, 1000}, {63, 100, 1000}, {64, 100, 1000}, {126, 100, 1000}, {252, 100, 1000}, {1000, 100, 1000},
		{8, 4096, 10000}, {2, 16000, 40000}, {4, 16000, 40000}, {16, 16000, 40000},
	} {
		var exts []extent.Extent
		for i := range int64(x.count) {
			exts = append(exts, extent.Extent{Off: i * x.dist, Len: x.len})
		}
		for _, way := range []struct {
			name string
			most int // extents of a request
		}{{"all", x.count}, {"small", int(min(63, max(1, 16000/x.len)))}, {"each", 1}} {
			for _, dir := range []string{"read", "write"} {
				b.Run(fmt.Sprintf("%dx%d/%s/%s", x.count, x.len, dir, way.name), func(b *testing.B) {
					if dir == "write" && way.name == "small" && x.len > 15000 {
						b.Skip("too long for a small request")
					}
					bufs := make([]byte, extent.Total(exts))
					c.ResetStats()
					b.SetBytes(int64(len(bufs)))
					n, cpu := 0, cpuTime(b)
					for b.Loop() {
						n++
						var g errgroup.Group
						for at := 0; at < len(exts); at += way.most {
							part := exts[at:min(at+way.most, len(exts))]
							buf := [][]byte{bufs[int64(at)*x.len:][:extent.Total(part)]}
							op := func() error { _, err := f.WriteExtents(b.Context(), part, buf); return err }
							if dir == "read" {
								op = func() error { _, err := f.ReadExtents(b.Context(), part, buf); return err }
							}
							if len(part) == len(exts) {
								require.NoError(b, op())
								continue
							}
							g.Go(op)
						}
						require.NoError(b, g.Wait())
					}
					b.ReportMetric(float64(cpuTime(b)-cpu)/float64(n), "cpu-ns/op")
					r := c.Stats().Requests
					b.ReportMetric(float64(r["io"]+r["small_io"])/float64(n), "requests/op")
				})
			}
		}
	}
}
