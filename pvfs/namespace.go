package pvfs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	maxSplits  = 20  // attempts to find an entry while its bucket splits
	sureTarget = 255 // bytes of a symlink's target that every server gives back
)

// checkName refuses what cannot be the name of an entry.
func checkName(op, name string) error {
	switch {
	case len(name) > wire.MaxName:
		return errno.New("pvfs."+op, syscall.ENAMETOOLONG)
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return errno.Wrap("pvfs."+op, syscall.EINVAL, fmt.Errorf("name %q", name))
	}
	return nil
}

// Lookup returns the object that the entry called name in dir names. It never
// follows a symlink. One request, and one more if the directory is distributed
// and was not used lately. ENOENT if there is no such entry.
func (c *Client) Lookup(ctx context.Context, dir Handle, name string) (Handle, error) {
	if err := checkName("Lookup", name); err != nil {
		return 0, err
	}
	info := c.dirs.peek(dir)
	if info == nil && c.fs.DistrDirServersMax > 1 {
		var err error
		if info, err = c.dirInfo(ctx, dir); err != nil && !errors.Is(err, syscall.ENOTDIR) {
			return 0, err
		}
	}
	if info != nil && len(info.Dirdata) > 1 {
		return c.lookupInBucket(ctx, dir, name)
	}
	var resp wire.LookupPathResp
	req := &wire.LookupPathReq{Path: name, FSID: c.fsid, Start: dir, Mask: wire.AttrCommon, Cred: c.cred()}
	if _, err := c.ownerTell(ctx, req, &resp, dir, dir); err != nil {
		return 0, err
	}
	if len(resp.Handles) != 1 {
		return 0, protocolError("%d handles for one name", len(resp.Handles))
	}
	return resp.Handles[0], nil
}

// lookupInBucket is Lookup in a distributed directory. It asks the bucket, as
// servers that resolve a path lock the directory while they ask it, and a bucket
// that splits waits for the directory: they would never come to an end.
// Source: OrangeFS src/server/lookup.sm, crdirent.sm.
func (c *Client) lookupInBucket(ctx context.Context, dir Handle, name string) (Handle, error) {
	var resp wire.GetDirentResp
	err := c.inBucket(ctx, dir, name, func(bucket Handle) error {
		err := c.ownerAsk(ctx, bucket, &wire.GetDirentReq{Dirdata: bucket, FSID: c.fsid, Name: name}, &resp)
		if err != nil {
			return err
		}
		return resp.Status.Err("pvfs.Lookup")
	})
	return resp.Handle, err
}

// inBucket calls f with the bucket of name in dir. If f fails because what we
// knew of the directory is out of date it calls f again.
func (c *Client) inBucket(ctx context.Context, dir Handle, name string, f func(bucket Handle) error) error {
	info, err := c.dirInfo(ctx, dir)
	if err != nil {
		return err
	}
	limit := time.Now().Add(c.timeout)
	for try := 0; ; try++ {
		at := info.bucket(name)
		err := f(at)
		again := errors.Is(err, syscall.EAGAIN)
		if !again && !isNotFound(err) {
			return err
		}
		if again {
			if time.Now().After(limit) {
				return err
			}
			if serr := sleep(ctx, min(time.Duration(try)*5*time.Millisecond, maxBackoff)); serr != nil {
				return serr
			}
		}
		fresh, ferr := c.freshDirInfo(ctx, dir)
		if ferr != nil || (!again && (try >= maxSplits || fresh.bucket(name) == at)) {
			return err
		}
		info = fresh
	}
}

// Link makes an entry called name in dir that names h. One request. EEXIST if
// there is such an entry, unless it was made by an attempt of this call whose
// answer was lost.
func (c *Client) Link(ctx context.Context, dir Handle, name string, h Handle) error {
	if err := checkName("Link", name); err != nil {
		return err
	}
	return c.detached(ctx, func(ctx context.Context) error { return c.link(ctx, dir, name, h) })
}

// change makes f change the entries of dir. While a directory may still split
// it makes one change at a time: servers that split buckets for several new
// entries at once wait for each other for good, and an entry that is removed
// while it moves comes back.
func (c *Client) change(ctx context.Context, dir Handle, f func() error) error {
	info, err := c.dirInfo(ctx, dir)
	if err != nil {
		return err
	}
	if info.mayGrow() {
		if err := c.turns.take(ctx, dir); err != nil {
			return err
		}
		defer c.turns.leave(dir)
	}
	return f()
}

// link makes an entry.
func (c *Client) link(ctx context.Context, dir Handle, name string, h Handle) error {
	return c.change(ctx, dir, func() error { return c.linkNow(ctx, dir, name, h) })
}

func (c *Client) linkNow(ctx context.Context, dir Handle, name string, h Handle) error {
	anyLost := false
	err := c.inBucket(ctx, dir, name, func(bucket Handle) error {
		lost, err := c.ownerTell(ctx, &wire.CrDirentReq{
			Cred: c.cred(), Name: name, Handle: h, Parent: dir, Dirdata: bucket, FSID: c.fsid,
		}, nil, dir, bucket)
		anyLost = anyLost || lost
		return err
	})
	if anyLost && errors.Is(err, syscall.EEXIST) {
		switch got, lerr := c.Lookup(ctx, dir, name); {
		case lerr == nil && got == h:
			return nil
		case lerr != nil && !isNotFound(lerr):
			return errno.Wrap("pvfs.crdirent", syscall.EIO, fmt.Errorf("an entry is there, of whom is not known: %w", lerr))
		}
	}
	return err
}

// Unlink removes the entry called name from dir and returns what it named; the
// object stays. One request. ENOENT if there is no such entry. If the answer of
// an attempt was lost and the entry is gone now, Unlink succeeds with handle 0:
// who needs the handle, or to know that the entry existed, looks it up before.
func (c *Client) Unlink(ctx context.Context, dir Handle, name string) (Handle, error) {
	if err := checkName("Unlink", name); err != nil {
		return 0, err
	}
	var h Handle
	err := c.detached(ctx, func(ctx context.Context) (err error) {
		h, err = c.unlink(ctx, dir, name)
		return err
	})
	if err != nil {
		return 0, err
	}
	return h, nil
}

func (c *Client) unlink(ctx context.Context, dir Handle, name string) (Handle, error) {
	var resp wire.RmDirentResp
	anyLost := false
	err := c.change(ctx, dir, func() error {
		return c.inBucket(ctx, dir, name, func(bucket Handle) error {
			lost, err := c.ownerTell(ctx, &wire.RmDirentReq{Name: name, Dirdata: bucket, FSID: c.fsid}, &resp, dir, bucket)
			anyLost = anyLost || lost
			return err
		})
	})
	if anyLost && isNotFound(err) {
		return 0, nil
	}
	return resp.Handle, err
}

// Relink makes the existing entry called name in dir name h and returns what it
// named before. One request. ENOENT if there is no such entry. If the answer of
// an attempt was lost, old may be 0 for unknown.
func (c *Client) Relink(ctx context.Context, dir Handle, name string, h Handle) (old Handle, err error) {
	if err := checkName("Relink", name); err != nil {
		return 0, err
	}
	var was Handle
	err = c.detached(ctx, func(ctx context.Context) (err error) {
		was, err = c.relink(ctx, dir, name, h)
		return err
	})
	if err != nil {
		return 0, err
	}
	return was, nil
}

func (c *Client) relink(ctx context.Context, dir Handle, name string, h Handle) (Handle, error) {
	var resp wire.ChDirentResp
	anyLost := false
	err := c.change(ctx, dir, func() error {
		return c.inBucket(ctx, dir, name, func(bucket Handle) error {
			lost, err := c.ownerTell(ctx, &wire.ChDirentReq{Name: name, Handle: h, Dirdata: bucket, FSID: c.fsid}, &resp, dir, bucket)
			anyLost = anyLost || lost
			return err
		})
	})
	if anyLost && resp.Handle == h {
		return 0, err
	}
	return resp.Handle, err
}

// Create makes an empty file called name in dir. Two requests, one more if it
// is to have extended attributes and one more if the directory was not used
// lately. EEXIST if the name is taken; what was made is then removed again.
func (c *Client) Create(ctx context.Context, dir Handle, name string, o CreateOptions) (Attr, error) {
	return c.makeObject(ctx, "Create", dir, name, func(ctx context.Context, info *dirInfo) (Attr, error) {
		a, err := c.createFile(ctx, dir, info, o)
		if err != nil {
			return Attr{}, err
		}
		return a, c.dress(ctx, &a, o.Xattrs)
	})
}

// Mkdir makes an empty directory called name in dir, which wishes what dir
// wishes unless o says otherwise. Requests and errors are those of Create. The
// times returned are this machine's.
func (c *Client) Mkdir(ctx context.Context, dir Handle, name string, o CreateOptions) (Attr, error) {
	return c.makeObject(ctx, "Mkdir", dir, name, func(ctx context.Context, info *dirInfo) (Attr, error) {
		a, err := c.createDir(ctx, dir, info, o)
		if err != nil {
			return Attr{}, err
		}
		return a, c.dress(ctx, &a, o.Xattrs)
	})
}

// Symlink makes a symlink to target, called name in dir. Three requests; errors
// are those of Create, and ENAMETOOLONG for a target above 4095 bytes, or above
// 255 from OrangeFS servers, which would cut it off. The times returned are this
// machine's.
func (c *Client) Symlink(ctx context.Context, dir Handle, name, target string, uid, gid uint32) (Attr, error) {
	switch {
	case target == "" || strings.Contains(target, "\x00"):
		return Attr{}, errno.Wrap("pvfs.Symlink", syscall.EINVAL, fmt.Errorf("target %q", target))
	case len(target) >= wire.MaxPath:
		return Attr{}, errno.New("pvfs.Symlink", syscall.ENAMETOOLONG)
	}
	return c.makeObject(ctx, "Symlink", dir, name, func(ctx context.Context, _ *dirInfo) (Attr, error) {
		return c.createSymlink(ctx, dir, target, uid, gid)
	})
}

// makeObject makes an object, then its entry; if that fails it removes the
// object. If it cannot know whether the entry was made, the object stays.
func (c *Client) makeObject(ctx context.Context, op string, dir Handle, name string, mk func(context.Context, *dirInfo) (Attr, error)) (Attr, error) {
	if err := checkName(op, name); err != nil {
		return Attr{}, err
	}
	var out Attr
	err := c.detached(ctx, func(ctx context.Context) error {
		info, err := c.dirInfo(ctx, dir)
		if err != nil {
			return err
		}
		a, err := mk(ctx, info)
		if err != nil {
			return err
		}
		if err := c.link(ctx, dir, name, a.Handle); err != nil {
			if refused(err) {
				c.undo(ctx, &a)
			}
			return err
		}
		out = a
		return nil
	})
	if err != nil {
		return Attr{}, err
	}
	return out, nil
}

// dress gives an object that nothing names yet its extended attributes, or
// removes it. None is no request.
func (c *Client) dress(ctx context.Context, a *Attr, xs []Xattr) error {
	if len(xs) == 0 {
		return nil
	}
	err := c.setXattrs(ctx, a.Handle, xs)
	if err != nil {
		c.undo(ctx, a)
	}
	return err
}

// undo removes an object that nothing names.
func (c *Client) undo(ctx context.Context, a *Attr) {
	if err := c.destroy(ctx, a); err != nil {
		c.log.Warn("object without a name left behind", "handle", a.Handle, "err", err)
	}
}

func (c *Client) createFile(ctx context.Context, dir Handle, info *dirInfo, o CreateOptions) (Attr, error) {
	return c.createOn(ctx, c.anyMeta(), dir, info, o)
}

// createOn makes a file on s that nothing names.
func (c *Client) createOn(ctx context.Context, s *server, dir Handle, info *dirInfo, o CreateOptions) (Attr, error) {
	sh, err := c.shapeFor(o, &info.hint)
	if err != nil {
		return Attr{}, err
	}
	req := &wire.CreateReq{
		FSID: c.fsid, Cred: c.cred(), NumDFiles: int32(sh.dfiles), Layout: wire.Layout{Type: sh.layout},
		Attr: wire.Attr{
			UID: o.UID, GID: o.GID, Perms: o.Mode & modeBits, Type: wire.TypeMetafile, Dist: sh.dist,
			Mask: wire.AttrCommon | wire.AttrDist | wire.AttrDFiles | wire.AttrMirrors,
		},
	}
	var resp wire.CreateResp
	if _, err := s.tell(ctx, req, &resp, dir, dir); err != nil {
		return Attr{}, err
	}
	w := resp.Attr
	if len(w.DFiles) == 0 {
		return Attr{}, protocolError("new file without datafiles")
	}
	w.UID, w.GID, w.Perms, w.Type = o.UID, o.GID, o.Mode&modeBits, wire.TypeMetafile
	w.Dist, w.StuffedSize = sh.dist, 0
	w.Mask |= wire.AttrDist | wire.AttrDFiles | wire.AttrUnstuffed
	if resp.Stuffed != 0 {
		w.Mask &^= wire.AttrUnstuffed
	}
	if w.Mtime == 0 {
		now := time.Now().Unix()
		w.Atime, w.Mtime, w.Ctime = now, now, now
	}
	c.dirs.put(resp.Handle, &w)
	return fromWire(resp.Handle, &w)
}

func (c *Client) createDir(ctx context.Context, dir Handle, info *dirInfo, o CreateOptions) (Attr, error) {
	s := c.anyMeta()
	hint := info.hint
	if o.NumDFiles > 0 {
		hint.DFiles = uint32(o.NumDFiles)
	}
	if o.StripSize > 0 {
		hint.DistName, hint.DistParams = wire.SimpleStripe, fmt.Sprintf("strip_size:%d", o.StripSize)
	}
	// A directory that has all its buckets from the start never splits, see
	// change, which OrangeFS servers survive only if no other client is near.
	buckets := int32(c.fs.DistrDirServersMax)
	req := &wire.MkdirReq{
		FSID: c.fsid, Cred: c.cred(), Ranges: c.metaRanges(s), Layout: wire.Layout{Type: wire.LayoutRoundRobin},
		ServersInitial: buckets, ServersMax: buckets,
		Attr: wire.Attr{
			UID: o.UID, GID: o.GID, Perms: o.Mode & modeBits, Type: wire.TypeDirectory, DirHint: hint,
			Mask: wire.AttrCommon | wire.AttrDirHint,
		},
	}
	var resp wire.MkdirResp
	if _, err := s.tell(ctx, req, &resp, dir, dir); err != nil {
		return Attr{}, err
	}
	now := time.Now().Unix()
	return Attr{Handle: resp.Handle, Type: wire.TypeDirectory, Mode: o.Mode & modeBits, UID: o.UID, GID: o.GID,
		Atime: now, Mtime: now, Ctime: now}, nil
}

func (c *Client) createSymlink(ctx context.Context, dir Handle, target string, uid, gid uint32) (Attr, error) {
	s := c.anyMeta()
	var resp wire.BatchCreateResp
	req := &wire.BatchCreateReq{FSID: c.fsid, Type: wire.TypeSymlink, Count: 1, Ranges: c.metaRanges(s)}
	if _, err := s.tell(ctx, req, &resp, dir, dir); err != nil {
		return Attr{}, err
	}
	if len(resp.Handles) != 1 {
		return Attr{}, protocolError("%d new objects instead of one", len(resp.Handles))
	}
	h := resp.Handles[0]
	now := time.Now().Unix()
	a := Attr{Handle: h, Type: wire.TypeSymlink, Mode: 0o777, UID: uid, GID: gid, Atime: now, Mtime: now, Ctime: now,
		Size: int64(len(target)), Target: target}
	set := &wire.SetAttrReq{Handle: h, FSID: c.fsid, Cred: c.cred(), Attr: wire.Attr{
		UID: uid, GID: gid, Perms: a.Mode, Type: wire.TypeSymlink, Target: target, Mask: wire.AttrCommon | wire.AttrTarget,
	}}
	_, err := s.tell(ctx, set, nil, h, h)
	if err == nil && len(target) > sureTarget {
		err = c.checkTarget(ctx, h, target)
	}
	if err != nil {
		c.undo(ctx, &a)
		return Attr{}, err
	}
	return a, nil
}

// checkTarget reads a symlink's target back, as servers take longer ones than
// they give. Source: OrangeFS src/server/get-attr.sm.
func (c *Client) checkTarget(ctx context.Context, h Handle, target string) error {
	w, err := c.getattr(ctx, h, wire.AttrCommon|wire.AttrTarget)
	if err == nil && w.Target != target {
		err = errno.Wrap("pvfs.Symlink", syscall.ENAMETOOLONG, fmt.Errorf("the server keeps %d bytes of %d", len(w.Target), len(target)))
	}
	return err
}

// metaRanges is the handles of new objects that s may choose from.
func (c *Client) metaRanges(s *server) []wire.HandleRange {
	var out []wire.HandleRange
	for _, r := range c.fs.MetaRanges(s.Alias) {
		out = append(out, wire.HandleRange{First: Handle(r.First), Last: Handle(r.Last)})
	}
	return out
}

// both runs two calls in parallel.
func both(ctx context.Context, f, g func(context.Context) error) error {
	var eg errgroup.Group
	eg.Go(func() error { return f(ctx) })
	err := g(ctx)
	if ferr := eg.Wait(); ferr != nil {
		return ferr
	}
	return err
}
