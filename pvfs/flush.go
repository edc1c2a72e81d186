package pvfs

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Flush makes what servers know of h durable, with all entries if it is a
// directory. The data of a file are not included; File.Flush is for them.
//
// With TroveSyncMeta, the usual setting, that was so when each change was
// answered, and nothing is sent. Without it each server concerned gets four
// requests: it must not be asked to flush anything but a file, or it never
// answers and keeps the object locked, so a file is made for the purpose, whose
// flush covers all its metadata. Source: OrangeFS src/server/flush.sm.
func (c *Client) Flush(ctx context.Context, h Handle) error {
	if c.fs.Hints.SyncMeta {
		return nil
	}
	owners := []Handle{h}
	if !c.dirs.isOther(h) {
		info, err := c.dirInfo(ctx, h)
		if err == nil {
			owners = append(owners, info.actives()...)
		} else if !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
	}
	var servers []*server
	for _, h := range owners {
		s, err := c.owner(h)
		if err != nil {
			return err
		}
		if !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	return c.detached(ctx, func(ctx context.Context) error {
		var fs []func(context.Context) error
		for _, s := range servers {
			fs = append(fs, s.flushMeta)
		}
		return together(ctx, fs...)
	})
}

// flushMeta makes all metadata of s durable.
func (s *server) flushMeta(ctx context.Context) error {
	c := s.client
	a, err := c.createOn(ctx, s, c.Root(), &dirInfo{}, CreateOptions{NumDFiles: 1})
	if err != nil {
		return err
	}
	defer c.undo(ctx, &a)
	_, err = s.ask(ctx, &wire.FlushReq{Handle: a.Handle, FSID: c.fsid}, nil)
	return err
}
