package ionserver

import (
	"context"
	"errors"
	"strconv"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/hints"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/striping"
)

// setHint answers SETXATTR of a hint of MPI-IO.
func (c *call) setHint(hint string, m *ionpb.SetXattrReq) (*rpc.Frame, error) {
	n, err := hints.Parse(hint, string(cText(m.Value)))
	if err != nil {
		return nil, errno.Wrap("ionserver.hint", syscall.EINVAL, err)
	}
	flags := pvfs.XattrFlags(m.Flags)
	if hints.Stripes(hint) {
		return c.changeWish(hint, flags, n)
	}
	return c.changeHint(hint, n, func(ctx context.Context) error {
		return c.srv.pvfs.SetXattr(ctx, pvfs.Handle(c.Handle), string(m.Name), strconv.AppendInt(nil, n, 10), flags)
	})
}

// removeHint answers REMOVEXATTR of a hint.
func (c *call) removeHint(hint string) (*rpc.Frame, error) {
	if hints.Stripes(hint) {
		return c.changeWish(hint, pvfs.XattrReplace, 0)
	}
	return c.changeHint(hint, 0, func(ctx context.Context) error {
		return c.srv.pvfs.RemoveXattr(ctx, pvfs.Handle(c.Handle), hints.Xattr(hint))
	})
}

// changeHint runs fn, which makes a hint of collective buffering n; 0 is none.
func (c *call) changeHint(hint string, n int64, fn func(context.Context) error) (*rpc.Frame, error) {
	return c.changeXattr(func(ctx context.Context) error {
		return c.changeChoice(ctx, func(x *choice) {
			if hint == hints.CBNodes {
				x.nodes = n
			} else {
				x.buffer = n
			}
		}, fn)
	})
}

// getStriping answers GETXATTR of a hint that is a directory's wish. There is no
// other record of it, so it is what OrangeFS's tools see and set.
func (c *call) getStriping(hint string) (*rpc.Frame, error) {
	w, err := c.srv.pvfs.Wish(c.ctx, pvfs.Handle(c.Handle))
	if err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return nil, stale(err)
	}
	n := wished(w, hint)
	if n == 0 {
		return nil, errno.New("ionserver.hint", syscall.ENODATA)
	}
	return okay(&ionpb.XattrResp{Value: strconv.AppendInt(nil, n, 10)})
}

// changeWish has a directory wish the strip size or number of servers n for new
// files, 0 being none.
func (c *call) changeWish(hint string, flags pvfs.XattrFlags, n int64) (*rpc.Frame, error) {
	return c.changeXattr(func(ctx context.Context) error {
		w, err := c.srv.pvfs.Wish(ctx, pvfs.Handle(c.Handle))
		had := wished(w, hint) != 0
		switch {
		case errors.Is(err, syscall.ENOTDIR) && n == 0:
			return errno.New("ionserver.hint", syscall.ENODATA)
		case errors.Is(err, syscall.ENOTDIR):
			return errno.Wrap("ionserver.hint", syscall.EINVAL, errors.New("a file is striped as it was made: set it on the directory before"))
		case err != nil:
			return err
		case had && flags == pvfs.XattrCreate:
			return errno.New("ionserver.hint", syscall.EEXIST)
		case !had && flags == pvfs.XattrReplace:
			return errno.New("ionserver.hint", syscall.ENODATA)
		case hint == hints.StripingFactor:
			w.Servers = int(n)
		case n == 0:
			w = w.WithoutStrip()
		default:
			if w, err = w.WithStrip(n); err != nil {
				return errno.Wrap("ionserver.hint", syscall.EINVAL, err)
			}
		}
		return c.srv.pvfs.SetWish(ctx, pvfs.Handle(c.Handle), w)
	})
}

// wished is the value of a hint that w fulfils; 0 if it says nothing of it.
func wished(w striping.Wish, hint string) int64 {
	if hint == hints.StripingFactor {
		return int64(w.Servers)
	}
	return w.Strip()
}
