package ionserver

import (
	"context"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
)

// consistency returns the mode that was chosen for an inode of this home.
func (h *home) consistency(ctx context.Context, handle uint64) (ionpb.Consistency, error) {
	c, err := h.choice(ctx, handle)
	return c.mode, err
}

// setMode answers SETXATTR of consistency.Xattr.
func (c *call) setMode(m *ionpb.SetXattrReq) (*rpc.Frame, error) {
	mode, err := consistency.Parse(string(cText(m.Value)))
	if err != nil {
		return nil, errno.Wrap("ionserver.consistency", syscall.EINVAL, err)
	}
	return c.changeMode(ionpb.ConsistencyOf(mode), func(ctx context.Context) error {
		return c.srv.pvfs.SetXattr(ctx, pvfs.Handle(c.Handle), consistency.Xattr, []byte(mode.String()), pvfs.XattrFlags(m.Flags))
	})
}

// removeMode answers REMOVEXATTR of consistency.Xattr.
func (c *call) removeMode() (*rpc.Frame, error) {
	return c.changeMode(ionpb.Consistency_DEFAULT, func(ctx context.Context) error {
		return c.srv.pvfs.RemoveXattr(ctx, pvfs.Handle(c.Handle), consistency.Xattr)
	})
}

// changeMode runs fn, which makes the inode's mode what is given.
func (c *call) changeMode(mode ionpb.Consistency, fn func(context.Context) error) (*rpc.Frame, error) {
	closes, err := c.sealsAs(mode)
	if err != nil {
		return nil, err
	}
	return c.changeXattr(func(ctx context.Context) error {
		if closes {
			reopen, err := c.shut()
			if err != nil {
				return err
			}
			defer reopen()
		}
		err := c.changeChoice(ctx, func(x *choice) { x.mode = mode }, fn)
		c.srv.home.changed(c.Handle, true, false) // it may be sealed or unsealed by that
		return err
	})
}
