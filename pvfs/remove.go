package pvfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// Destroy removes object h, which no entry should name any more, with all its
// datafiles. ENOTEMPTY for a directory with entries, which stays. An object
// that is gone already is ENOENT.
func (c *Client) Destroy(ctx context.Context, h Handle) error {
	return c.destroyKnown(ctx, h, c.destroy)
}

// DestroyGrowing is Destroy of a file that others may be writing to. It gives a stuffed
// file all its datafiles before: who comes later can give it no more of them.
func (c *Client) DestroyGrowing(ctx context.Context, h Handle) error {
	return c.destroyKnown(ctx, h, func(ctx context.Context, a *Attr) error {
		if a.Layout != nil && a.Layout.Stuffed {
			p, err := c.File(*a).unstuff(ctx)
			if err != nil {
				return err
			}
			a.Layout = &p.Layout
		}
		return c.destroy(ctx, a)
	})
}

// destroyKnown has destroy remove h when its attributes are known.
func (c *Client) destroyKnown(ctx context.Context, h Handle, destroy func(context.Context, *Attr) error) error {
	return c.detached(ctx, func(ctx context.Context) error {
		w, err := c.getattr(ctx, h, attrMask)
		if err != nil {
			return err
		}
		a, err := fromWire(h, &w)
		if err != nil {
			return err
		}
		return destroy(ctx, &a)
	})
}

// Destroy is Client.Destroy of the file, as far as f knows where its data are: one
// request if one server has them all. That it is gone already is no error.
func (f *File) Destroy(ctx context.Context) error {
	p, err := f.placement("Destroy")
	if err != nil {
		return err
	}
	return f.c.detached(ctx, func(ctx context.Context) error {
		err := f.c.destroy(ctx, &Attr{Handle: f.h, Type: wire.TypeMetafile, Layout: &p.Layout})
		if isNotFound(err) {
			return nil
		}
		return err
	})
}

// destroy removes the datafiles of a file, then the object; with one request if
// one server has them all, as of small files. Else the object goes last, so that
// who tries again after a failure knows the datafiles. Servers want to be told a
// directory that the right to remove comes from: the root will do, as an object
// does not know its own.
func (c *Client) destroy(ctx context.Context, a *Attr) error {
	if a.Layout != nil && len(a.Layout.DFiles) > 0 {
		all := append(slices.Clone(a.Layout.DFiles), a.Handle)
		if c.sameServer(all) {
			return c.removeAll(ctx, all)
		}
		if err := c.removeAll(ctx, a.Layout.DFiles); err != nil {
			return err
		}
	}
	lost, err := c.ownerTell(ctx, &wire.RemoveReq{Handle: a.Handle, FSID: c.fsid, Cred: c.cred()}, nil, c.Root(), a.Handle)
	if lost && isNotFound(err) {
		err = nil
	}
	if err == nil {
		c.dirs.drop(a.Handle)
	}
	return err
}

// sameServer reports whether one server has all objects.
func (c *Client) sameServer(hs []Handle) bool {
	first, err := c.owner(hs[0])
	return err == nil && !slices.ContainsFunc(hs, func(h Handle) bool {
		s, err := c.owner(h)
		return err != nil || s != first
	})
}

// removeAll asks the first object's server, which asks the others; if it does
// not reach them, we ask them ourselves. Objects that are gone are no error.
func (c *Client) removeAll(ctx context.Context, hs []Handle) error {
	err := c.treeRemove(ctx, hs)
	if err == nil || !unreachable(wire.StatusFor(err)) {
		return err
	}
	for _, h := range hs {
		_, err := c.ownerTell(ctx, &wire.RemoveReq{Handle: h, FSID: c.fsid, Cred: c.cred()}, nil, c.Root(), h)
		if err != nil && !isNotFound(err) {
			return err
		}
	}
	return nil
}

func (c *Client) treeRemove(ctx context.Context, hs []Handle) error {
	var resp wire.TreeStatusResp
	_, err := c.ownerTell(ctx, &wire.TreeRemoveReq{FSID: c.fsid, Cred: c.cred(), Handles: hs}, &resp, c.Root(), hs[0])
	if err != nil && !isNotFound(err) {
		return err
	}
	for _, st := range resp.Statuses {
		if e := st.Errno(); e != 0 && e != syscall.ENOENT {
			return st.Err("pvfs.tree_remove")
		}
	}
	return nil
}

// Remove removes the entry called name from dir and the file or symlink that it
// names. EISDIR for a directory. If the object cannot be removed the entry is
// put back; an entry that names nothing is just removed.
func (c *Client) Remove(ctx context.Context, dir Handle, name string) error {
	if err := checkName("Remove", name); err != nil {
		return err
	}
	return c.detached(ctx, func(ctx context.Context) error {
		a, gone, err := c.find(ctx, dir, name)
		switch {
		case err != nil:
			return err
		case gone:
			_, err := c.unlink(ctx, dir, name)
			return err
		case a.Type == wire.TypeDirectory:
			return wrongType("Remove", syscall.EISDIR)
		}
		if _, err := c.unlink(ctx, dir, name); err != nil {
			return err
		}
		if err := c.destroy(ctx, &a); err != nil && !isNotFound(err) {
			if lerr := c.link(ctx, dir, name, a.Handle); lerr != nil {
				return fmt.Errorf("%w; entry %q not put back: %w", err, name, lerr)
			}
			return err
		}
		return nil
	})
}

// Rmdir removes the empty directory called name from dir. ENOTDIR for another
// object, ENOTEMPTY for a directory with entries, which is not touched. The
// directory goes first, as only its server can tell that it is empty; should
// the entry outlive it, Rmdir or Remove of the name removes that.
func (c *Client) Rmdir(ctx context.Context, dir Handle, name string) error {
	if err := checkName("Rmdir", name); err != nil {
		return err
	}
	return c.detached(ctx, func(ctx context.Context) error {
		a, gone, err := c.find(ctx, dir, name)
		if err != nil {
			return err
		}
		if !gone {
			if a.Type != wire.TypeDirectory {
				return wrongType("Rmdir", syscall.ENOTDIR)
			}
			if err := c.destroy(ctx, &a); err != nil {
				return err
			}
		}
		_, err = c.unlink(ctx, dir, name)
		return err
	})
}

// find returns what an entry names, without sizes; gone means that the object
// does not exist.
func (c *Client) find(ctx context.Context, dir Handle, name string) (a Attr, gone bool, err error) {
	h, err := c.Lookup(ctx, dir, name)
	if err != nil {
		return Attr{}, false, err
	}
	w, err := c.getattr(ctx, h, attrMask)
	if isNotFound(err) {
		return Attr{Handle: h}, true, nil
	}
	if err != nil {
		return Attr{}, false, err
	}
	a, err = fromWire(h, &w)
	return a, false, err
}

// Rename makes the entry nn in nd name what on in od names and removes on. What
// nn named before is removed: EISDIR, ENOTDIR and ENOTEMPTY are as in rename(2).
// Two names of one object are left as they are. That a directory is not moved
// into itself is for the caller to check. Between the steps both names exist.
func (c *Client) Rename(ctx context.Context, od Handle, on string, nd Handle, nn string) error {
	for _, name := range []string{on, nn} {
		if err := checkName("Rename", name); err != nil {
			return err
		}
	}
	return c.detached(ctx, func(ctx context.Context) error {
		var h Handle
		var target Attr
		var targetGone bool
		var targetErr error
		err := both(ctx,
			func(ctx context.Context) (err error) {
				h, err = c.Lookup(ctx, od, on)
				return err
			},
			func(ctx context.Context) error {
				target, targetGone, targetErr = c.find(ctx, nd, nn)
				if isNotFound(targetErr) {
					return nil
				}
				return targetErr
			})
		switch {
		case err != nil:
			return err
		case targetErr != nil:
			return c.renameToNew(ctx, od, on, nd, nn, h)
		case target.Handle == h:
			return nil
		}
		return c.renameOver(ctx, od, on, nd, nn, h, &target, targetGone)
	})
}

func (c *Client) renameToNew(ctx context.Context, od Handle, on string, nd Handle, nn string, h Handle) error {
	if err := c.link(ctx, nd, nn, h); err != nil {
		return err
	}
	if _, err := c.unlink(ctx, od, on); err != nil {
		if _, uerr := c.unlink(ctx, nd, nn); uerr != nil {
			return fmt.Errorf("%w; entry %q not removed again: %w", err, nn, uerr)
		}
		return err
	}
	return nil
}

func (c *Client) renameOver(ctx context.Context, od Handle, on string, nd Handle, nn string, h Handle, target *Attr, gone bool) error {
	w, err := c.getattr(ctx, h, wire.AttrCommon)
	if err != nil {
		return err
	}
	isDir := w.Type == wire.TypeDirectory
	if !gone {
		switch targetDir := target.Type == wire.TypeDirectory; {
		case isDir && !targetDir:
			return wrongType("Rename", syscall.ENOTDIR)
		case !isDir && targetDir:
			return wrongType("Rename", syscall.EISDIR)
		case targetDir:
			// First, as only its server can tell that it is empty.
			if err := c.destroy(ctx, target); err != nil {
				return err
			}
			gone = true
		}
	}
	if _, err := c.relink(ctx, nd, nn, h); err != nil {
		return err
	}
	if _, err := c.unlink(ctx, od, on); err != nil {
		if gone {
			return err
		}
		if _, uerr := c.relink(ctx, nd, nn, target.Handle); uerr != nil {
			return errors.Join(err, fmt.Errorf("entry %q not put back: %w", nn, uerr))
		}
		return err
	}
	if !gone {
		c.undo(ctx, target)
	}
	return nil
}
