package ionserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/striping"
)

// maxWish bounds a wish in JSON.
const maxWish = 4096

// getStripe answers GETXATTR of striping.Xattr: how the data of a file lie, or
// what a directory wishes for new ones.
func (c *call) getStripe() (*rpc.Frame, error) {
	if _, err := c.writeBackAll(c.mount()); err != nil { // so that what is shown is where it lies
		return nil, err
	}
	i, err := c.srv.pvfs.Striping(c.ctx, pvfs.Handle(c.Handle))
	if errors.Is(err, syscall.EINVAL) { // a symlink
		return nil, errno.Wrap("ionserver.stripe", syscall.ENODATA, err)
	}
	if err != nil {
		return nil, stale(err)
	}
	v, err := json.Marshal(i)
	if err != nil {
		return nil, errno.Wrap("ionserver.stripe", syscall.EIO, err)
	}
	return okay(&ionpb.XattrResp{Value: v})
}

// setStripe answers SETXATTR of striping.Xattr, which there always is.
func (c *call) setStripe(m *ionpb.SetXattrReq) (*rpc.Frame, error) {
	if pvfs.XattrFlags(m.Flags) == pvfs.XattrCreate {
		return nil, errno.New("ionserver.stripe", syscall.EEXIST)
	}
	var w striping.Wish
	if len(m.Value) > maxWish {
		return nil, errno.New("ionserver.stripe: wish too long", syscall.EINVAL)
	}
	d := json.NewDecoder(bytes.NewReader(m.Value))
	d.DisallowUnknownFields()
	err := d.Decode(&w)
	if _, more := d.Token(); err == nil && more != io.EOF {
		err = errors.New("more than one value")
	}
	if err != nil {
		return nil, errno.Wrap("ionserver.stripe", syscall.EINVAL, err)
	}
	return c.wish(w)
}

// wish replaces what a directory wishes.
func (c *call) wish(w striping.Wish) (*rpc.Frame, error) {
	return c.changeXattr(func(ctx context.Context) error {
		return c.srv.pvfs.SetWish(ctx, pvfs.Handle(c.Handle), w)
	})
}
