package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/counters"
	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/mounts"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"golang.org/x/sys/unix"
)

// The extended attributes of the root of a mount by which it is asked.
const (
	xattrStats      = "user.zoidfs.stats"
	xattrStatsReset = "user.zoidfs.stats.reset"
)

// maxXattr is the kernel's limit for the value of an extended attribute.
const maxXattr = 64 << 10

// MountStats returns what the mount at point has counted, and starts counting
// anew if reset is set.
func MountStats(ctx context.Context, point string, reset bool) (counters.Stats, error) {
	s := counters.New()
	value := make([]byte, maxXattr)
	var n int
	err := mounts.Do(ctx, func() (err error) {
		if n, err = unix.Getxattr(point, xattrStats, value); err != nil {
			return err
		}
		if !reset {
			return nil
		}
		if err := unix.Setxattr(point, xattrStatsReset, []byte("1"), 0); err != nil {
			return fmt.Errorf("root and who mounted it can reset what %s counts: %w", point, err)
		}
		return nil
	})
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return s, err
	case errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.EOPNOTSUPP):
		return s, fmt.Errorf("%s is not the root of a zoidfs mount", point)
	case err != nil:
		return s, &os.PathError{Op: "stats of", Path: point, Err: err}
	}
	if err := json.Unmarshal(value[:n], &s); err != nil {
		return s, fmt.Errorf("stats of %s: %w", point, err)
	}
	return s, nil
}

// IONStats returns what the I/O node at addr has counted: requests that came
// in as rpc, requests to the servers as pvfs.
func IONStats(ctx context.Context, addr string, reset bool) (counters.Stats, error) {
	r, err := rpc.Stats(ctx, addr, &ionpb.StatsReq{Reset_: reset}, rpc.Options{})
	if err != nil {
		return counters.New(), fmt.Errorf("stats of I/O node %s: %w", addr, err)
	}
	return ionStats(r), nil
}

func ionStats(r *ionpb.StatsResp) counters.Stats {
	s := counters.New()
	fill(s.RPC.Requests, r.RpcRequests)
	s.RPC.BytesSent, s.RPC.BytesReceived = r.RpcBytesSent, r.RpcBytesReceived
	fill(s.PVFS.Requests, r.PvfsRequests)
	s.PVFS.BytesRead, s.PVFS.BytesWritten = r.PvfsBytesRead, r.PvfsBytesWritten
	return s
}

func fill(dst, src map[string]uint64) {
	for k, v := range src {
		dst[k] = v
	}
}

// SystemStats returns the sum over a system: calls and requests as its mounts
// count them, requests to the servers as its I/O nodes count them. With an
// error it returns the sum over those that answered.
func SystemStats(ctx context.Context, f *cluster.File, reset bool) (counters.Stats, error) {
	parts := make([]counters.Stats, len(f.Nodes)+len(f.IONs))
	errs := make([]error, len(parts))
	var wait sync.WaitGroup
	for i, n := range f.Nodes {
		wait.Go(func() { parts[i], errs[i] = MountStats(ctx, n.Mount, reset) })
	}
	for i, ion := range f.IONs {
		k := len(f.Nodes) + i
		wait.Go(func() {
			parts[k], errs[k] = IONStats(ctx, ion.Addr, reset)
			parts[k].RPC = counters.New().RPC // the mounts have counted these
		})
	}
	wait.Wait()
	sum := counters.New()
	for _, p := range parts {
		sum = sum.Add(p)
	}
	return sum, errors.Join(errs...)
}

// IsAddr reports whether s can only mean HOST:PORT, not a path.
func IsAddr(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		return false
	}
	_, err = os.Lstat(s)
	return err != nil
}

// timed runs call and returns how long it took.
func timed(call func() error) (time.Duration, error) {
	start := time.Now()
	err := call()
	return time.Since(start), err
}

// Answers returns nil if an I/O node answers at addr.
func Answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	_, err := rpc.Status(ctx, addr, rpc.Options{})
	return err
}
