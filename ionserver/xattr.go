package ionserver

import (
	"context"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/hints"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/striping"
)

// hiddenXattr reports whether an attribute is not for mounts: PVFS2's own, and
// those of other name spaces than user, security and trusted.
func hiddenXattr(name string) bool {
	if name == viewXattr || name == parentXattr {
		return true
	}
	for _, p := range []string{"user.", "security.", "trusted."} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	return true
}

func checkXattr(name string) error {
	switch {
	case len(name) > 255:
		return errno.New("ionserver.xattr", syscall.ERANGE)
	case name == "" || strings.Contains(name, "\x00"):
		return errno.New("ionserver.xattr", syscall.EINVAL)
	case hiddenXattr(name):
		return errno.New("ionserver.xattr", syscall.EOPNOTSUPP)
	}
	return nil
}

func (c *call) getXattr() (*rpc.Frame, error) {
	var m ionpb.NameReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := checkXattr(string(m.Name)); err != nil {
		return nil, err
	}
	if string(m.Name) == striping.Xattr {
		return c.getStripe()
	}
	if hint, _ := hints.OfXattr(string(m.Name)); hints.Stripes(hint) {
		return c.getStriping(hint)
	}
	v, err := c.srv.pvfs.GetXattr(c.ctx, pvfs.Handle(c.Handle), string(m.Name))
	if err != nil {
		return nil, stale(err)
	}
	if string(m.Name) == consistency.Xattr {
		v = cText(v)
	}
	return okay(&ionpb.XattrResp{Value: v})
}

func (c *call) setXattr() (*rpc.Frame, error) {
	var m ionpb.SetXattrReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := checkXattr(string(m.Name)); err != nil {
		return nil, err
	}
	if m.Flags > 3 {
		return nil, errno.New("ionserver.xattr", syscall.EINVAL)
	}
	switch string(m.Name) {
	case striping.Xattr:
		return c.setStripe(&m)
	case consistency.Xattr:
		return c.setMode(&m)
	}
	if hint, ok := hints.OfXattr(string(m.Name)); ok {
		return c.setHint(hint, &m)
	}
	return c.changeXattr(func(ctx context.Context) error {
		if err := c.srv.pvfs.CheckWish(ctx, pvfs.Handle(c.Handle), string(m.Name), m.Value); err != nil {
			return err
		}
		return c.srv.pvfs.SetXattr(ctx, pvfs.Handle(c.Handle), string(m.Name), m.Value, pvfs.XattrFlags(m.Flags))
	})
}

func (c *call) removeXattr() (*rpc.Frame, error) {
	var m ionpb.NameReq
	if err := c.Decode(&m); err != nil {
		return nil, err
	}
	if err := checkXattr(string(m.Name)); err != nil {
		return nil, err
	}
	switch string(m.Name) {
	case striping.Xattr:
		return c.wish(striping.Wish{})
	case consistency.Xattr:
		return c.removeMode()
	}
	if hint, ok := hints.OfXattr(string(m.Name)); ok {
		return c.removeHint(hint)
	}
	return c.changeXattr(func(ctx context.Context) error {
		return c.srv.pvfs.RemoveXattr(ctx, pvfs.Handle(c.Handle), string(m.Name))
	})
}

// changeXattr runs fn as the only change of the inode's attributes, because
// PVFS2 does not look and change in one step.
func (c *call) changeXattr(fn func(context.Context) error) (*rpc.Frame, error) {
	if err := c.checkHome(); err != nil {
		return nil, err
	}
	end, err := c.alter(c.Handle, c.mount(), attrLease)
	if err != nil {
		return nil, err
	}
	defer end()
	release, err := lockKey(c, c.ctx, &c.srv.home.ops, c.Handle, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := fn(c.ctx); err != nil {
		return nil, stale(err)
	}
	return okay(nil)
}

func (c *call) listXattr() (*rpc.Frame, error) {
	names, err := c.srv.pvfs.ListXattr(c.ctx, pvfs.Handle(c.Handle))
	if err != nil {
		return nil, stale(err)
	}
	m := &ionpb.ListXattrResp{}
	for _, n := range names {
		if !hiddenXattr(n) {
			m.Names = append(m.Names, []byte(n))
		}
	}
	return okay(m)
}
