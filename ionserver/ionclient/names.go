package ionclient

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// ask has the home of h do op; resp, if not nil, gets the reply's body.
func (c *Client) ask(ctx context.Context, op ionpb.Op, h uint64, req, resp proto.Message) error {
	_, err := c.askLeased(ctx, op, h, req, resp)
	return err
}

// lease is the leases in an answer.
type lease struct {
	Tenure
	flags uint32
}

// on is the tenure of a lease on entries, ended if it was not given.
func (l lease) on() Tenure {
	if l.flags&LeaseEntries == 0 {
		return Tenure{}
	}
	return l.Tenure
}

// askLeased is like ask, and returns what came with the answer, even if that
// is an error.
func (c *Client) askLeased(ctx context.Context, op ionpb.Op, h uint64, req, resp proto.Message) (l lease, err error) {
	reply, err := c.do(ctx, request{
		to: home(h), frame: rpc.Frame{Op: op, Handle: h, Flags: c.wants()}, body: req, tenure: &l.Tenure, flags: &l.flags,
	})
	if err != nil {
		return l, err
	}
	reply.Data.Release()
	if resp == nil {
		return l, nil
	}
	return l, reply.Decode(resp)
}

// leasedAttr is the attributes in an answer.
func leasedAttr(m *ionpb.Attr, t Tenure) Attr {
	a := attrOf(m)
	if a.Leased {
		a.Tenure = t
	}
	return a
}

// entry is ask for operations that answer with a new directory entry, whose
// attributes come along.
func (c *Client) entry(ctx context.Context, op ionpb.Op, dir uint64, req proto.Message) (Changed, error) {
	var e ionpb.EntryResp
	l, err := c.askLeased(ctx, op, dir, req, &e)
	if err != nil {
		return Changed{}, err
	}
	return Changed{leasedAttr(e.Attr, l.Tenure), changedDir(e.Dir, l.Tenure)}, nil
}

// Name is a name in a directory.
type Name struct {
	Dir    uint64
	Name   string
	Handle uint64 // what it meant when it was seen last; 0: it was not
}

// Found is what a name means.
type Found struct {
	Handle uint64
	Type   ionpb.ObjType
	Attr   *Attr // nil if only the inode's own home can tell
}

// Lookup finds one name in dir; it follows no symbolic link. What it found, or
// that there is nothing, may be kept under the tenure unless that is zero.
func (c *Client) Lookup(ctx context.Context, dir uint64, name string) (Found, Tenure, error) {
	var e ionpb.EntryResp
	l, err := c.askLeased(ctx, ionpb.Op_LOOKUP, dir, &ionpb.NameReq{Name: []byte(name)}, &e)
	if err != nil {
		return Found{}, l.on(), err
	}
	f := Found{Handle: e.Handle, Type: e.Type}
	if e.Attr != nil {
		a := leasedAttr(e.Attr, l.Tenure)
		f.Attr = &a
	}
	return f, l.on(), nil
}

// Create makes a file, EEXIST if the name is taken.
func (c *Client) Create(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (Changed, error) {
	return c.entry(ctx, ionpb.Op_CREATE, dir, &ionpb.CreateReq{Name: []byte(name), Mode: mode, Uid: uid, Gid: gid, Excl: true})
}

// Mkdir makes a directory.
func (c *Client) Mkdir(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (Changed, error) {
	return c.entry(ctx, ionpb.Op_MKDIR, dir, &ionpb.MkdirReq{Name: []byte(name), Mode: mode, Uid: uid, Gid: gid})
}

// Symlink makes a symbolic link to target.
func (c *Client) Symlink(ctx context.Context, dir uint64, name, target string, uid, gid uint32) (Changed, error) {
	return c.entry(ctx, ionpb.Op_SYMLINK, dir, &ionpb.SymlinkReq{Name: []byte(name), Target: []byte(target), Uid: uid, Gid: gid})
}

// Removed is what the removal of a name has led to. It is zero if the I/O node
// was restarted in the middle and cannot tell any more.
type Removed struct {
	Handle uint64 // of what the name meant
	Open   bool   // that lives on because it is open
	Dir    *Attr  // of the directory, if its home knows them
}

// Unlink removes a name that is no directory. unopened is an inode that this mount
// has not open without its home knowing, and of whose attributes it goes by nothing
// that it knows until it is answered; 0 if there is none.
func (c *Client) Unlink(ctx context.Context, dir uint64, name string, unopened uint64) (Removed, error) {
	return c.remove(ctx, ionpb.Op_UNLINK, dir, &ionpb.NameReq{Name: []byte(name), Unopened: unopened})
}

// Rmdir removes an empty directory. This mount goes by nothing that it knows of
// unused, 0 if that is none, until it is answered.
func (c *Client) Rmdir(ctx context.Context, dir uint64, name string, unused uint64) (Removed, error) {
	return c.remove(ctx, ionpb.Op_RMDIR, dir, &ionpb.NameReq{Name: []byte(name), Unopened: unused})
}

func (c *Client) remove(ctx context.Context, op ionpb.Op, dir uint64, req proto.Message) (Removed, error) {
	var r ionpb.UnlinkResp
	l, err := c.askLeased(ctx, op, dir, req, &r)
	if err != nil {
		return Removed{}, err
	}
	return Removed{r.Handle, r.Open, changedDir(r.Dir, l.Tenure)}, nil
}

// Rename moves a name; flags are those of renameat2(2). The handle of to is as unopened
// is for Unlink. What it returns is zero if the I/O node was restarted in the middle
// and cannot tell any more.
func (c *Client) Rename(ctx context.Context, from, to Name, flags uint32) (Renamed, error) {
	var r ionpb.RenameResp
	err := c.ask(ctx, ionpb.Op_RENAME, to.Dir, &ionpb.RenameReq{
		OldDir: from.Dir, OldName: []byte(from.Name), NewName: []byte(to.Name), Flags: flags, Unopened: to.Handle, Meant: from.Handle,
	}, &r)
	return Renamed{Moved: r.Moved, Replaced: r.Replaced, Open: r.Open}, err
}

// Listing is part of a directory.
type Listing struct {
	Entries []Dirent
	Next    []byte // the token to go on with
	EOF     bool   // there are no more
	Tenure  Tenure // under which it may be kept; zero: it may not
}

// ReadDir returns entries from token on, nil being the start; at most max and,
// unless EOF, at least one.
func (c *Client) ReadDir(ctx context.Context, dir uint64, token []byte, max int) (Listing, error) {
	var r ionpb.ReadDirResp
	l, err := c.askLeased(ctx, ionpb.Op_READDIR, dir, &ionpb.ReadDirReq{Token: token, Max: uint32(max)}, &r)
	if err != nil {
		return Listing{}, err
	}
	ents := make([]Dirent, len(r.Entries))
	for i, e := range r.Entries {
		ents[i] = Dirent{Name: string(e.Name), Handle: e.Handle, Type: e.Type}
	}
	return Listing{ents, r.Token, r.Eof, l.on()}, nil
}

// GetAttr returns the attributes of h, the exact size included.
func (c *Client) GetAttr(ctx context.Context, h uint64) (Attr, error) {
	var a ionpb.Attr
	l, err := c.askLeased(ctx, ionpb.Op_GETATTR, h, nil, &a)
	if err != nil {
		return Attr{}, err
	}
	return leasedAttr(&a, l.Tenure), nil
}

// SetAttr changes attributes of h and returns them all; Size truncates.
func (c *Client) SetAttr(ctx context.Context, h uint64, s SetAttr) (Attr, error) {
	var a ionpb.Attr
	l, err := c.askLeased(ctx, ionpb.Op_SETATTR, h, &ionpb.SetAttrReq{
		Mode: s.Mode, Uid: s.UID, Gid: s.GID, Size: s.Size, Atime: s.Atime, Mtime: s.Mtime,
		AtimeNow: s.AtimeNow, MtimeNow: s.MtimeNow, KillSuid: s.KillSUID,
	}, &a)
	if err != nil {
		return Attr{}, err
	}
	return leasedAttr(&a, l.Tenure), nil
}

// Readlink returns the target of a symbolic link.
func (c *Client) Readlink(ctx context.Context, h uint64) (string, error) {
	var r ionpb.ReadlinkResp
	err := c.ask(ctx, ionpb.Op_READLINK, h, nil, &r)
	return string(r.Target), err
}

// GetXattr returns the value of an extended attribute, ENODATA if there is none.
func (c *Client) GetXattr(ctx context.Context, h uint64, name string) ([]byte, error) {
	var r ionpb.XattrResp
	err := c.ask(ctx, ionpb.Op_GETXATTR, h, &ionpb.NameReq{Name: []byte(name)}, &r)
	return r.Value, err
}

// SetXattr sets an extended attribute; flags are those of setxattr(2).
func (c *Client) SetXattr(ctx context.Context, h uint64, name string, value []byte, flags uint32) error {
	return c.ask(ctx, ionpb.Op_SETXATTR, h, &ionpb.SetXattrReq{Name: []byte(name), Value: value, Flags: flags}, nil)
}

// ListXattr returns the names of the extended attributes.
func (c *Client) ListXattr(ctx context.Context, h uint64) ([]string, error) {
	var r ionpb.ListXattrResp
	if err := c.ask(ctx, ionpb.Op_LISTXATTR, h, nil, &r); err != nil {
		return nil, err
	}
	names := make([]string, len(r.Names))
	for i, n := range r.Names {
		names[i] = string(n)
	}
	return names, nil
}

// RemoveXattr removes an extended attribute, ENODATA if there is none.
func (c *Client) RemoveXattr(ctx context.Context, h uint64, name string) error {
	return c.ask(ctx, ionpb.Op_REMOVEXATTR, h, &ionpb.NameReq{Name: []byte(name)}, nil)
}

// StatFS returns the state of the file system.
func (c *Client) StatFS(ctx context.Context) (StatFS, error) {
	var r ionpb.StatFSResp
	if err := c.ask(ctx, ionpb.Op_STATFS, c.View().Root, nil, &r); err != nil {
		return StatFS{}, err
	}
	return StatFS{
		BlockSize: r.BlockSize, Blocks: r.Blocks, BlocksFree: r.BlocksFree, BlocksAvail: r.BlocksAvail,
		Files: r.Files, FilesFree: r.FilesFree, NameMax: r.NameMax,
	}, nil
}
