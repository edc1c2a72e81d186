package pvfsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Limits of monitoring requests.
const (
	maxIterate  = 4096
	perfKeys    = 23 // counters of a sample, as OrangeFS has them
	maxSamples  = 64
	perfColumns = perfKeys + 2 // and the sample's start and length in ms
)

func (s *Server) statFS(req *wire.StatFSReq) (*wire.StatFSResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, errno.Wrap("pvfsd.statfs", syscall.ENOENT, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.streams.dir, &st); err != nil {
		return nil, fmt.Errorf("statfs: %w", err)
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return nil, fmt.Errorf("sysinfo: %w", err)
	}
	resp := &wire.StatFSResp{
		FSID:      req.FSID,
		Available: int64(st.Bavail) * st.Bsize,
		Total:     int64(st.Blocks) * st.Bsize,
		RAMTotal:  uint64(si.Totalram) * uint64(si.Unit),
		RAMFree:   uint64(si.Freeram) * uint64(si.Unit),
		Uptime:    uint64(s.now() - s.started),
	}
	for i, l := range si.Loads {
		resp.Load[i] = uint64(l)
	}
	err := s.store.view(func(t *txn) error {
		resp.HandlesAvailable, resp.HandlesTotal = s.store.ids.left(t)
		return nil
	})
	return resp, err
}

func (s *Server) setParam(ctx context.Context, req *wire.SetParamReq) error {
	on := req.Value != 0
	switch req.Param {
	case wire.ParamFSIDCheck:
		if req.Value != uint64(uint32(s.fs.ID)) && req.Value != uint64(int64(s.fs.ID)) {
			return errno.New("pvfsd.fsid_check", syscall.ENOENT)
		}
		return nil
	case wire.ParamRootCheck:
		if req.Value != s.fs.RootHandle {
			return errno.New("pvfsd.root_check", syscall.ENOENT)
		}
		return s.store.view(func(t *txn) error {
			_, err := t.object(wire.Handle(req.Value))
			return err
		})
	case wire.ParamSyncMeta:
		s.store.q.syncMeta.Store(on)
	case wire.ParamSyncData:
		s.dataSync.Store(on)
	case wire.ParamTimeoutsOff:
		s.timeoutsOff.Store(on)
	case wire.ParamMode:
		return s.mode.set(ctx, req.Value)
	case wire.ParamGossipMask, wire.ParamPerfHistory, wire.ParamPerfInterval,
		wire.ParamEventEnable, wire.ParamEventDisable:
		// Nothing here depends on them.
	case wire.ParamDropCaches:
		return errno.New("pvfsd.drop_caches", syscall.EOPNOTSUPP)
	default:
		return errno.New("pvfsd.setparam", syscall.EINVAL)
	}
	return nil
}

// perfMon answers with samples of zeros but for what this server counts: bytes
// read and written and requests.
func (s *Server) perfMon(req *wire.PerfMonReq) (*wire.PerfMonResp, error) {
	n := min(req.Count, maxSamples)
	ms := uint64(s.clock().UnixMilli())
	resp := &wire.PerfMonResp{KeyCount: perfKeys, NextID: req.NextID + 1, EndMs: ms, NowMs: ms, Samples: n}
	resp.Values = make([]int64, int(n)*perfColumns)
	if n > 0 {
		snap := s.Snapshot()
		row := resp.Values[:perfColumns]
		row[0], row[1] = snap.BytesRead, snap.BytesWritten
		for _, c := range snap.Requests {
			row[7] += c
		}
		row[perfKeys] = s.started * 1000
		row[perfKeys+1] = int64(ms) - s.started*1000
	}
	return resp, nil
}

// iterateHandles lists handles in ascending order; the position is the last
// one listed. With flag 1 it lists those that pools hold in reserve.
func (s *Server) iterateHandles(req *wire.IterateHandlesReq) (*wire.IterateHandlesResp, error) {
	const reserved = 1
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	if req.Count < 0 {
		return nil, errno.New("pvfsd.iterate_handles", syscall.EINVAL)
	}
	limit := min(int(req.Count), maxIterate)
	resp := &wire.IterateHandlesResp{Position: wire.TokenEnd}
	if req.Position == wire.TokenEnd {
		return resp, nil
	}
	at := uint64(0)
	if req.Position != wire.TokenStart {
		at = req.Position
	}
	err := s.store.view(func(t *txn) error {
		if req.Flags&reserved != 0 {
			resp.Handles = t.reservedAfter(at)
		} else {
			resp.Handles = t.objectsAfter(at, limit+1)
		}
		return nil
	})
	if limit < len(resp.Handles) {
		resp.Handles = resp.Handles[:limit]
		resp.Position = max(at, 1)
		if limit > 0 {
			resp.Position = uint64(resp.Handles[limit-1])
		}
	}
	return resp, err
}

// objectsAfter is the first count handles of objects above at.
func (t *txn) objectsAfter(at uint64, count int) []wire.Handle {
	var out []wire.Handle
	c := t.cursor(bucketObjects)
	for k, _ := c.Seek(handleKey(wire.Handle(at + 1))); k != nil && len(out) < count; k, _ = c.Next() {
		if h, ok := handleOf(k); ok && uint64(h) > at {
			out = append(out, h)
		}
	}
	return out
}

// reservedAfter is the handles above at that pools hold, in ascending order,
// which is not that of the pools.
func (t *txn) reservedAfter(at uint64) []wire.Handle {
	var out []wire.Handle
	c := t.cursor(bucketPools)
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if h, ok := handleOf(k[bytes.IndexAny(k, "\x00\x01")+1:]); ok && uint64(h) > at {
			out = append(out, h)
		}
	}
	slices.Sort(out)
	return out
}

func (s *Server) dspaceInfo(req *wire.DspaceInfoListReq) (*wire.DspaceInfoListResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	resp := &wire.DspaceInfoListResp{Infos: make([]wire.DspaceInfo, len(req.Handles))}
	err := s.store.view(func(t *txn) error {
		for i, h := range req.Handles {
			info := &resp.Infos[i]
			info.Handle = h
			o, err := t.object(h)
			if err == nil {
				info.Type = o.typ
			}
			switch {
			case err != nil:
			case o.typ == wire.TypeDatafile:
				info.Size, err = s.streams.size(h)
			case o.typ == wire.TypeDirectory:
				info.Dirdata = o.other
			}
			info.Status = statusFor(err)
		}
		return nil
	})
	return resp, err
}

// removeObject deletes an object for repair tools, who need no rights.
func (s *Server) removeObject(ctx context.Context, req *wire.RemoveObjectReq) error {
	if err := s.checkFSID(req.FSID); err != nil {
		return err
	}
	return s.removeHandles(ctx, req.Handle)
}

func (s *Server) removeDirent(ctx context.Context, req *wire.RemoveDirentReq) error {
	if err := s.checkFSID(req.FSID); err != nil {
		return err
	}
	first := req.Dirdata
	err := s.store.view(func(t *txn) (err error) {
		first, err = t.dirdataOf(req.Dirdata)
		return err
	})
	if err != nil {
		return err
	}
	return s.inBucket(ctx, first, func(h wire.Handle) error {
		return s.store.commitFreeing(ctx, func(t *txn) error {
			_, err := t.unlink(h, req.Name, s.now())
			return err
		})
	}, func(p *peer, h wire.Handle) error {
		return p.call(ctx, s.ownHeader(h), &wire.RemoveDirentReq{Dirdata: h, FSID: req.FSID, Name: req.Name}, nil)
	})
}

// dirdataOf is the dirdata object of h, which is a directory or dirdata itself.
func (t *txn) dirdataOf(h wire.Handle) (wire.Handle, error) {
	o, err := t.object(h)
	if err != nil {
		return 0, err
	}
	switch o.typ {
	case wire.TypeDirectory:
		return o.other, nil
	case wire.TypeDirdata:
		return h, nil
	}
	return 0, errno.New("pvfsd.dirdata", syscall.ENOTDIR)
}

func (s *Server) dirdataHandle(req *wire.GetDirdataHandleReq) (*wire.GetDirdataHandleResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	return nil, errno.New("pvfsd.get_dirdata_handle", syscall.ENOENT)
}

// getDirent looks a name up for another server.
func (s *Server) getDirent(ctx context.Context, req *wire.GetDirentReq) (*wire.GetDirentResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	h, err := s.findEntry(ctx, req.Dirdata, req.Name)
	if err != nil && errno.Of(err) != syscall.ENOENT {
		return nil, err
	}
	return &wire.GetDirentResp{Handle: h, Status: statusFor(err)}, nil
}

// findEntry looks a name up in a bucket of any server, or where it has moved to.
func (s *Server) findEntry(ctx context.Context, dirdata wire.Handle, name string) (h wire.Handle, err error) {
	remote := func(p *peer, dirdata wire.Handle) error {
		var resp wire.GetDirentResp
		if err := p.call(ctx, s.ownHeader(dirdata), &wire.GetDirentReq{Dirdata: dirdata, FSID: wire.FSID(s.fs.ID), Name: name}, &resp); err != nil {
			return err
		}
		if h = resp.Handle; resp.Status != 0 {
			return statusError(resp.Status)
		}
		return nil
	}
	p, err := s.peerOf(dirdata)
	switch {
	case err != nil:
	case p != nil:
		err = remote(p, dirdata)
	default:
		err = s.inBucket(ctx, dirdata, func(dirdata wire.Handle) error {
			return s.store.view(func(t *txn) (err error) {
				h, err = t.lookupIn(dirdata, name)
				return err
			})
		}, remote)
	}
	return h, err
}

// lookupIn is lookup in a bucket that the name may have moved from. Until it is
// decided that an entry moves, it is here.
func (t *txn) lookupIn(dirdata wire.Handle, name string) (wire.Handle, error) {
	o, err := t.dirdata(dirdata)
	if err != nil {
		return 0, err
	}
	err = t.checkBucket(dirdata, o, name)
	if errors.Is(err, errMoving) && t.splitOf(dirdata).state == splitCopying {
		err = nil
	}
	if err != nil {
		return 0, err
	}
	h, _, err := t.lookup(dirdata, name)
	return h, err
}
