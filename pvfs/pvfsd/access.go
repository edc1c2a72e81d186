package pvfsd

import (
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	capLifetime = 600 // seconds a capability is valid

	// rights of uid 0 to what is no directory: all but CREATE and REMOVE.
	rootRights = wire.MayAll &^ (wire.MayCreate | wire.MayRemove)
)

// checkCred refuses a credential that says nothing usable.
func (s *Server) checkCred(c *wire.Credential) error {
	if len(c.Groups) == 0 && c.UID != 0 {
		return errno.New("pvfsd.credential", syscall.EINVAL)
	}
	if s.expires() && c.Timeout < s.now() {
		return errno.New("pvfsd.credential", syscall.EACCES)
	}
	return nil
}

// checkCap wants all rights of need in the request's capability, and h among
// its handles unless it is the null capability, which has no rights either.
func (s *Server) checkCap(hdr *wire.RequestHeader, need wire.OpMask, h wire.Handle) error {
	if hdr.Cap.Ops&need != need || need != 0 && !hdr.Cap.Covers(h) {
		return errno.New("pvfsd.capability", syscall.EACCES)
	}
	return s.checkExpiry(hdr)
}

// checkRights is checkCap for operations that have no object yet.
func (s *Server) checkRights(hdr *wire.RequestHeader, need wire.OpMask) error {
	if hdr.Cap.Ops&need != need {
		return errno.New("pvfsd.capability", syscall.EACCES)
	}
	return s.checkExpiry(hdr)
}

func (s *Server) checkExpiry(hdr *wire.RequestHeader) error {
	if s.expires() && !hdr.Cap.IsNull() && hdr.Cap.Timeout < s.now() {
		return errno.New("pvfsd.capability", syscall.EACCES)
	}
	return nil
}

// checkHinted is checkCap with the object that the request's hint names, which
// must be there: EINVAL without.
func (s *Server) checkHinted(hdr *wire.RequestHeader, need wire.OpMask) error {
	h, ok := hdr.Object()
	if !ok {
		return errno.New("pvfsd.hint", syscall.EINVAL)
	}
	return s.checkCap(hdr, need, h)
}

// rights is what the credential may do with an object of this mode.
func rights(o *object, c *wire.Credential) wire.OpMask {
	isDir := o.typ == wire.TypeDirectory
	if c.UID == 0 {
		if isDir {
			return wire.MayAll
		}
		return rootRights
	}
	bits := o.perms
	switch {
	case c.UID == o.uid:
		bits >>= 6
	case slices.Contains(c.Groups, o.gid):
		bits >>= 3
	}
	var m wire.OpMask
	if bits&4 != 0 {
		m |= wire.MayRead
	}
	if bits&2 != 0 {
		m |= wire.MayWrite
	}
	if bits&1 != 0 {
		m |= wire.MayExec
	}
	if c.UID == o.uid {
		m |= wire.MaySetAttr
	}
	if isDir && bits&3 == 3 {
		m |= wire.MayCreate | wire.MayRemove
	}
	return m
}

// capability is what the credential gets for the object h.
func (s *Server) capability(h wire.Handle, o *object, c *wire.Credential) wire.Capability {
	handles := []wire.Handle{h}
	switch o.typ {
	case wire.TypeMetafile:
		handles = append(handles, o.dfiles...)
	case wire.TypeDirectory:
		if handles = append(handles, o.other); o.buckets != nil {
			handles = append(handles, o.buckets.handles[1:]...)
		}
	}
	return wire.Capability{
		Issuer:  "S:" + s.opt.Alias,
		FSID:    wire.FSID(s.fs.ID),
		Timeout: s.now() + capLifetime,
		Ops:     rights(o, c),
		Handles: handles,
	}
}
