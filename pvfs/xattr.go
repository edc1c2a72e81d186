package pvfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

const (
	maxXattrs = 10000                // keys of one object that ListXattr collects
	hidden    = "system.pvfs2."      // attributes in which servers keep their own things
	hints     = "user.pvfs2."        // attributes that change how files are made
	perList   = wire.MaxEattrs       // keys asked for at once; servers refuse more
	xattrRoom = wire.MaxEattrValue   // bytes we have for a value
	keyRoom   = wire.MaxEattrKey     // bytes we have for a key
	maxKey    = wire.MaxEattrKey - 1 // bytes of a key without NUL
)

// xattrKey is name as it is stored: with a NUL that counts.
func xattrKey(op, name string) ([]byte, error) {
	prefix, rest, ok := strings.Cut(name, ".")
	switch {
	case len(name) > maxKey:
		return nil, errno.New("pvfs."+op, syscall.ERANGE)
	case !ok || rest == "" || !slices.Contains([]string{"user", "system", "trusted", "security"}, prefix):
		return nil, errno.Wrap("pvfs."+op, syscall.EOPNOTSUPP, fmt.Errorf("extended attribute %q", name))
	case strings.Contains(name, "\x00"):
		return nil, errno.Wrap("pvfs."+op, syscall.EINVAL, fmt.Errorf("extended attribute %q", name))
	}
	return append([]byte(name), 0), nil
}

// noData turns a missing attribute into what callers know it by.
func noData(op string, err error) error {
	if isNotFound(err) {
		return errno.New("pvfs."+op, syscall.ENODATA)
	}
	return err
}

// GetXattr returns the value of an extended attribute; ENODATA if it, or the
// object, does not exist. EOPNOTSUPP unless the name begins with user., system.,
// trusted. or security.
func (c *Client) GetXattr(ctx context.Context, h Handle, name string) ([]byte, error) {
	values, err := c.getXattrs(ctx, "GetXattr", h, name)
	switch {
	case err != nil:
		return nil, err
	case values[0] == nil:
		return nil, errno.New("pvfs.GetXattr", syscall.ENODATA)
	case strings.HasPrefix(name, hints):
		return bytes.TrimSuffix(values[0], []byte{0}), nil
	}
	return values[0], nil
}

// GetXattrs returns the values of extended attributes that are no wishes, in one
// request; nil for each that does not exist. values[i] is that of names[i].
func (c *Client) GetXattrs(ctx context.Context, h Handle, names ...string) (values [][]byte, err error) {
	return c.getXattrs(ctx, "GetXattrs", h, names...)
}

func (c *Client) getXattrs(ctx context.Context, op string, h Handle, names ...string) (values [][]byte, err error) {
	req := &wire.GetEattrReq{Handle: h, FSID: c.fsid, Rooms: slices.Repeat([]int64{xattrRoom}, len(names))}
	for _, name := range names {
		key, err := xattrKey(op, name)
		if err != nil {
			return nil, err
		}
		req.Keys = append(req.Keys, key)
	}
	var resp wire.GetEattrResp
	_, err = c.ownerTell(ctx, req, &resp, h, h)
	switch {
	case isNotFound(err): // none of them
		return make([][]byte, len(names)), nil
	case err != nil:
		return nil, err
	case len(resp.Values) != len(names):
		return nil, protocolError("%d values of %d attributes", len(resp.Values), len(names))
	}
	values = make([][]byte, len(names))
	for i, s := range resp.Statuses {
		err := s.Err("pvfs." + op)
		switch {
		case err == nil:
			values[i] = append([]byte{}, resp.Values[i]...)
		case !isNotFound(err):
			return nil, err
		}
	}
	return values, nil
}

// SetXattr sets an extended attribute. With XattrCreate it is EEXIST if there is
// one, with XattrReplace ENODATA if there is none; as servers do not enforce the
// former, two callers at once may both succeed. ENOSPC for a value above 8192
// bytes; names are as in GetXattr.
func (c *Client) SetXattr(ctx context.Context, h Handle, name string, value []byte, flags XattrFlags) error {
	key, err := xattrKey("SetXattr", name)
	if err != nil {
		return err
	}
	if len(value) > wire.MaxEattrValue || len(value) == wire.MaxEattrValue && strings.HasPrefix(name, hints) {
		return errno.Wrap("pvfs.SetXattr", syscall.ENOSPC, fmt.Errorf("value of %d bytes", len(value)))
	}
	if flags&^(XattrCreate|XattrReplace) != 0 || flags == XattrCreate|XattrReplace {
		return errno.Wrap("pvfs.SetXattr", syscall.EINVAL, fmt.Errorf("flags %d", flags))
	}
	if flags == XattrCreate {
		if _, err := c.GetXattr(ctx, h, name); err == nil {
			return errno.New("pvfs.SetXattr", syscall.EEXIST)
		} else if !errors.Is(err, syscall.ENODATA) {
			return err
		}
	}
	if strings.HasPrefix(name, hints) && !bytes.HasSuffix(value, []byte{0}) {
		value = append(bytes.Clone(value), 0) // servers read it as a C string
	}
	req := &wire.SetEattrReq{Handle: h, FSID: c.fsid, Keys: [][]byte{key}, Values: [][]byte{value}}
	if flags == XattrReplace {
		req.Flags = wire.EattrReplace
	}
	_, err = c.ownerTell(ctx, req, nil, h, h)
	if flags == XattrReplace {
		err = noData("SetXattr", err)
	}
	if strings.HasPrefix(name, hints) {
		c.dirs.drop(h)
	}
	return err
}

// setXattrs sets extended attributes, which are no wishes, in one request that
// servers carry out whole or not at all.
func (c *Client) setXattrs(ctx context.Context, h Handle, xs []Xattr) error {
	req := &wire.SetEattrReq{Handle: h, FSID: c.fsid}
	for _, x := range xs {
		key, err := xattrKey("SetXattr", x.Name)
		if err != nil {
			return err
		}
		if len(x.Value) > wire.MaxEattrValue {
			return errno.Wrap("pvfs.SetXattr", syscall.ENOSPC, fmt.Errorf("value of %d bytes", len(x.Value)))
		}
		req.Keys, req.Values = append(req.Keys, key), append(req.Values, x.Value)
	}
	if len(req.Keys) > wire.MaxEattrs {
		return errno.Wrap("pvfs.SetXattr", syscall.EINVAL, fmt.Errorf("%d attributes at once", len(req.Keys)))
	}
	_, err := c.ownerTell(ctx, req, nil, h, h)
	return err
}

// ListXattr returns the names of h's extended attributes, without those in which
// servers keep their own things.
func (c *Client) ListXattr(ctx context.Context, h Handle) ([]string, error) {
	out := []string{}
	rooms := slices.Repeat([]int64{keyRoom}, perList)
	for token := wire.TokenStart; token != wire.TokenEnd; {
		var resp wire.ListEattrResp
		req := &wire.ListEattrReq{Handle: h, FSID: c.fsid, Token: token, Rooms: rooms}
		if _, err := c.ownerTell(ctx, req, &resp, h, h); err != nil {
			return nil, err
		}
		for _, k := range resp.Keys {
			if name := strings.TrimRight(string(k), "\x00"); !strings.HasPrefix(name, hidden) {
				out = append(out, name)
			}
		}
		if len(resp.Keys) == 0 || len(out) > maxXattrs {
			break
		}
		token = resp.Token
	}
	return out, nil
}

// RemoveXattr removes an extended attribute; ENODATA if it does not exist.
func (c *Client) RemoveXattr(ctx context.Context, h Handle, name string) error {
	key, err := xattrKey("RemoveXattr", name)
	if err != nil {
		return err
	}
	lost, err := c.ownerTell(ctx, &wire.DelEattrReq{Handle: h, FSID: c.fsid, Key: key}, nil, h, h)
	if lost && isNotFound(err) {
		err = nil
	}
	if strings.HasPrefix(name, hints) {
		c.dirs.drop(h)
	}
	return noData("RemoveXattr", err)
}
