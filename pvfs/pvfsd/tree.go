package pvfsd

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// part is the handles of a TREE_* request that one server owns.
type part struct {
	peer  *peer // nil: this server
	hs    []wire.Handle
	index []int // hs[i] is handle index[i] of the request
}

// split sorts the handles of a TREE_* request by their owner. A handle that no
// server owns gets its error through fail.
func (s *Server) split(hs []wire.Handle, fail func(i int, err error)) []*part {
	var parts []*part
	byAlias := make(map[string]*part)
	for i, h := range hs {
		alias, ok := s.fs.Owner(uint64(h))
		if !ok {
			fail(i, errno.Wrap("pvfsd.tree", syscall.EINVAL, errors.New("handle of no server")))
			continue
		}
		p := byAlias[alias]
		if p == nil {
			p = &part{}
			if alias != s.opt.Alias {
				p.peer = s.peers[alias]
			}
			byAlias[alias] = p
			parts = append(parts, p)
		}
		p.hs = append(p.hs, h)
		p.index = append(p.index, i)
	}
	return parts
}

// fanOut carries out the parts of a TREE_* request side by side: its own with
// local, those of others with remote. A part that fails as a whole fails for
// each of its handles.
func (s *Server) fanOut(hs []wire.Handle, fail func(i int, err error), local, remote func(p *part) error) {
	var g errgroup.Group
	for _, p := range s.split(hs, fail) {
		do := local
		if p.peer != nil {
			do = remote
		}
		g.Go(func() error {
			if err := do(p); err != nil {
				for _, i := range p.index {
					fail(i, err)
				}
			}
			return nil
		})
	}
	g.Wait()
}

// forwarded is hdr as it goes on to another server.
func (s *Server) forwarded(hdr *wire.RequestHeader) *wire.RequestHeader {
	fwd := &wire.RequestHeader{Cap: hdr.Cap, Hints: slices.Clone(hdr.Hints)}
	if len(fwd.Hints) < wire.MaxHints {
		fwd.Hints = append(fwd.Hints, wire.Hint{Type: wire.HintServerID, Value: 1})
	}
	return fwd
}

var errBadReply = errno.Wrap("pvfsd.tree", syscall.EPROTO, errors.New("reply with another number of results"))

func (s *Server) treeRemove(ctx context.Context, hdr *wire.RequestHeader, req *wire.TreeRemoveReq) (*wire.TreeStatusResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	if err := s.checkHinted(hdr, wire.MayRemove); err != nil {
		return nil, err
	}
	resp := &wire.TreeStatusResp{Index: req.Index, Statuses: make([]wire.Status, len(req.Handles))}
	fail := func(i int, err error) { resp.Statuses[i] = statusFor(err) }
	s.fanOut(req.Handles, fail, func(p *part) error {
		if err := s.removeHandles(ctx, p.hs...); err == nil {
			return nil
		}
		for k, h := range p.hs { // one of them failed: which?
			if err := s.removeHandles(ctx, h); err != nil {
				fail(p.index[k], err)
			}
		}
		return nil
	}, func(p *part) error {
		sub := &wire.TreeRemoveReq{FSID: req.FSID, Cred: req.Cred, Handles: p.hs}
		var got wire.TreeStatusResp
		if err := p.peer.call(ctx, s.forwarded(hdr), sub, &got); err != nil {
			return err
		}
		return spread(p, resp.Statuses, got.Statuses)
	})
	return resp, nil
}

// spread puts the results of a part in their places.
func spread[T any](p *part, to, from []T) error {
	if len(from) != len(p.index) {
		return errBadReply
	}
	for k, i := range p.index {
		to[i] = from[k]
	}
	return nil
}

func (s *Server) treeSize(ctx context.Context, hdr *wire.RequestHeader, req *wire.TreeGetFileSizeReq) (*wire.TreeGetFileSizeResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	resp := &wire.TreeGetFileSizeResp{
		Index: req.Index, Sizes: make([]int64, len(req.Handles)), Statuses: make([]wire.Status, len(req.Handles)),
	}
	fail := func(i int, err error) { resp.Statuses[i] = statusFor(err) }
	s.fanOut(req.Handles, fail, func(p *part) error {
		return s.store.view(func(t *txn) error {
			for k, h := range p.hs {
				err := t.isDatafile(h)
				if err == nil {
					resp.Sizes[p.index[k]], err = s.streams.size(h)
				}
				if err != nil {
					fail(p.index[k], err)
				}
			}
			return nil
		})
	}, func(p *part) error {
		sub := &wire.TreeGetFileSizeReq{FSID: req.FSID, Retry: req.Retry, Cred: req.Cred, Handles: p.hs}
		var got wire.TreeGetFileSizeResp
		if err := p.peer.call(ctx, s.forwarded(hdr), sub, &got); err != nil {
			return err
		}
		return errors.Join(spread(p, resp.Sizes, got.Sizes), spread(p, resp.Statuses, got.Statuses))
	})
	return resp, nil
}

func (s *Server) treeGetAttr(ctx context.Context, hdr *wire.RequestHeader, req *wire.TreeGetAttrReq) (*wire.TreeGetAttrResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	resp := &wire.TreeGetAttrResp{
		Index: req.Index, Attrs: make([]wire.Attr, len(req.Handles)), Statuses: make([]wire.Status, len(req.Handles)),
	}
	fail := func(i int, err error) { resp.Statuses[i] = statusFor(err) }
	s.fanOut(req.Handles, fail, func(p *part) error {
		return s.store.view(func(t *txn) error {
			for k, h := range p.hs {
				a, err := s.attributes(t, h, req.Mask, &req.Cred)
				if err != nil {
					fail(p.index[k], err)
					continue
				}
				resp.Attrs[p.index[k]] = a
			}
			return nil
		})
	}, func(p *part) error {
		sub := &wire.TreeGetAttrReq{FSID: req.FSID, Retry: req.Retry, Cred: req.Cred, Mask: req.Mask, Handles: p.hs}
		var got wire.TreeGetAttrResp
		if err := p.peer.call(ctx, s.forwarded(hdr), sub, &got); err != nil {
			return err
		}
		return errors.Join(spread(p, resp.Attrs, got.Attrs), spread(p, resp.Statuses, got.Statuses))
	})
	return resp, nil
}

// treeSetAttr sets the attributes of several objects, each as a SETATTR would.
func (s *Server) treeSetAttr(ctx context.Context, hdr *wire.RequestHeader, req *wire.TreeSetAttrReq) (*wire.TreeStatusResp, error) {
	if err := errors.Join(s.checkFSID(req.FSID), s.checkCred(&req.Cred)); err != nil {
		return nil, err
	}
	resp := &wire.TreeStatusResp{Index: req.Index, Statuses: make([]wire.Status, len(req.Handles))}
	fail := func(i int, err error) { resp.Statuses[i] = statusFor(err) }
	s.fanOut(req.Handles, fail, func(p *part) error {
		for k, h := range p.hs {
			one := &wire.SetAttrReq{Handle: h, FSID: req.FSID, Attr: req.Attr, Cred: req.Cred}
			if err := s.setAttr(ctx, hdr, one); err != nil {
				fail(p.index[k], err)
			}
		}
		return nil
	}, func(p *part) error {
		sub := &wire.TreeSetAttrReq{FSID: req.FSID, Cred: req.Cred, Type: req.Type, Attr: req.Attr, Handles: p.hs}
		var got wire.TreeStatusResp
		if err := p.peer.call(ctx, s.forwarded(hdr), sub, &got); err != nil {
			return err
		}
		return spread(p, resp.Statuses, got.Statuses)
	})
	return resp, nil
}
