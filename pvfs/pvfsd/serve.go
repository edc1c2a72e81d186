package pvfsd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// serve carries out a request that is neither IO nor SMALL_IO. The response is
// nil for operations whose response is empty.
func (s *Server) serve(ctx context.Context, hdr *wire.RequestHeader, body wire.Request) (wire.Response, error) {
	switch req := body.(type) {
	case *wire.GetAttrReq:
		return answer(s.getAttr(req))
	case *wire.ListAttrReq:
		return answer(s.listAttr(req))
	case *wire.SetAttrReq:
		return nil, s.setAttr(ctx, hdr, req)
	case *wire.LookupPathReq:
		return answer(s.lookupPath(ctx, hdr, req))
	case *wire.ReadDirReq:
		return answer(s.readDir(ctx, hdr, req))
	case *wire.CrDirentReq:
		return nil, s.crDirent(ctx, hdr, req)
	case *wire.RmDirentReq:
		return answer(s.rmDirent(ctx, hdr, req))
	case *wire.ChDirentReq:
		return answer(s.chDirent(ctx, hdr, req))
	case *wire.CreateReq:
		return answer(s.create(ctx, hdr, req))
	case *wire.MkdirReq:
		return answer(s.mkdir(ctx, hdr, req))
	case *wire.UnstuffReq:
		return answer(s.unstuff(ctx, hdr, req))
	case *wire.RemoveReq:
		return nil, s.remove(ctx, hdr, req)
	case *wire.BatchCreateReq:
		return answer(s.batchCreate(ctx, hdr, req))
	case *wire.BatchRemoveReq:
		return nil, s.batchRemove(ctx, hdr, req)
	case *wire.TruncateReq:
		return nil, s.truncate(hdr, req)
	case *wire.FlushReq:
		return nil, s.flush(ctx, req)
	}
	return s.serveMore(ctx, hdr, body)
}

// serveMore is the other half of serve: extended attributes, TREE_* and MGMT_*.
func (s *Server) serveMore(ctx context.Context, hdr *wire.RequestHeader, body wire.Request) (wire.Response, error) {
	switch req := body.(type) {
	case *wire.GetEattrReq:
		return answer(s.getEattr(req))
	case *wire.SetEattrReq:
		return nil, s.setEattr(ctx, hdr, req)
	case *wire.DelEattrReq:
		return nil, s.delEattr(ctx, hdr, req)
	case *wire.ListEattrReq:
		return answer(s.listEattr(req))
	case *wire.TreeRemoveReq:
		return answer(s.treeRemove(ctx, hdr, req))
	case *wire.TreeGetFileSizeReq:
		return answer(s.treeSize(ctx, hdr, req))
	case *wire.TreeGetAttrReq:
		return answer(s.treeGetAttr(ctx, hdr, req))
	case *wire.TreeSetAttrReq:
		return answer(s.treeSetAttr(ctx, hdr, req))
	case *wire.GetConfigReq:
		return &wire.GetConfigResp{Config: s.opt.Config.Text}, nil
	case *wire.NoopReq:
		return nil, nil
	case *wire.StatFSReq:
		return answer(s.statFS(req))
	case *wire.SetParamReq:
		return nil, s.setParam(ctx, req)
	case *wire.PerfMonReq:
		return answer(s.perfMon(req))
	case *wire.EventMonReq:
		return &wire.EventMonResp{}, nil
	case *wire.IterateHandlesReq:
		return answer(s.iterateHandles(req))
	case *wire.DspaceInfoListReq:
		return answer(s.dspaceInfo(req))
	case *wire.RemoveObjectReq:
		return nil, s.removeObject(ctx, req)
	case *wire.RemoveDirentReq:
		return nil, s.removeDirent(ctx, req)
	case *wire.GetDirdataHandleReq:
		return answer(s.dirdataHandle(req))
	case *wire.GetUIDReq:
		return s.getUID(req), nil
	case *wire.AtomicEattrReq:
		return answer(s.atomicEattr(ctx, hdr, req))
	case *wire.GetDirentReq:
		return answer(s.getDirent(ctx, req))
	case *wire.SplitDirentReq:
		return nil, s.splitDirent(ctx, hdr, req)
	}
	return nil, errno.New("pvfsd."+hdr.Op.String(), syscall.ENOSYS)
}

// answer turns a handler's result into what serve returns: no response on failure.
func answer[T any, P interface {
	*T
	wire.Response
}](resp P, err error) (wire.Response, error) {
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// checkFSID refuses requests for another file system.
func (s *Server) checkFSID(id wire.FSID) error {
	if id != wire.FSID(s.fs.ID) {
		return errno.Wrap("pvfsd.fsid", syscall.EINVAL, errors.New("another file system"))
	}
	return nil
}

func (s *Server) getAttr(req *wire.GetAttrReq) (*wire.GetAttrResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	var resp wire.GetAttrResp
	err := s.store.view(func(t *txn) (err error) {
		resp.Attr, err = s.attributes(t, req.Handle, req.Mask, &req.Cred)
		return err
	})
	return &resp, err
}

func (s *Server) listAttr(req *wire.ListAttrReq) (*wire.ListAttrResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	resp := &wire.ListAttrResp{
		Statuses: make([]wire.Status, len(req.Handles)),
		Attrs:    make([]wire.Attr, len(req.Handles)),
	}
	err := s.store.view(func(t *txn) error {
		for i, h := range req.Handles {
			a, err := s.attributes(t, h, req.Mask, nil)
			resp.Attrs[i], resp.Statuses[i] = a, statusFor(err)
		}
		return nil
	})
	if err == nil && len(resp.Statuses) > 0 && !slices.Contains(resp.Statuses, 0) {
		err = statusError(resp.Statuses[0]) // as real servers: nothing but a status
	}
	return resp, err
}

func (s *Server) setAttr(ctx context.Context, hdr *wire.RequestHeader, req *wire.SetAttrReq) error {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return err
	}
	if req.Attr.Mask&wire.AttrDistDir != 0 {
		return s.setBuckets(ctx, hdr, req)
	}
	// A change to what is there already, such as the ctime of a new file that
	// is linked within its first second, needs no transaction.
	same := false
	change := func(t *txn) error {
		o, err := t.object(req.Handle)
		if err != nil {
			return err
		}
		if err := s.allowSetAttr(hdr, req.Handle, o, &req.Attr, &req.Cred); err != nil {
			return err
		}
		switch {
		case o.typ == wire.TypeDirdata && o.buckets != nil:
			setTime(&o.mtime, req.Attr.Mtime, req.Attr.Mask&wire.AttrMtime != 0, req.Attr.Mask&wire.AttrMtimeSet != 0, s.now())
			return t.putObject(req.Handle, o)
		case o.typ == wire.TypeDatafile, o.typ == wire.TypeDirdata:
			same = true // their attributes are not their own
			return nil
		}
		changed, err := t.setAttr(req.Handle, o, &req.Attr, s.now())
		same = err == nil && !changed
		return err
	}
	const ctimeOnly = wire.AttrCtime | wire.AttrType
	if req.Attr.Mask&^ctimeOnly == 0 {
		err := s.store.view(func(t *txn) error {
			o, err := t.object(req.Handle)
			if err == nil && o.ctime == s.now() {
				same = true
				return s.allowSetAttr(hdr, req.Handle, o, &req.Attr, &req.Cred)
			}
			return err
		})
		if err != nil || same {
			return err
		}
	}
	if err := s.store.commit(ctx, change); err != nil {
		return err
	}
	const explicit = wire.AttrMtime | wire.AttrMtimeSet
	if req.Attr.Mask&explicit == explicit {
		return s.setBucketTimes(ctx, req.Handle, req.Attr.Mtime)
	}
	return nil
}

func (s *Server) truncate(hdr *wire.RequestHeader, req *wire.TruncateReq) error {
	if err := s.checkFSID(req.FSID); err != nil {
		return err
	}
	if err := s.checkCap(hdr, wire.MayWrite, req.Handle); err != nil {
		return err
	}
	if req.Size < 0 {
		return errno.New("pvfsd.truncate", syscall.EINVAL)
	}
	if err := s.store.view(func(t *txn) error { return t.isDatafile(req.Handle) }); err != nil {
		return err
	}
	return s.streams.truncate(req.Handle, req.Size)
}

// flush makes a file's bytestream durable, or the metadata of all objects.
func (s *Server) flush(ctx context.Context, req *wire.FlushReq) error {
	if err := s.checkFSID(req.FSID); err != nil {
		return err
	}
	var typ wire.ObjType
	err := s.store.view(func(t *txn) error {
		o, err := t.object(req.Handle)
		if err == nil {
			typ = o.typ
		}
		return err
	})
	if err != nil {
		return err
	}
	switch typ {
	case wire.TypeMetafile:
	case wire.TypeDatafile:
		if err := s.streams.flush(req.Handle); err != nil {
			return err
		}
	default: // real servers never answer this and keep the object locked
		return errno.Wrap("pvfsd.flush", syscall.EINVAL, fmt.Errorf("flush of a %v", typ))
	}
	return s.store.syncAll(ctx)
}
