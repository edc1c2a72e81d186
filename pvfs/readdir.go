package pvfs

import (
	"context"
	"fmt"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// A DirToken is the bucket in its upper 16 bits and the server's token in the
// lower 48, so mixed that the start of the first bucket is 0.
const tokenBits = 48

func newDirToken(bucket int, token uint64) DirToken {
	return DirToken((uint64(bucket)<<tokenBits | token&(1<<tokenBits-1)) ^ wire.TokenStart)
}

func (t DirToken) split() (bucket int, token uint64) {
	v := uint64(t) ^ wire.TokenStart
	return int(v >> tokenBits), v & (1<<tokenBits - 1)
}

// ReadDir returns up to max entries of dir from token on, in no particular
// order, and the token of the next; eof means that there are no more. It returns
// at least one entry or eof. Entries that exist throughout are returned once,
// or twice if their bucket split meanwhile. max is 1 or more.
func (c *Client) ReadDir(ctx context.Context, dir Handle, token DirToken, max int) (ents []Dirent, next DirToken, eof bool, err error) {
	if max < 1 {
		return nil, 0, false, errno.Wrap("pvfs.ReadDir", syscall.EINVAL, fmt.Errorf("at most %d entries", max))
	}
	info, err := c.dirInfo(ctx, dir)
	if err != nil {
		return nil, 0, false, err
	}
	fresh := len(info.Dirdata) == 1
	bucket, at := token.split()
	for len(ents) < max {
		if !info.Active(bucket) && !fresh {
			// A bucket only ever splits into one with a higher number.
			if info, err = c.freshDirInfo(ctx, dir); err != nil {
				return nil, 0, false, err
			}
			fresh = true
		}
		if bucket >= len(info.Dirdata) {
			return ents, newDirToken(bucket, wire.TokenStart), true, nil
		}
		if !info.Active(bucket) {
			bucket, at = bucket+1, wire.TokenStart
			continue
		}
		d := info.Dirdata[bucket]
		var resp wire.ReadDirResp
		req := &wire.ReadDirReq{Dirdata: d, FSID: c.fsid, Count: uint32(min(max-len(ents), wire.MaxDirents)), Token: at}
		if _, err := c.ownerTell(ctx, req, &resp, dir, d); err != nil {
			c.dirs.drop(dir)
			return nil, 0, false, err
		}
		for _, e := range resp.Dirents {
			ents = append(ents, Dirent{e.Name, e.Handle})
		}
		if at = resp.Token; at == wire.TokenEnd {
			bucket, at = bucket+1, wire.TokenStart
			fresh = len(info.Dirdata) == 1
		} else if len(resp.Dirents) == 0 {
			return nil, 0, false, protocolError("no entries and no end of directory %d", dir)
		}
	}
	eof = bucket >= len(info.Dirdata)
	return ents, newDirToken(bucket, at), eof, nil
}

// ReadDirPlus is ReadDir with the attributes of each entry, sizes included. It
// asks every server once for up to 60 objects.
func (c *Client) ReadDirPlus(ctx context.Context, dir Handle, token DirToken, max int) (ents []DirentPlus, next DirToken, eof bool, err error) {
	plain, next, eof, err := c.ReadDir(ctx, dir, token, max)
	if err != nil || len(plain) == 0 {
		return nil, next, eof, err
	}
	hs := make([]Handle, len(plain))
	for i := range plain {
		hs[i] = plain[i].Handle
	}
	attrs, errs, err := c.ListAttr(ctx, hs, true)
	if err != nil {
		return nil, 0, false, err
	}
	ents = make([]DirentPlus, len(plain))
	for i := range plain {
		ents[i] = DirentPlus{plain[i], attrs[i], errs[i]}
	}
	return ents, next, eof, nil
}
