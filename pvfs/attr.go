package pvfs

import (
	"context"
	"errors"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	modeBits = 0o6777 // what PVFS2 stores; it has no sticky bit

	attrMask    = wire.AttrAll &^ (wire.AttrCapability | wire.AttrMirrors)
	dirdataMask = wire.AttrCommon | wire.AttrDirentCount
	layoutMask  = wire.AttrCommon | wire.AttrDist | wire.AttrDFiles
)

// fromWire is the part of an object's attributes that its metadata server
// knows: no size of a striped file, no entries of a directory.
func fromWire(h Handle, w *wire.Attr) (Attr, error) {
	a := Attr{Handle: h, Type: w.Type, Mode: w.Perms & modeBits, UID: w.UID, GID: w.GID,
		Atime: w.Atime, Mtime: w.Mtime, Ctime: w.Ctime}
	switch w.Type {
	case wire.TypeMetafile:
		if a.Layout = layoutOf(w); a.Layout == nil {
			break
		}
		p, err := newPlacement(a.Layout)
		if err != nil {
			return a, err
		}
		a.StripeSize = striping.Width(&p.Layout.Dist, len(p.DFiles))
		if p.Stuffed {
			a.Size = int64(w.StuffedSize)
		}
	case wire.TypeSymlink:
		a.Target, a.Size = w.Target, int64(len(w.Target))
	case wire.TypeDatafile:
		a.Size = w.Size
	}
	return a, nil
}

// addDirdata merges what one bucket of a directory knows.
func (a *Attr) addDirdata(w *wire.Attr) {
	a.Entries += w.DirentCount
	a.Mtime = max(a.Mtime, w.Mtime)
	a.Ctime = max(a.Ctime, w.Ctime)
	a.Atime = max(a.Atime, w.Atime)
}

// GetAttr returns the attributes of h with its exact size: one request for a
// small file or a symlink, two for a striped file or a directory. ENOENT if there is no such object.
func (c *Client) GetAttr(ctx context.Context, h Handle) (Attr, error) {
	if info := c.dirs.peek(h); info != nil {
		if a, err := c.getDirAttr(ctx, h, info); !errors.Is(err, errStaleDir) {
			return a, err
		}
	}
	w, err := c.getattr(ctx, h, attrMask)
	if err != nil {
		return Attr{}, err
	}
	a, err := fromWire(h, &w)
	if err != nil {
		return a, err
	}
	switch {
	case w.Type == wire.TypeDirectory:
		info := c.dirs.put(h, &w)
		return a, c.addBuckets(ctx, &a, info)
	case a.Layout != nil && !a.Layout.Stuffed:
		a.Size, err = c.sizeOf(ctx, a.Layout)
	}
	c.dirs.put(h, &w)
	return a, err
}

var errStaleDir = errors.New("directory has changed")

// getDirAttr is GetAttr of a directory whose buckets are known: all requests
// at once.
func (c *Client) getDirAttr(ctx context.Context, h Handle, info *dirInfo) (Attr, error) {
	var w wire.Attr
	var rest Attr
	err := together(ctx,
		func(ctx context.Context) (err error) {
			w, err = c.getattr(ctx, h, attrMask)
			return err
		},
		func(ctx context.Context) error { return c.addBuckets(ctx, &rest, info) },
	)
	if err != nil && !isNotFound(err) {
		return Attr{}, err
	}
	if err != nil || w.Type != wire.TypeDirectory || !info.same(&w) {
		c.dirs.drop(h)
		return Attr{}, errStaleDir
	}
	c.dirs.put(h, &w)
	a, err := fromWire(h, &w)
	a.addDirdata(&wire.Attr{DirentCount: rest.Entries, Atime: rest.Atime, Mtime: rest.Mtime, Ctime: rest.Ctime})
	return a, err
}

// addBuckets adds what the active buckets of a directory know to a: one request.
func (c *Client) addBuckets(ctx context.Context, a *Attr, info *dirInfo) error {
	ws, err := c.bucketAttrs(ctx, info.actives())
	for i := range ws {
		a.addDirdata(&ws[i])
	}
	return err
}

// bucketAttrs asks the first bucket's server, which asks the others; if it does
// not know of one of them, we ask each.
func (c *Client) bucketAttrs(ctx context.Context, hs []Handle) ([]wire.Attr, error) {
	if len(hs) > 1 {
		var resp wire.TreeGetAttrResp
		err := c.ownerAsk(ctx, hs[0], &wire.TreeGetAttrReq{FSID: c.fsid, Cred: c.cred(), Mask: dirdataMask, Handles: hs}, &resp)
		if err != nil && !refused(err) {
			return nil, err
		}
		other := func(a wire.Attr) bool { return a.Type != wire.TypeDirdata }
		if err == nil && len(resp.Attrs) == len(hs) && !slices.ContainsFunc(resp.Attrs, other) {
			return resp.Attrs, nil
		}
	}
	ws := make([]wire.Attr, len(hs))
	var fs []func(context.Context) error
	for i, h := range hs {
		fs = append(fs, func(ctx context.Context) (err error) {
			ws[i], err = c.getattr(ctx, h, dirdataMask)
			return err
		})
	}
	return ws, together(ctx, fs...)
}

func (c *Client) getattr(ctx context.Context, h Handle, mask wire.AttrMask) (wire.Attr, error) {
	var resp wire.GetAttrResp
	err := c.ownerAsk(ctx, h, &wire.GetAttrReq{Handle: h, FSID: c.fsid, Mask: mask, Cred: c.cred()}, &resp)
	return resp.Attr, err
}

// sizeOf is the logical size of a file that is not stuffed: one request.
func (c *Client) sizeOf(ctx context.Context, l *Layout) (int64, error) {
	p, err := newPlacement(l)
	if err != nil {
		return 0, err
	}
	sizes, err := c.datafileSizes(ctx, p.DFiles)
	if err != nil {
		return 0, err
	}
	return p.dist.Size(sizes), nil
}

// datafileSizes asks the first datafile's server, which asks the others; if it
// does not reach them, we ask them ourselves.
func (c *Client) datafileSizes(ctx context.Context, dfiles []Handle) ([]int64, error) {
	var resp wire.TreeGetFileSizeResp
	req := &wire.TreeGetFileSizeReq{FSID: c.fsid, Cred: c.cred(), Handles: dfiles}
	err := c.ownerAsk(ctx, dfiles[0], req, &resp)
	if err == nil && len(resp.Sizes) != len(dfiles) {
		err = protocolError("%d sizes of %d datafiles", len(resp.Sizes), len(dfiles))
	}
	for _, st := range resp.Statuses {
		if err == nil {
			err = st.Err("pvfs.tree_get_file_size")
		}
	}
	if err == nil || !unreachable(wire.StatusFor(err)) {
		return resp.Sizes, err
	}
	errs := make([]error, len(dfiles))
	ws, err := c.listattr(ctx, dfiles, wire.AttrSize, errs)
	if err != nil {
		return nil, err
	}
	sizes := make([]int64, len(dfiles))
	for i := range ws {
		if errs[i] != nil {
			return nil, errs[i]
		}
		sizes[i] = ws[i].Size
	}
	return sizes, nil
}

// SetAttr changes attributes: one request, and one for each bucket of a
// directory whose times are set. ENOENT if there is no such object.
func (c *Client) SetAttr(ctx context.Context, h Handle, s SetAttr) error {
	w := wire.Attr{}
	if s.Mode != nil {
		w.Perms, w.Mask = *s.Mode&modeBits, w.Mask|wire.AttrPerm
	}
	if s.UID != nil {
		w.UID, w.Mask = *s.UID, w.Mask|wire.AttrUID
	}
	if s.GID != nil {
		w.GID, w.Mask = *s.GID, w.Mask|wire.AttrGID
	}
	if s.Atime != nil {
		w.Atime, w.Mask = *s.Atime, w.Mask|wire.AttrAtime|wire.AttrAtimeSet
	} else if s.AtimeNow {
		w.Mask |= wire.AttrAtime
	}
	if s.Mtime != nil {
		w.Mtime, w.Mask = *s.Mtime, w.Mask|wire.AttrMtime|wire.AttrMtimeSet
	} else if s.MtimeNow {
		w.Mask |= wire.AttrMtime
	}
	if s.CtimeNow {
		w.Mask |= wire.AttrCtime
	}
	if w.Mask == 0 {
		return nil
	}
	w.Mask |= wire.AttrType
	if _, err := c.ownerTell(ctx, &wire.SetAttrReq{Handle: h, FSID: c.fsid, Attr: w, Cred: c.cred()}, nil, h, h); err != nil {
		return err
	}
	if s.Atime == nil && s.Mtime == nil {
		return nil
	}
	return c.setBucketTimes(ctx, h, w)
}

// setBucketTimes gives the buckets of a directory the times that it was given:
// a directory's times are the latest of its own and theirs. Servers that do
// not allow that leave the times of the last change of an entry.
func (c *Client) setBucketTimes(ctx context.Context, h Handle, w wire.Attr) error {
	if c.dirs.isOther(h) {
		return nil
	}
	info, err := c.dirInfo(ctx, h)
	if err != nil {
		if errors.Is(err, syscall.ENOTDIR) {
			return nil
		}
		return err
	}
	w.Mask &= wire.AttrType | wire.AttrAtime | wire.AttrAtimeSet | wire.AttrMtime | wire.AttrMtimeSet
	for i, d := range info.Dirdata {
		if !info.Active(i) {
			continue
		}
		if _, err := c.ownerTell(ctx, &wire.SetAttrReq{Handle: d, FSID: c.fsid, Attr: w, Cred: c.cred()}, nil, h, d); err != nil {
			c.log.Debug("times of a directory's bucket not set", "handle", d, "err", err)
		}
	}
	return nil
}

// wrongType is the error of an operation on an object of another type.
func wrongType(op string, e syscall.Errno) error { return errno.New("pvfs."+op, e) }
