package pvfsd

import (
	"context"
	"fmt"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// statusNoEattr is what real servers put in place of a missing extended
// attribute when several were asked for: ENOENT of class TROVE.
var statusNoEattr = wire.StatusOf(syscall.ENOENT) - 2<<7

func (s *Server) getEattr(req *wire.GetEattrReq) (*wire.GetEattrResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	resp := &wire.GetEattrResp{
		Values:   make([][]byte, len(req.Keys)),
		Statuses: make([]wire.Status, len(req.Keys)),
	}
	err := s.store.view(func(t *txn) error {
		o, err := t.object(req.Handle)
		if err != nil {
			return err
		}
		for i, key := range req.Keys {
			v, err := t.eattrValue(req.Handle, o, key)
			switch {
			case err != nil || v == nil: // also what cannot be a name
				err = statusError(statusNoEattr)
			case int64(len(v)) > req.Rooms[i]:
				err = errno.New("pvfsd.geteattr", syscall.EMSGSIZE)
			default:
				resp.Values[i] = v
				continue
			}
			resp.Statuses[i] = statusFor(err)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(req.Keys) == 1 && resp.Statuses[0] != 0:
		return nil, errno.New("pvfsd.geteattr", resp.Statuses[0].Errno())
	}
	return resp, nil
}

func (t *txn) eattrValue(h wire.Handle, o *object, key []byte) ([]byte, error) {
	name, err := eattrName(key)
	if err != nil {
		return nil, err
	}
	if v := internalEattr(o, name); v != nil {
		return v, nil
	}
	return t.eattr(h, name), nil
}

func (s *Server) setEattr(ctx context.Context, hdr *wire.RequestHeader, req *wire.SetEattrReq) error {
	if err := s.checkFSID(req.FSID); err != nil {
		return err
	}
	if err := s.checkEattrCap(hdr, req.Handle); err != nil {
		return err
	}
	names := make([]string, len(req.Keys))
	for i, key := range req.Keys {
		name, err := eattrName(key)
		if err != nil {
			return err
		}
		names[i] = name
	}
	if len(names) == 1 && names[0] == keyClosed {
		return s.closeBucket(ctx, req.Handle)
	}
	return s.changeEattrs(ctx, req.Handle, func(t *txn, o *object) error {
		return t.setEattrs(req.Handle, o, names, req.Values, req.Flags)
	})
}

func (s *Server) delEattr(ctx context.Context, hdr *wire.RequestHeader, req *wire.DelEattrReq) error {
	if err := s.checkFSID(req.FSID); err != nil {
		return err
	}
	if err := s.checkEattrCap(hdr, req.Handle); err != nil {
		return err
	}
	name, err := eattrName(req.Key)
	if err != nil {
		return err
	}
	if name == keyClosed {
		return s.openBucket(ctx, req.Handle)
	}
	return s.changeEattrs(ctx, req.Handle, func(t *txn, o *object) error {
		if t.eattr(req.Handle, name) == nil {
			return errno.New("pvfsd.deleattr", syscall.ENOENT)
		}
		if name == keyMetaHint && o.typ == wire.TypeMetafile {
			o.flags = 0
		}
		return t.del(bucketEattrs, eattrKey(req.Handle, name))
	})
}

// checkEattrCap wants SETATTR for the object; a client may have the hint name
// a directory whose hints it sets.
func (s *Server) checkEattrCap(hdr *wire.RequestHeader, h wire.Handle) error {
	if obj, ok := hdr.Object(); ok && hdr.Cap.Covers(obj) {
		return s.checkRights(hdr, wire.MaySetAttr)
	}
	return s.checkCap(hdr, wire.MaySetAttr, h)
}

// changeEattrs runs fn and marks the change in the ctime of the object h.
func (s *Server) changeEattrs(ctx context.Context, h wire.Handle, fn func(*txn, *object) error) error {
	return s.store.commit(ctx, func(t *txn) error {
		o, err := t.object(h)
		if err != nil {
			return err
		}
		if o.typ == wire.TypeDatafile {
			return errno.New("pvfsd.eattr", syscall.EINVAL)
		}
		if err := fn(t, o); err != nil {
			return err
		}
		o.ctime = s.now()
		return t.putObject(h, o)
	})
}

// listEattr lists keys with their NUL. The token counts the keys listed so far.
func (s *Server) listEattr(req *wire.ListEattrReq) (*wire.ListEattrResp, error) {
	if err := s.checkFSID(req.FSID); err != nil {
		return nil, err
	}
	if len(req.Rooms) > wire.MaxEattrs {
		return nil, errno.Wrap("pvfsd.listeattr", syscall.EINVAL, fmt.Errorf("%d keys at once", len(req.Rooms)))
	}
	resp := &wire.ListEattrResp{Token: wire.TokenEnd}
	if req.Token == wire.TokenEnd {
		return resp, nil
	}
	var names []string
	err := s.store.view(func(t *txn) error {
		o, err := t.object(req.Handle)
		if err != nil {
			return err
		}
		names = append(internalNames(o), t.eattrNames(req.Handle, "")...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	at := req.Token & tokenMask
	if at == wire.TokenStart {
		at = 0
	}
	names = names[min(at, uint64(len(names))):]
	for i, name := range names {
		if i == len(req.Rooms) {
			resp.Token = at + uint64(i)
			break
		}
		if int64(len(name)) >= req.Rooms[i] {
			return nil, errno.New("pvfsd.listeattr", syscall.EMSGSIZE)
		}
		resp.Keys = append(resp.Keys, append([]byte(name), 0))
	}
	if resp.Token == 0 {
		resp.Token = wire.TokenStart // no room was given
	}
	return resp, nil
}
