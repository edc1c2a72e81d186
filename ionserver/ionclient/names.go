package ionclient

import (
	"context"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/ionserver/rpc"
)

// ask has the home of h do op; resp, if not nil, gets the reply's body.
func (c *Client) ask(ctx context.Context, op ionpb.Op, h uint64, req, resp proto.Message) error {
	reply, err := c.do(ctx, request{to: home(h), frame: rpc.Frame{Op: op, Handle: h}, body: req})
	if err != nil {
		return err
	}
	reply.Data.Release()
	if resp == nil {
		return nil
	}
	return reply.Decode(resp)
}

// entry is ask for operations that answer with a directory entry, whose
// attributes only its own home may know.
func (c *Client) entry(ctx context.Context, op ionpb.Op, dir uint64, req proto.Message) (Attr, error) {
	var e ionpb.EntryResp
	if err := c.ask(ctx, op, dir, req, &e); err != nil {
		return Attr{}, err
	}
	if e.Attr != nil {
		return attrOf(e.Attr), nil
	}
	a, err := c.GetAttr(ctx, e.Handle)
	if errno.Of(err) == syscall.ESTALE { // removed in between
		err = errno.Wrap("ionclient."+op.Key(), syscall.ENOENT, err)
	}
	return a, err
}

// Lookup finds one name in dir; it follows no symbolic link.
func (c *Client) Lookup(ctx context.Context, dir uint64, name string) (Attr, error) {
	return c.entry(ctx, ionpb.Op_LOOKUP, dir, &ionpb.NameReq{Name: []byte(name)})
}

// Create makes a file, EEXIST if the name is taken.
func (c *Client) Create(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (Attr, error) {
	return c.entry(ctx, ionpb.Op_CREATE, dir, &ionpb.CreateReq{Name: []byte(name), Mode: mode, Uid: uid, Gid: gid, Excl: true})
}

// Mkdir makes a directory.
func (c *Client) Mkdir(ctx context.Context, dir uint64, name string, mode, uid, gid uint32) (Attr, error) {
	return c.entry(ctx, ionpb.Op_MKDIR, dir, &ionpb.MkdirReq{Name: []byte(name), Mode: mode, Uid: uid, Gid: gid})
}

// Symlink makes a symbolic link to target.
func (c *Client) Symlink(ctx context.Context, dir uint64, name, target string, uid, gid uint32) (Attr, error) {
	return c.entry(ctx, ionpb.Op_SYMLINK, dir, &ionpb.SymlinkReq{Name: []byte(name), Target: []byte(target), Uid: uid, Gid: gid})
}

// Unlink removes a name that is no directory. It returns the handle of what
// it meant, and whether that lives on because it is open; handle 0 if the I/O
// node was restarted in the middle and cannot tell any more.
func (c *Client) Unlink(ctx context.Context, dir uint64, name string) (h uint64, open bool, err error) {
	var r ionpb.UnlinkResp
	err = c.ask(ctx, ionpb.Op_UNLINK, dir, &ionpb.NameReq{Name: []byte(name)}, &r)
	return r.Handle, r.Open, err
}

// Rmdir removes an empty directory and returns its handle, 0 as for Unlink.
func (c *Client) Rmdir(ctx context.Context, dir uint64, name string) (h uint64, err error) {
	var r ionpb.UnlinkResp
	err = c.ask(ctx, ionpb.Op_RMDIR, dir, &ionpb.NameReq{Name: []byte(name)}, &r)
	return r.Handle, err
}

// Rename moves a name; flags are those of renameat2(2). What it returns is
// zero if the I/O node was restarted in the middle and cannot tell any more.
func (c *Client) Rename(ctx context.Context, oldDir uint64, oldName string, newDir uint64, newName string, flags uint32) (Renamed, error) {
	var r ionpb.RenameResp
	err := c.ask(ctx, ionpb.Op_RENAME, newDir, &ionpb.RenameReq{
		OldDir: oldDir, OldName: []byte(oldName), NewName: []byte(newName), Flags: flags,
	}, &r)
	return Renamed{Moved: r.Moved, Replaced: r.Replaced, Open: r.Open}, err
}

// ReadDir returns entries from token on, nil being the start; at most max and,
// unless eof, at least one. next is the token to go on with.
func (c *Client) ReadDir(ctx context.Context, dir uint64, token []byte, max int) (ents []Dirent, next []byte, eof bool, err error) {
	var r ionpb.ReadDirResp
	if err := c.ask(ctx, ionpb.Op_READDIR, dir, &ionpb.ReadDirReq{Token: token, Max: uint32(max)}, &r); err != nil {
		return nil, nil, false, err
	}
	ents = make([]Dirent, len(r.Entries))
	for i, e := range r.Entries {
		ents[i] = Dirent{Name: string(e.Name), Handle: e.Handle, Type: e.Type}
	}
	return ents, r.Token, r.Eof, nil
}

// GetAttr returns the attributes of h, the exact size included.
func (c *Client) GetAttr(ctx context.Context, h uint64) (Attr, error) {
	var a ionpb.Attr
	if err := c.ask(ctx, ionpb.Op_GETATTR, h, nil, &a); err != nil {
		return Attr{}, err
	}
	return attrOf(&a), nil
}

// SetAttr changes attributes of h and returns them all; Size truncates.
func (c *Client) SetAttr(ctx context.Context, h uint64, s SetAttr) (Attr, error) {
	var a ionpb.Attr
	err := c.ask(ctx, ionpb.Op_SETATTR, h, &ionpb.SetAttrReq{
		Mode: s.Mode, Uid: s.UID, Gid: s.GID, Size: s.Size, Atime: s.Atime, Mtime: s.Mtime,
		AtimeNow: s.AtimeNow, MtimeNow: s.MtimeNow, KillSuid: s.KillSUID,
	}, &a)
	if err != nil {
		return Attr{}, err
	}
	return attrOf(&a), nil
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
