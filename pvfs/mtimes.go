package pvfs

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// SetMtimes gives files, of which each is named once, one modification time, and the
// servers' time of now as that of the change: two requests for up to 60 files of a
// server. It tells done of each, by its place in hs, and from several goroutines;
// ENOENT if there is no such object, which concerns no other one.
func (c *Client) SetMtimes(ctx context.Context, hs []Handle, mtime int64, done func(i int, err error)) {
	groups := make(map[*server][]int)
	for i, h := range hs {
		s, err := c.owner(h)
		if err != nil {
			done(i, err)
			continue
		}
		groups[s] = append(groups[s], i)
	}
	var g errgroup.Group
	for s, mine := range groups {
		g.Go(func() error {
			for idx := range slices.Chunk(mine, wire.MaxListAttr) {
				s.setMtimes(ctx, hs, idx, mtime, done)
			}
			return nil
		})
	}
	_ = g.Wait() // which has no errors of its own
}

// setMtimes is SetMtimes for the files with these places, all of s. Servers may tell
// that all went well although it did not, so it looks. Source: OrangeFS
// src/server/pjmp-machines.sm, pjmp_release_job.
func (s *server) setMtimes(ctx context.Context, hs []Handle, idx []int, mtime int64, done func(i int, err error)) {
	var ws []wire.Attr
	errs := make([]error, len(hs))
	if len(idx) > 2 && s.treeSetMtime(ctx, hs, idx, mtime) == nil {
		ws = make([]wire.Attr, len(hs))
		if s.listattr(ctx, hs, idx, wire.AttrCommon, ws, errs) != nil {
			ws = nil
		}
	}
	for _, i := range idx {
		switch {
		case ws != nil && errs[i] == nil && ws[i].Mtime == mtime:
			done(i, nil)
		case ws != nil && isNotFound(errs[i]):
			done(i, errs[i])
		default:
			done(i, s.client.SetAttr(ctx, hs[i], SetAttr{Mtime: &mtime, CtimeNow: true}))
		}
	}
}

func (s *server) treeSetMtime(ctx context.Context, hs []Handle, idx []int, mtime int64) error {
	c := s.client
	req := &wire.TreeSetAttrReq{
		FSID: c.fsid, Cred: c.cred(), Type: wire.TypeMetafile, Handles: make([]Handle, len(idx)),
		Attr: wire.Attr{Mtime: mtime, Type: wire.TypeMetafile, Mask: wire.AttrMtime | wire.AttrMtimeSet | wire.AttrCtime | wire.AttrType},
	}
	for j, i := range idx {
		req.Handles[j] = hs[i]
	}
	k := c.newCall(accountOf(ctx), req.Op(), kindPlain, new(wire.TreeStatusResp))
	if err := k.encodeFor(req, req.Handles); err != nil {
		k.free()
		return err
	}
	_, err := s.round(ctx, k)
	return err
}
