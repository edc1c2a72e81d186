package pvfs

import (
	"context"
	"fmt"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// What follows is for tools that look at the objects of single servers. It
// goes to the server that is named, whoever owns the handles, and remembers
// nothing.

// inspectMask is everything about an object but capabilities. Source: what
// pvfs2-fsck and pvfs2-ls ask for, PROTOCOL.md §7.
const inspectMask = wire.AttrAll&^wire.AttrCapability | wire.AttrSize

// listHandles is how many handles one request asks for; real servers give no
// more than 1024.
const listHandles = 1024

// MaxInspect is how many objects one Inspect may ask for.
const MaxInspect = wire.MaxListAttr

func (c *Client) server(alias string) (*server, error) {
	s, ok := c.servers[alias]
	if !ok {
		return nil, errno.Wrap("pvfs", syscall.ENOENT, fmt.Errorf("no server %q", alias))
	}
	return s, nil
}

// Owner is the alias of the server that owns h; ok is false if none does.
func (c *Client) Owner(h Handle) (alias string, ok bool) { return c.fs.Owner(uint64(h)) }

// EachHandle calls f with the handles of all objects that the server called
// alias keeps, some at a time, in no particular order; what changes meanwhile
// may be among them or not. With reserved, they are those that the server
// holds for objects to come, which other servers may keep. The slice is f's.
func (c *Client) EachHandle(ctx context.Context, alias string, reserved bool, f func(hs []Handle) error) error {
	s, err := c.server(alias)
	if err != nil {
		return err
	}
	req := &wire.IterateHandlesReq{FSID: c.fsid, Count: listHandles, Position: wire.TokenStart}
	if reserved {
		req.Flags = 1
	}
	for req.Position != wire.TokenEnd {
		var resp wire.IterateHandlesResp
		if _, err := s.ask(ctx, req, &resp); err != nil {
			return err
		}
		if len(resp.Handles) == 0 && resp.Position == req.Position {
			return protocolError("no handles and no end of server %s", alias)
		}
		if err := f(resp.Handles); err != nil {
			return err
		}
		req.Position = resp.Position
	}
	return nil
}

// Inspect returns what the server called alias knows of at most MaxInspect
// objects, or for each the reason why it knows nothing. Which parts are there,
// the masks tell.
func (c *Client) Inspect(ctx context.Context, alias string, hs []Handle) ([]wire.Attr, []error, error) {
	s, err := c.server(alias)
	if err != nil {
		return nil, nil, err
	}
	if len(hs) > MaxInspect {
		return nil, nil, errno.Wrap("pvfs.Inspect", syscall.EINVAL, fmt.Errorf("%d objects", len(hs)))
	}
	out, errs, idx := make([]wire.Attr, len(hs)), make([]error, len(hs)), make([]int, len(hs))
	for i := range hs {
		idx[i] = i
	}
	if len(hs) == 0 {
		return out, errs, nil
	}
	return out, errs, s.listattr(ctx, hs, idx, inspectMask, out, errs)
}

// ReadBucket returns entries of one dirdata object of dir from token on, which
// is 0 for the start, and the token of the next; eof means that there are no
// more. Entries that exist throughout are returned once.
func (c *Client) ReadBucket(ctx context.Context, dir, bucket Handle, token uint64) (ents []Dirent, next uint64, eof bool, err error) {
	var resp wire.ReadDirResp
	req := &wire.ReadDirReq{Dirdata: bucket, FSID: c.fsid, Count: wire.MaxDirents, Token: token ^ wire.TokenStart}
	if _, err := c.ownerTell(ctx, req, &resp, dir, bucket); err != nil {
		return nil, 0, false, err
	}
	eof = resp.Token == wire.TokenEnd
	if !eof && len(resp.Dirents) == 0 {
		return nil, 0, false, protocolError("no entries and no end of bucket %d", bucket)
	}
	ents = make([]Dirent, len(resp.Dirents))
	for i, e := range resp.Dirents {
		ents[i] = Dirent{e.Name, e.Handle}
	}
	return ents, resp.Token ^ wire.TokenStart, eof, nil
}

// FindEntry returns what the entry called name in one dirdata object names,
// whether that exists or not. ENOENT if there is no such entry.
func (c *Client) FindEntry(ctx context.Context, bucket Handle, name string) (Handle, error) {
	if err := checkName("FindEntry", name); err != nil {
		return 0, err
	}
	var resp wire.GetDirentResp
	if err := c.ownerAsk(ctx, bucket, &wire.GetDirentReq{Dirdata: bucket, FSID: c.fsid, Name: name}, &resp); err != nil {
		return 0, err
	}
	return resp.Handle, resp.Status.Err("pvfs.mgmt_get_dirent")
}

// BucketOf is the dirdata object that holds the entry called name of the
// directory that d describes; 0 if d describes none.
func BucketOf(d *wire.DistDir, name string) Handle {
	if len(d.Dirdata) == 0 {
		return 0
	}
	return (&dirInfo{DistDir: *d}).bucket(name)
}

// RemoveObject removes the object h and nothing else: neither the datafiles of
// a file nor the entry that names it. It asks no questions; ENOENT if there is
// no such object.
func (c *Client) RemoveObject(ctx context.Context, h Handle) error {
	s, err := c.owner(h)
	if err != nil {
		return err
	}
	lost, err := s.ask(ctx, &wire.RemoveObjectReq{Handle: h, FSID: c.fsid}, nil)
	if lost && isNotFound(err) {
		return nil
	}
	return err
}
