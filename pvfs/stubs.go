package pvfs

import (
	"context"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

func todo(op string) error { return errno.New("pvfs."+op, syscall.ENOSYS) }

type Client struct{}

func Dial(ctx context.Context, url string, opt Options) (*Client, error) { return nil, todo("Dial") }
func (c *Client) Close() error                                           { return nil }
func (c *Client) FSID() wire.FSID                                        { return 0 }
func (c *Client) FSName() string                                         { return "" }
func (c *Client) Root() Handle                                           { return 0 }
func (c *Client) Servers() []Server                                      { return nil }
func (c *Client) Ping(ctx context.Context, alias string) error           { return todo("Ping") }
func (c *Client) Stats() Snapshot                                        { return Snapshot{} }
func (c *Client) ResetStats()                                            {}

func (c *Client) Lookup(ctx context.Context, dir Handle, name string) (Handle, error) {
	return 0, todo("Lookup")
}
func (c *Client) GetAttr(ctx context.Context, h Handle) (Attr, error) { return Attr{}, todo("GetAttr") }
func (c *Client) SetAttr(ctx context.Context, h Handle, s SetAttr) error {
	return todo("SetAttr")
}
func (c *Client) Create(ctx context.Context, dir Handle, name string, o CreateOptions) (Attr, error) {
	return Attr{}, todo("Create")
}
func (c *Client) Mkdir(ctx context.Context, dir Handle, name string, o CreateOptions) (Attr, error) {
	return Attr{}, todo("Mkdir")
}
func (c *Client) Symlink(ctx context.Context, dir Handle, name, target string, uid, gid uint32) (Attr, error) {
	return Attr{}, todo("Symlink")
}
func (c *Client) Link(ctx context.Context, dir Handle, name string, h Handle) error {
	return todo("Link")
}
func (c *Client) Unlink(ctx context.Context, dir Handle, name string) (Handle, error) {
	return 0, todo("Unlink")
}
func (c *Client) Relink(ctx context.Context, dir Handle, name string, h Handle) (Handle, error) {
	return 0, todo("Relink")
}
func (c *Client) Destroy(ctx context.Context, h Handle) error { return todo("Destroy") }
func (c *Client) Remove(ctx context.Context, dir Handle, name string) error {
	return todo("Remove")
}
func (c *Client) Rmdir(ctx context.Context, dir Handle, name string) error { return todo("Rmdir") }
func (c *Client) Rename(ctx context.Context, od Handle, on string, nd Handle, nn string) error {
	return todo("Rename")
}
func (c *Client) ReadDir(ctx context.Context, dir Handle, token DirToken, max int) (ents []Dirent, next DirToken, eof bool, err error) {
	return nil, 0, false, todo("ReadDir")
}
func (c *Client) ReadDirPlus(ctx context.Context, dir Handle, token DirToken, max int) (ents []DirentPlus, next DirToken, eof bool, err error) {
	return nil, 0, false, todo("ReadDirPlus")
}
func (c *Client) ListAttr(ctx context.Context, hs []Handle, sizes bool) ([]Attr, []error, error) {
	return nil, nil, todo("ListAttr")
}
func (c *Client) GetXattr(ctx context.Context, h Handle, name string) ([]byte, error) {
	return nil, todo("GetXattr")
}
func (c *Client) SetXattr(ctx context.Context, h Handle, name string, value []byte, flags XattrFlags) error {
	return todo("SetXattr")
}
func (c *Client) ListXattr(ctx context.Context, h Handle) ([]string, error) {
	return nil, todo("ListXattr")
}
func (c *Client) RemoveXattr(ctx context.Context, h Handle, name string) error {
	return todo("RemoveXattr")
}
func (c *Client) StatFS(ctx context.Context) (StatFS, error) { return StatFS{}, todo("StatFS") }

type File struct{}

func (c *Client) File(a Attr) *File { return &File{} }
func (f *File) ReadAt(ctx context.Context, bufs [][]byte, off int64) (n int, err error) {
	return 0, todo("ReadAt")
}
func (f *File) WriteAt(ctx context.Context, bufs [][]byte, off int64) (n int, err error) {
	return 0, todo("WriteAt")
}
func (f *File) ReadExtents(ctx context.Context, exts []extent.Extent, bufs [][]byte) (n int64, err error) {
	return 0, todo("ReadExtents")
}
func (f *File) WriteExtents(ctx context.Context, exts []extent.Extent, bufs [][]byte) (n int64, err error) {
	return 0, todo("WriteExtents")
}
func (f *File) Size(ctx context.Context) (int64, error)         { return 0, todo("Size") }
func (f *File) Truncate(ctx context.Context, size int64) error { return todo("Truncate") }
func (f *File) Flush(ctx context.Context) error                { return todo("Flush") }
