package pvfs

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/dist"
	"github.com/zoidfs/zoidfs/pvfs/striping"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// wantXattr is the number of datafiles that a stuffed file will have, an i32
// that servers show while they need it.
const wantXattr = "system.pvfs2.nd"

// defaultServers is over how many servers a file lies if nobody wishes anything.
func (c *Client) defaultServers() int {
	return min(cmp.Or(c.fs.DefaultNumDFiles, len(c.data)), len(c.data), dist.MaxServers)
}

// StripeWidth is the bytes of one stripe of a file with attributes a; 0 for
// anything else. The attributes of a stuffed file do not tell how many servers
// it will have, so it counts with as many as files have by default.
func (c *Client) StripeWidth(a *Attr) int64 {
	switch {
	case a.Layout == nil:
		return 0
	case a.Layout.Stuffed:
		return striping.Width(&a.Layout.Dist, c.defaultServers())
	}
	return a.StripeSize
}

// Spreads reports whether a file of this size, in bytes, will be given more
// datafiles than it has when its bytes are written: then its stripe is not known
// yet.
func (a *Attr) Spreads(size int64) bool {
	return a.Layout != nil && a.Layout.Stuffed && size > striping.Width(&a.Layout.Dist, 1)
}

// Striping returns how the data of file h lie, or how those of new files in
// directory h will: one request for a directory, two or three for a file. It
// asks the servers in any case, so that it sees what other clients have set.
// ENOENT if there is no such object, EINVAL if it is no file or directory.
func (c *Client) Striping(ctx context.Context, h Handle) (striping.Info, error) {
	i := striping.Info{DataServers: len(c.data), DefaultServers: c.defaultServers()}
	w, err := c.getattr(ctx, h, attrMask)
	if err != nil {
		return i, err
	}
	c.dirs.put(h, &w)
	switch {
	case w.Type == wire.TypeDirectory:
		c.wishes(&i, &w.DirHint)
		return i, nil
	case w.Type != wire.TypeMetafile:
		return i, wrongType("Striping", syscall.EINVAL)
	}
	l := layoutOf(&w)
	if l == nil {
		return i, protocolError("file without datafiles")
	}
	i.Type = striping.TypeFile
	return i, c.lies(ctx, h, &i, l)
}

// wishes fills in what holds for new files in a directory.
func (c *Client) wishes(i *striping.Info, hint *wire.DirHint) {
	wish := wishOf(hint)
	i.Type, i.Wish = striping.TypeDirectory, &wish
	i.DistFrom, i.ServersFrom = striping.FromFileSystem, striping.FromFileSystem
	if wish.Dist != "" {
		i.DistFrom = striping.FromDirectory
	}
	if wish.Servers != 0 {
		i.ServersFrom = striping.FromDirectory
	}
	s, err := c.shapeFor(CreateOptions{}, hint)
	if err != nil {
		i.Dist, i.Params, i.Problem = wish.Dist, wish.Params, cause(err).Error()
		return
	}
	i.Describe(&s.dist, s.dfiles)
}

// cause is err without the name of the operation that it came from.
func cause(err error) error {
	var e *errno.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}

func wishOf(h *wire.DirHint) striping.Wish {
	return striping.Wish{
		Dist: strings.TrimRight(h.DistName, "\x00"), Params: strings.TrimRight(h.DistParams, "\x00"), Servers: int(h.DFiles),
	}
}

// lies fills in where the data of file h with layout l lie.
func (c *Client) lies(ctx context.Context, h Handle, i *striping.Info, l *Layout) error {
	n := len(l.DFiles)
	if i.Stuffed = l.Stuffed; i.Stuffed {
		v, err := c.GetXattr(ctx, h, wantXattr)
		switch {
		case err == nil && len(v) == 4:
			n = int(min(binary.LittleEndian.Uint32(v), dist.MaxServers))
		case err != nil && !errors.Is(err, syscall.ENODATA): // it has just grown: then that is what is missing
			return err
		}
	}
	i.Describe(&l.Dist, n)
	p, err := newPlacement(l)
	if err != nil {
		return err
	}
	sizes, err := c.datafileSizes(ctx, l.DFiles)
	if err != nil {
		return err
	}
	i.Size = p.dist.Size(sizes)
	for k, d := range l.DFiles {
		s, err := c.owner(d)
		if err != nil {
			return err
		}
		i.Servers = append(i.Servers, striping.Server{Alias: s.Alias, Addr: s.Addr, Handle: uint64(d), Bytes: sizes[k]})
	}
	return nil
}

// CheckWish refuses, with EINVAL, a value of an extended attribute by which
// directory h would wish what the servers cannot fulfil, or that is set on no
// directory. Attributes that are no wish pass without a request.
func (c *Client) CheckWish(ctx context.Context, h Handle, name string, value []byte) error {
	switch name {
	case striping.KeyDist, striping.KeyParams, striping.KeyServers:
	default:
		return nil
	}
	info, err := c.freshDirInfo(ctx, h)
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return errno.Wrap("pvfs.CheckWish", syscall.EINVAL, err)
	case err != nil:
		return err
	}
	w := wishOf(&info.hint)
	if err := w.CheckXattr(name, string(value), c.limits()); err != nil {
		return errno.Wrap("pvfs.CheckWish", syscall.EINVAL, err)
	}
	return nil
}

func (c *Client) limits() striping.Limits {
	return striping.Limits{Servers: len(c.data), Default: c.defaultServers()}
}

// Wish is what directory dir wishes itself for new files, as the servers know it
// now. ENOTDIR if dir is none.
func (c *Client) Wish(ctx context.Context, dir Handle) (striping.Wish, error) {
	info, err := c.freshDirInfo(ctx, dir)
	if err != nil {
		return striping.Wish{}, err
	}
	return wishOf(&info.hint), nil
}

// SetWish replaces what directory dir wishes for new files by w: all that w
// says in one request, which servers carry out whole or not at all, and one for
// each field that is zero in w. EINVAL if w cannot be fulfilled, ENOTDIR if dir
// is none.
func (c *Client) SetWish(ctx context.Context, dir Handle, w striping.Wish) error {
	if err := w.Check(c.limits()); err != nil {
		return errno.Wrap("pvfs.SetWish", syscall.EINVAL, err)
	}
	info, err := c.freshDirInfo(ctx, dir)
	if err != nil {
		return err
	}
	defer c.dirs.drop(dir)
	req := &wire.SetEattrReq{Handle: dir, FSID: c.fsid}
	var gone []string
	for _, x := range []struct {
		key, value string
		had        bool
	}{
		{striping.KeyDist, w.Dist, info.hint.DistName != ""},
		{striping.KeyParams, w.Params, info.hint.DistParams != ""},
		{striping.KeyServers, number(w.Servers), true}, // what servers cannot read they show as 0
	} {
		switch {
		case x.value != "":
			req.Keys = append(req.Keys, append([]byte(x.key), 0))
			req.Values = append(req.Values, append([]byte(x.value), 0))
		case x.had:
			gone = append(gone, x.key)
		}
	}
	if len(req.Keys) > 0 {
		if _, err := c.ownerTell(ctx, req, nil, dir, dir); err != nil {
			return err
		}
	}
	for _, key := range gone {
		if err := c.RemoveXattr(ctx, dir, key); err != nil && !errors.Is(err, syscall.ENODATA) {
			return fmt.Errorf("remove %s: %w", key, err)
		}
	}
	return nil
}

// number is n in decimal, "" for 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
